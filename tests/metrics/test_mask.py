"""The breast mask must hold breast and no air, on clean, noisy and blurred volumes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask, breast_mask, li_threshold

GRID = (8, 64, 64)
Z, Y, X = np.mgrid[: GRID[0], : GRID[1], : GRID[2]] + 0.5


def half_ellipsoid(scale: float = 1.0) -> Mask:
    """A breast at the left edge, its outer slices rounded."""
    inside: Mask = ((Z - 4) / 9) ** 2 + ((Y - 32) / (28 * scale)) ** 2 + (X / (45 * scale)) ** 2 < 1
    return inside


def breast(fat: float = 0.2, gland: float = 0.4, seed: int = 0) -> Volume:
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(GRID), (1, 3, 3))
    tissue = np.where(texture > np.quantile(texture, 0.8), gland, fat) + 0.02 * rng.standard_normal(GRID)
    return np.where(half_ellipsoid(), tissue, 0).astype(np.float32)[None, None]


DEGRADED = {
    "clean": lambda v, rng: v,
    "noise": lambda v, rng: v + 0.05 * rng.standard_normal(v.shape),
    "blur": lambda v, rng: ndimage.gaussian_filter(v, (0, 0, 0.7, 1.5, 1.5)),
    "grey air": lambda v, rng: 0.08 + 0.9 * v + 0.04 * rng.standard_normal(v.shape),
}


@pytest.mark.parametrize("kind", DEGRADED)
@pytest.mark.parametrize("seed", range(3))
def test_holds_most_of_the_breast_and_no_air(kind: str, seed: int) -> None:
    volume = DEGRADED[kind](breast(seed=seed), np.random.default_rng(seed))
    mask = breast_mask(np.clip(volume, 0, 1).astype(np.float32))[0, 0]
    in_every_slice = half_ellipsoid().all(axis=0)
    assert (mask[0] & in_every_slice).sum() > 0.95 * in_every_slice.sum()
    air = (mask & ~half_ellipsoid()).sum() / mask.sum()
    assert air < (0.02 if kind == "blur" else 0.001)


def test_a_bright_pectoral_muscle_does_not_push_fat_out() -> None:
    volume = np.where(half_ellipsoid(), np.where(X < 20, 0.8, 0.18), 0).astype(np.float32)[None, None]
    assert breast_mask(volume)[0, 0, 4, 32, 36]


def test_only_the_largest_piece_counts_and_its_holes_are_filled() -> None:
    volume = breast()
    volume[..., 30:34, 10:14] = 0
    volume[..., 2:6, 58:62] = 0.9
    mask = breast_mask(volume)[0, 0]
    assert mask[:, 30:34, 10:14].all()
    assert not mask[:, 2:6, 58:62].any()


def test_the_chest_wall_is_not_eroded() -> None:
    assert breast_mask(breast())[0, 0, :, 32, 0].all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_volume_without_structure_has_no_breast(value: float) -> None:
    assert not breast_mask(np.full((2, 1, 4, 16, 16), value, np.float32)).any()


def test_each_volume_has_its_own_mask(toy: DBTDataset) -> None:
    volumes = toy.volumes()
    order = np.random.default_rng(0).permutation(len(volumes))
    assert np.array_equal(breast_mask(volumes)[order], breast_mask(volumes[order]))
    assert breast_mask(volumes[:0]).shape == volumes[:0].shape


def test_the_threshold_of_two_levels_is_their_logarithmic_mean() -> None:
    image = np.repeat([0.1, 0.5], 50)
    assert li_threshold(image) == pytest.approx(0.4 / np.log(0.5 / 0.1), abs=0.005)
