"""The windows, against the formulas of those who made them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dbtbench.dicom.volume import window_table
from dbtbench.dicom.window import Display
from dbtbench.errors import UnreadableError

CENTRE, WIDTH = 500.0, 600.0  # as `write_file` writes


def display_with(window: tuple[float, float] | None = (CENTRE, WIDTH), **changes: Any) -> Display:
    return Display(**{"bits_stored": 10, "window": window} | changes)


def window_by_the_book(x: float, c: float, w: float, function: str) -> float:
    """The pseudo-code and formulas of PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, to [0, 1]."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (x - c) / w, 700)))
    if function == "LINEAR_EXACT":
        if x <= c - w / 2:
            return 0
        return 1 if x > c + w / 2 else (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    return 1 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(500, 600), (512, 512), (511.5, 1), (100, 2), (2048, 4096)])
def test_the_dicom_window_is_the_standards_after_slope_and_intercept(
    window: tuple[float, float], function: str
) -> None:
    table = window_table(display_with(window, bits_stored=16, slope=0.5, intercept=-20.0, function=function))
    for stored in (0, 1, 200, 239, 240, 241, 1023, 1062, 1063, 1064, 1500, 65535):
        expected = window_by_the_book(stored * 0.5 - 20, *window, function)
        assert table[stored] == pytest.approx(expected, abs=1e-6)


def test_the_duke_window_is_the_collections_own_readers() -> None:
    """skimage.exposure.rescale_intensity(image, in_range=(low, high), out_range="dtype") on uint16."""
    table = window_table(display_with((512, 512), slope=3.0, intercept=7.0), "duke")
    for stored in range(0, 1024, 7):
        scaled = int((min(max(stored, 256), 768) - 256) / (768 - 256) * 65535)
        assert table[stored] == pytest.approx(scaled / 65535, abs=1e-7)


def test_no_window_is_the_share_of_the_largest_stored_value() -> None:
    table = window_table(display_with(None, slope=3.0), "none")
    assert (table[0], table[1023], table[1024], table[65535]) == (0, 1, 1, 1)
    assert table[341] == pytest.approx(1 / 3)


@pytest.mark.parametrize("window", ["dicom", "duke"])
@pytest.mark.parametrize(
    ("of_file", "reason"),
    [(None, "no window"), ((500, 0), "invalid window"), ((500, -3), "invalid window")],
)
def test_a_window_that_is_not_there_or_not_allowed_is_a_reason(
    window: str, of_file: Any, reason: str
) -> None:
    with pytest.raises(UnreadableError, match=reason):
        window_table(display_with(of_file), window)


def test_only_a_linear_window_must_be_as_wide_as_one() -> None:
    with pytest.raises(UnreadableError, match="invalid window"):
        window_table(display_with((500, 0.5)))
    assert window_table(display_with((500, 0.5), function="LINEAR_EXACT"))[500] == 0.5
