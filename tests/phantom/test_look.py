"""The phantom beside real slices, by the numbers of `benchmarks/phantom_look.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import phantom_look as look
import pytest
from scipy.ndimage import gaussian_filter

from dbtbench.phantom import anatomy
from dbtbench.phantom.acquisition import Geometry, project
from dbtbench.phantom.anatomy import Breast, Outline
from dbtbench.phantom.gland import Region
from dbtbench.phantom.numbers import Array
from dbtbench.phantom.reconstruction import reconstruct
from dbtbench.phantom.texture import Grid, power_law


def grow_soft(region: Region, grid: Grid, coarse: Grid, rng: np.random.Generator) -> Array:
    """Grow gland without lobules: a field with soft borders."""
    field = power_law(grid.shape, grid.spacing, 3.0, rng)
    least = np.quantile(field[region.surface > 2.5], 1 - region.share)
    return np.asarray(0.8 / (1 + np.exp((least - field) / 0.3)))


def test_slices_look_like_real_ones_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_outside(count: int) -> set[str]:
        rows = [look.measure_volume(v) for v in look.make_volumes(count).values()]
        means = {k: float(np.mean([row[k] for row in rows])) for k in look.RANGES}
        return {k for k, (low, high) in look.RANGES.items() if not low < means[k] < high}

    assert find_outside(4) == set()  # one of each density: the slope differs between them
    monkeypatch.setattr(anatomy, "grow_gland", grow_soft)
    assert find_outside(1) >= {"sd", "q95", "q99", "slope"}


def test_the_skin_leaves_no_rings() -> None:
    """Below the skin of a breast of fat slices are even, in the outermost too; not without equalising."""
    y, x = (np.arange(n) + 0.5 for n in (160, 96))
    off = np.hypot(y[:, None] - 80, x) * 1.5
    half = 22.5
    surface = half - np.hypot((half - (96 - off)).clip(0), ((np.arange(30) - 14.5) * 1.5)[:, None, None])
    tissue = anatomy.Tissue(np.zeros(surface.shape), surface, np.zeros(surface.shape))
    mu = anatomy.attenuation(tissue, (1.5, 1.5, 1.5))
    sums = project(mu, 45.0, (1.5, 1.5), Geometry())
    below = (off < 96 - 8) & (off > 96 - 30) & (x < 100)
    uneven = {}
    for equalised in (True, False):
        volume, _ = reconstruct(sums, (30, 160), 45.0, (1.5, 1.5), Geometry(), equalised=equalised)
        uneven[equalised] = max(float(np.ptp(gaussian_filter(volume[k], 1)[below])) for k in (2, 15, 27))
    difference = anatomy.ATTENUATION["gland"] - anatomy.ATTENUATION["fat"]
    assert uneven[True] < 0.1 * difference
    assert uneven[False] > 0.3 * difference


@pytest.mark.parametrize("projection", ["cc", "mlo"])
def test_outlines_differ(breasts: list[Breast], projection: str) -> None:
    """Scaled to the same depth and height, they are still different curves, and none is half an ellipse."""
    profiles = []
    for breast in breasts[:12]:
        outline = Outline(breast, projection)
        (centre, tip), y = outline.nipple, np.linspace(-0.7, 0.7, 15)
        x = np.arange(0.0, 140.0)
        inside = outline.distance(centre + y[:, None] * breast.half_width, x) > 0
        profiles.append(inside.sum(axis=1) / tip)
    spread = np.std(profiles, axis=0)
    assert spread.max() > 0.06
    if projection == "cc":
        ellipse = np.sqrt(1 - np.linspace(-0.7, 0.7, 15) ** 2)
        assert np.mean([np.abs(p - ellipse).max() > 0.05 for p in profiles]) > 0.7


def test_nipples_lie_in_and_out_of_profile(breasts: list[Breast], scattered: Breast) -> None:
    turns = np.array([b.turn_cc for b in breasts] + [b.turn_mlo for b in breasts])
    assert 0.2 < (np.abs(turns) > 0.5).mean() < 0.5

    def reach(turn: float) -> int:
        breast = replace(scattered, turn_cc=turn)
        outline = Outline(breast, "cc")
        grid = Grid((24, 80, 96), (breast.thickness_cc / 24, 3.0, 1.5))
        tissue = anatomy.compose(breast, "cc", outline, grid, np.random.Generator(np.random.PCG64(0)))
        return int((tissue.surface > 0).any(axis=(0, 1)).sum())

    assert reach(0.0) > reach(1.0)
