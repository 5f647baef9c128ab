"""The text files beside a raw file: their layout, or a reason; never another error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbtbench.errors import UnreadableError
from dbtbench.exchange.t_synth.header import (
    BAD_HEADER,
    BAD_PLACE,
    ELEMENT_TYPES,
    MAX_BYTES,
    OUTSIDE,
    parse_header,
    parse_place,
    read_header,
    read_place,
)

GOOD = "ElementSpacing = 0.085 0.09 1\nDimSize = 1624 1324 62\nElementType = MET_DOUBLE\n"
HEADER = parse_header(GOOD)


def test_the_fastest_axis_comes_first_in_the_file_and_last_in_the_shape() -> None:
    assert (HEADER.shape, HEADER.spacing, HEADER.dtype) == ((62, 1324, 1624), (1.0, 0.09, 0.085), "<f8")
    assert HEADER.bytes == 62 * 1324 * 1624 * 8
    assert HEADER.size == (62, 1624, 1324)  # as displayed, turned by 90°
    assert HEADER.displayed_spacing == (1.0, 0.085, 0.09)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD + "CompressedData = True\nNDims = 2\n",  # of the phantom that it was made from
        GOOD + "BinaryDataByteOrderMSB = False\nno value\n= no key\n",
        GOOD.replace("= ", "=").replace(" ", "   "),
    ],
)
def test_other_ways_to_write_the_same_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mhd").write_bytes(text.encode())
    assert read_header(tmp_path / "a.mhd") == HEADER


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("DimSize = 1624 1324 62", "", "DimSize"),
        ("1624 1324 62", "1624 1324", "DimSize"),
        ("1624 1324 62", "1624 1324 0", "DimSize"),
        ("1624 1324 62", "1624 1324 -62", "DimSize"),
        ("1624 1324 62", "1624 1324 6.5", "DimSize"),
        ("1624 1324 62", "1624 1324 ६२", "DimSize"),
        ("0.085", "nan", "ElementSpacing"),
        ("0.085", "-0.085", "ElementSpacing"),
        ("0.085", "0", "ElementSpacing"),
        ("0.085", "1e999", "ElementSpacing"),
        ("0.085", "85000", "ElementSpacing"),
        ("MET_DOUBLE", "MET_SHORT", "ElementType"),
        ("MET_DOUBLE", "MET_DOUBLE\nBinaryDataByteOrderMSB = perhaps", "BinaryDataByteOrderMSB"),
    ],
)
def test_a_header_without_a_layout_is_refused(old: str, new: str, detail: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_header(GOOD.replace(old, new))
    assert (caught.value.reason, caught.value.detail) == (BAD_HEADER, detail)


def test_a_size_that_no_volume_has_is_refused() -> None:
    with pytest.raises(UnreadableError, match="absurd size: 99999 × 99999 × 99999"):
        parse_header(GOOD.replace("1624 1324 62", "99999 99999 99999"))


@given(
    sizes=st.tuples(*[st.integers(1, 1000)] * 3),
    spacing=st.tuples(*[st.floats(1e-6, 100, allow_nan=False)] * 3),
    kind=st.sampled_from(sorted(ELEMENT_TYPES)),
    big=st.booleans(),
)
@settings(max_examples=50)
def test_what_was_written_is_read(
    sizes: tuple[int, ...], spacing: tuple[float, ...], kind: str, big: bool
) -> None:
    text = f"ElementType = {kind}\nDimSize = {' '.join(map(str, sizes))}\nBinaryDataByteOrderMSB = {big}\n"
    header = parse_header(text + f"ElementSpacing = {' '.join(map(repr, spacing))}\n")
    assert (header.shape[::-1], header.spacing[::-1]) == (sizes, spacing)
    assert header.dtype == ">"[not big :] + "<"[big:] + ELEMENT_TYPES[kind]


Result = TypeVar("Result")


def reason_of(parse: Callable[[], Result]) -> tuple[str, Result | None]:
    try:
        return "", parse()
    except UnreadableError as error:
        return error.reason, None


KEYS = st.sampled_from(["DimSize", "ElementSpacing", "ElementType", "BinaryDataByteOrderMSB", "Offset"])
VALUES = st.one_of(st.text(max_size=20), st.just("1 2 3"), st.just("MET_DOUBLE"), st.just("0.1 0.1 1"))


@given(
    st.lists(st.tuples(KEYS, VALUES), max_size=8).map(lambda r: "\n".join(f"{k} = {v}" for k, v in r)),
    st.one_of(
        st.text(max_size=20), st.lists(st.integers(-9, 1700), max_size=4).map(lambda n: " ".join(map(str, n)))
    ),
)
@settings(max_examples=100)
@example("DimSize = 1 2 3\nElementSpacing = 1 1 1\nElementType = MET_FLOAT", "2 1 0")
def test_any_text_gives_a_layout_or_a_reason(text: str, place: str) -> None:
    reason, header = reason_of(lambda: parse_header(text))
    assert reason in ("", BAD_HEADER, "absurd size")
    assert header is None or min(*header.shape, *header.spacing) > 0
    reason, found = reason_of(lambda: parse_place(place, HEADER))
    assert reason in ("", BAD_PLACE, OUTSIDE)
    assert found is None or all(0 <= index < n for index, n in zip(found, HEADER.size, strict=True))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0 7 3", (3, 1623, 7)),  # row 0 is the lowest
        ("1623 7 3 2\n1 1 1 -2\n", (3, 0, 7)),  # further words and lines are not looked at
        (" 5  6\t7 \r\n", (7, 1618, 6)),
    ],
)
def test_rows_of_a_place_are_counted_from_the_bottom(
    tmp_path: Path, text: str, place: tuple[int, int, int]
) -> None:
    (tmp_path / "a.loc").write_text(text)
    assert read_place(tmp_path / "a.loc", HEADER) == place


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", BAD_PLACE),
        (b"\n1 2 3", BAD_PLACE),
        (b"1 2", BAD_PLACE),
        (b"1 2 three", BAD_PLACE),
        (b"1.5 2 3", BAD_PLACE),
        (b"1e3 2 3", BAD_PLACE),
        (b"\xff\xfe1 2 3", BAD_PLACE),
        (b"1 2 3" + b" " * MAX_BYTES, BAD_PLACE),
        (b"1624 2 3", OUTSIDE),
        (b"-1 2 3", OUTSIDE),
        (b"1 1324 3", OUTSIDE),
        (b"1 2 62", OUTSIDE),
    ],
)
def test_a_place_that_is_none_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "a.loc").write_bytes(raw)
    with pytest.raises(UnreadableError) as caught:
        read_place(tmp_path / "a.loc", HEADER)
    assert caught.value.reason == reason


def test_nothing_of_a_file_gets_into_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text("DimSize = SECRET\nElementType = SECRET\nSECRET\n")
    (tmp_path / "a.loc").write_text("SECRET SECRET SECRET\n")
    for read in (lambda: read_header(tmp_path / "a.mhd"), lambda: read_place(tmp_path / "a.loc", HEADER)):
        with pytest.raises(UnreadableError) as caught:
            read()
        assert "SECRET" not in str(caught.value)
