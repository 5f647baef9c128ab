"""Contrast must follow its formulas, volume by volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.geometry.views import Volume
from dbtbench.metrics.contrast import (
    lesion_cnr,
    lesion_profiles,
    michelson_contrast,
    percentile_range,
    profile_distance,
    rms_contrast,
)

GRID = (8, 40, 40)
EVERYWHERE = np.ones((1, 1, *GRID), bool)
BOX = np.array([[1, 14, 12, 7, 26, 24]], np.float32)


def noise(sd: float = 0.02, mean: float = 0.4, seed: int = 0) -> Volume:
    drawn = np.random.default_rng(seed).standard_normal((1, 1, *GRID), dtype=np.float32)
    return np.float32(mean) + np.float32(sd) * drawn


def with_lesion(volume: Volume, box: np.ndarray, contrast: float) -> Volume:
    axes = np.mgrid[: GRID[0], : GRID[1], : GRID[2]] + 0.5
    centre, half = (box[3:] + box[:3]) / 2, (box[3:] - box[:3]) / 2
    r2 = sum(((a - c) / w) ** 2 for a, c, w in zip(axes, centre, half, strict=True))
    lesion = np.where(r2 <= 1, contrast, 0).astype(np.float32)
    return volume + lesion


@given(st.floats(0.0, 0.5))
def test_rms_contrast_is_the_standard_deviation(amplitude: float) -> None:
    stripes = np.where(np.arange(40) % 2, 0.5 + amplitude, 0.5 - amplitude).astype(np.float32)
    volume = np.broadcast_to(stripes, (1, 1, *GRID))
    assert rms_contrast(volume) == pytest.approx([amplitude], abs=1e-6)


def test_the_percentile_range_leaves_out_one_percent_on_either_side() -> None:
    ramp = np.linspace(0, 1, 10_001, dtype=np.float32).reshape(1, 1, 1, 1, -1)
    assert percentile_range(ramp) == pytest.approx([0.98], abs=1e-4)


def test_michelson_contrast_of_two_levels_inside_the_mask() -> None:
    volume = np.zeros((1, 1, *GRID), np.float32)
    volume[..., 10:20], volume[..., 20:30] = 0.2, 0.6
    assert michelson_contrast(volume, volume > 0) == pytest.approx([0.5], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(0.005, 0.05), st.integers(0, 100))
def test_the_cnr_of_an_inserted_lesion_is_its_contrast_over_the_noise(
    contrast: float, sd: float, seed: int
) -> None:
    volume = with_lesion(noise(sd, seed=seed), BOX[0], contrast)
    assert lesion_cnr(volume, EVERYWHERE, [BOX]) == pytest.approx([contrast / sd], rel=0.06, abs=0.2)


def test_air_and_other_lesions_are_no_background() -> None:
    plain = with_lesion(noise(), BOX[0], 0.2)
    expected = lesion_cnr(plain, EVERYWHERE, [BOX])[0]
    other = np.array([2, 27, 12, 6, 33, 18], np.float32)
    crowded = with_lesion(plain, other, 5.0)
    crowded[..., 26:] = 0
    inside = np.broadcast_to(np.arange(40) < 26, crowded.shape)
    assert lesion_cnr(crowded, inside, [np.vstack([BOX, other])])[0] == pytest.approx(expected, rel=0.1)


def test_slices_above_and_below_are_no_background() -> None:
    plain = with_lesion(noise(), BOX[0], 0.2)
    smeared = plain.copy()
    smeared[:, :, [0, 7]] += 0.3
    assert np.array_equal(lesion_cnr(smeared, EVERYWHERE, [BOX]), lesion_cnr(plain, EVERYWHERE, [BOX]))


SHORT = np.array([[3, 14, 12, 5, 26, 24]], np.float32)


def cylinder(slices: slice, share: float = 1.0) -> Volume:
    """Contrast 0.2 in these slices, within a share of the box's half-axes."""
    rows, columns = np.mgrid[: GRID[1], : GRID[2]] + 0.5
    volume = noise(0.001)
    volume[0, 0, slices] += np.where(np.hypot(rows - 20, columns - 18) <= 6 * share, 0.2, 0).astype(
        np.float32
    )
    return volume


def test_a_lesion_s_depth_is_measured_and_not_its_box_s() -> None:
    deep, _ = lesion_profiles(cylinder(slice(None)), EVERYWHERE, [SHORT])
    brick, _ = lesion_profiles(cylinder(slice(3, 5)), EVERYWHERE, [SHORT])
    assert deep[0] == pytest.approx([0.2, 0.2, 0.2, 0.2, np.nan], abs=0.002, nan_ok=True)
    assert brick[0] == pytest.approx([0.2, 0, 0, 0, np.nan], abs=0.002, nan_ok=True)
    assert profile_distance(brick, deep) == pytest.approx(0.15, abs=0.002)
    assert profile_distance(deep, deep) == 0


def test_a_lesion_s_radius_is_measured_and_not_its_box_s() -> None:
    _, full = lesion_profiles(cylinder(slice(3, 5)), EVERYWHERE, [SHORT])
    _, half = lesion_profiles(cylinder(slice(3, 5), 0.5), EVERYWHERE, [SHORT])
    assert full[0] == pytest.approx([0.2, 0.2, 0, 0], abs=0.002)
    assert half[0] == pytest.approx([0.2, 0, 0, 0], abs=0.002)
    assert profile_distance(half, full) == pytest.approx(0.05, abs=0.002)


def test_profiles_leave_out_air_and_other_lesions() -> None:
    volume = cylinder(slice(None))
    other = np.array([3, 14, 26, 5, 26, 38], np.float32)
    volume[..., 26:] += 5
    inside = EVERYWHERE.copy()
    inside[..., 32:] = False
    expected = lesion_profiles(cylinder(slice(None)), EVERYWHERE, [SHORT])
    found = lesion_profiles(volume, inside & (np.arange(40) < 26), [SHORT])
    for one, two in zip(expected, found, strict=True):
        assert one == pytest.approx(two, abs=0.002, nan_ok=True)
    crowded = cylinder(slice(None))
    rows, columns = np.mgrid[: GRID[1], : GRID[2]] + 0.5
    crowded[0, 0, :, np.hypot(rows - 20, columns - 32) <= 6] += 5
    both = lesion_profiles(crowded, EVERYWHERE, [np.concatenate([SHORT, other[None]])])
    assert both[0][0] == pytest.approx(expected[0][0], abs=0.002, nan_ok=True)


def test_there_is_no_distance_without_lesions() -> None:
    depth, radius = lesion_profiles(noise(), EVERYWHERE, [np.empty((0, 6), np.float32)])
    assert (depth.shape, radius.shape) == ((0, 5), (0, 4))
    assert np.isnan(profile_distance(depth, depth))


def test_cnrs_come_volume_by_volume_and_box_by_box() -> None:
    volumes = np.concatenate([with_lesion(noise(), BOX[0], c) for c in (0.1, 0.3)])
    mask = np.ones(volumes.shape, bool)
    low, high = lesion_cnr(volumes, mask, [BOX, BOX])
    assert 0 < low < high
    assert lesion_cnr(volumes, mask, [np.empty((0, 6), np.float32), BOX]) == pytest.approx([high])
    assert lesion_cnr(volumes, mask, [np.empty((0, 6), np.float32)] * 2).shape == (0,)


@pytest.mark.parametrize(
    ("volume", "mask", "box"),
    [
        (noise(), ~EVERYWHERE, BOX),
        (np.full((1, 1, *GRID), 0.5, np.float32), EVERYWHERE, BOX),
        (noise(), EVERYWHERE, np.array([[3, 3, 3, 3, 3, 3]], np.float32)),
    ],
    ids=["no background", "flat background", "empty box"],
)
def test_the_cnr_of_what_cannot_be_measured_is_nan(volume: Volume, mask: np.ndarray, box: np.ndarray) -> None:
    assert np.isnan(lesion_cnr(volume, mask, [box])).all()


def test_each_volume_is_measured_on_its_own() -> None:
    volumes = np.concatenate([noise(sd, seed=i) for i, sd in enumerate((0.01, 0.02, 0.04))])
    mask = volumes > 0.39
    for measure in (rms_contrast, percentile_range, michelson_contrast):
        together = measure(volumes, mask)
        assert np.array_equal(together[::-1], measure(volumes[::-1], mask[::-1]))
        assert (np.diff(together) > 0).all()


def test_an_empty_mask_gives_nan() -> None:
    for measure in (rms_contrast, percentile_range, michelson_contrast):
        assert np.isnan(measure(noise(), ~EVERYWHERE)).all()
