"""Whole volumes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dbtbench.phantom.anatomy import Breast, Outline, attenuation, compose, draw_breasts
from dbtbench.phantom.lesions import Lesion
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.reconstruction import WINDOW
from dbtbench.phantom.simulation import PRESETS, box_of, simulate
from dbtbench.phantom.texture import Grid

TINY = PRESETS["tiny"]
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
Frames = NDArray[np.uint16]


@pytest.fixture(scope="module")
def cohort() -> list[dict[str, Breast]]:
    return [draw_breasts(stream(seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def volumes(cohort: list[dict[str, Breast]]) -> dict[str, list[Frames]]:
    """By view, a normal volume of each patient."""
    return {
        view: [simulate(TINY, breasts[view[0]], view, None, [0, i]) for i, breasts in enumerate(cohort)]
        for view in VIEWS
    }


def test_presets_cover_one_field() -> None:
    for name, shape, pixel in (
        ("tiny", (8, 64, 64), (3.75, 3.0)),
        ("small", (32, 160, 128), (1.5, 1.5)),
        ("standard", (32, 320, 256), (0.75, 0.75)),
    ):
        assert PRESETS[name].shape == shape
        assert PRESETS[name].pixel == pixel


def test_frames_have_ten_bits_and_the_preset_s_shape(volumes: dict[str, list[Frames]]) -> None:
    for frames in volumes["lcc"]:
        assert frames.shape == TINY.shape
        assert frames.dtype == np.uint16
        assert 400 < frames.max() < 1024


@pytest.mark.parametrize("view", VIEWS)
def test_air_fills_as_much_as_in_real_slices(volumes: dict[str, list[Frames]], view: str) -> None:
    """Two real MLO slices (BCS-DBT, DBT-P00013) have 65 %; CC views show less of the chest wall."""
    shares = [float((frames == 0).mean()) for frames in volumes[view]]
    low, high = (0.55, 0.70) if "mlo" in view else (0.57, 0.80)
    assert low < np.mean(shares) < high
    assert min(shares) > 0.5
    assert max(shares) < 0.88


@pytest.mark.parametrize("view", VIEWS)
def test_the_chest_wall_is_at_the_edge_of_the_laterality(volumes: dict[str, list[Frames]], view: str) -> None:
    """The official rule compares the outer columns of frame 0, so one must hold tissue and the other air."""
    for frames in volumes[view]:
        chest, far = (0, -1) if view[0] == "l" else (-1, 0)
        assert frames[0][:, chest].sum() > 0
        assert frames[0][:, far].sum() == 0


def test_tissue_lies_in_the_window_with_fat_at_its_lower_end(volumes: dict[str, list[Frames]]) -> None:
    low, width = WINDOW[0] - WINDOW[1] / 2, WINDOW[1]
    for frames in volumes["lmlo"]:
        tissue = (frames[frames > 100] - low) / width
        quarter, most = np.quantile(tissue, [0.25, 0.95])
        assert 0.10 < quarter < 0.24
        assert 0.25 < most < 0.65


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["mass", "spiculated"])
def test_a_lesion_brightens_its_box_more_than_anything_else(
    cohort: list[dict[str, Breast]], volumes: dict[str, list[Frames]], view: str, kind: str
) -> None:
    """With and without the lesion, tissue and noise are the same: what differs is the lesion."""
    index = next(i for i, breasts in enumerate(cohort) if breasts["l"].density in "ab")
    lesion = Lesion(kind, 55.0, 8.0, 6.0, (12.0, 12.0, 12.0), 1.05, 1)
    breast = cohort[index][view[0]]
    box = box_of(TINY, breast, view, lesion)
    change = simulate(TINY, breast, view, lesion, [0, index]).astype(float) - volumes[view][index]
    inside = change[box.slice, box.y : box.y + box.height, box.x : box.x + box.width]
    assert inside.mean() > 8
    assert inside.mean() > 10 * abs(change.mean())
    row, column = np.unravel_index(change[box.slice].argmax(), change[box.slice].shape)
    assert box.y <= row < box.y + box.height
    assert box.x <= column < box.x + box.width


def test_a_lesion_is_sharpest_near_its_own_slice(cohort: list[dict[str, Breast]]) -> None:
    """An arc of 15° shows depth by edges across the tube's path only: a mass is seen in most slices."""
    small = PRESETS["small"]
    breast = next(breasts["l"] for breasts in cohort if breasts["l"].density == "b")
    for upward in (-30.0, 30.0):
        lesion = Lesion("mass", 55.0, 8.0, upward, (5.0, 5.0, 5.0), 1.05, 1)
        box = box_of(small, breast, "lcc", lesion)
        without = simulate(small, breast, "lcc", None, [5]).astype(float)
        change = simulate(small, breast, "lcc", lesion, [5]) - without
        around = change[:, box.y - 3 : box.y + box.height + 3, box.x : box.x + box.width]
        sharpness = np.abs(np.diff(around, n=2, axis=1)).mean((1, 2))
        assert abs(int(sharpness.argmax()) - box.slice) <= 3
        assert sharpness[box.slice] > 1.3 * sharpness[small.shape[0] - 1 - box.slice]


def test_boxes_mirror_with_the_breast(cohort: list[dict[str, Breast]]) -> None:
    lesion = Lesion("mass", 40.0, 8.0, 6.0, (8.0, 8.0, 8.0), 1.0, 1)
    for breasts in cohort:
        for kind in ("cc", "mlo"):
            left, right = (box_of(TINY, breasts["l"], side + kind, lesion) for side in "lr")
            assert right == replace(left, x=TINY.shape[2] - left.x - left.width)


def test_projections_have_the_power_law_of_mammograms(cohort: list[dict[str, Breast]]) -> None:
    """Chen 2012 measured exponents of 3.17 and 3.30 in mammograms; one image scatters by 0.3."""
    exponents = []
    for index, breasts in enumerate(cohort[:6]):
        breast = breasts["l"]
        outline = Outline(breast, "cc")
        grid = Grid((24, 320, 176), (breast.thickness_cc / 24, 0.75, 0.75))
        tissue = compose(breast, "cc", outline, grid, stream(index))
        y, x = outline.nipple
        row, column = int((y + 120) / 0.75), int(0.35 * x / 0.75)
        shadow = attenuation(tissue, grid.spacing).sum(0)
        exponents.append(exponent(shadow[row - 32 : row + 32, column : column + 64], 0.75))
    assert 2.8 < np.mean(exponents) < 3.6


def exponent(image: NDArray[np.float32], pixel: float) -> float:
    """Slope of the radial power spectrum between 0.05 and 0.35 per mm."""
    window = np.outer(np.hanning(len(image)), np.hanning(len(image)))
    spectrum = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    f = np.fft.fftfreq(len(image), pixel)
    radius = np.hypot(f[:, None], f[None])
    rings = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(np.geomspace(0.05, 0.35, 9))]
    x = [np.log(radius[ring].mean()) for ring in rings]
    return float(-np.polyfit(x, [np.log(spectrum[ring].mean()) for ring in rings], 1)[0])


def test_one_seed_gives_one_volume(cohort: list[dict[str, Breast]], volumes: dict[str, list[Frames]]) -> None:
    breast = cohort[0]["r"]
    np.testing.assert_array_equal(simulate(TINY, breast, "rmlo", None, [0, 0]), volumes["rmlo"][0])
    assert (simulate(TINY, breast, "rmlo", None, [0, 1]) != volumes["rmlo"][0]).any()


def test_the_coarse_volume_is_the_fine_one_seen_from_afar(cohort: list[dict[str, Breast]]) -> None:
    """Presets draw other texture but the same breast: silhouettes agree."""
    breast = cohort[0]["l"]
    fine = simulate(PRESETS["small"], breast, "lmlo", None, [0])
    coarse = simulate(TINY, breast, "lmlo", None, [0])
    assert (fine == 0).mean() == pytest.approx((coarse == 0).mean(), abs=0.02)
