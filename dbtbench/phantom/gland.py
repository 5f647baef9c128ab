"""Fat lobules, and the fibroglandular tissue between them.

Fat grows in lobules, the cells of a bent Voronoi diagram. Gland fills the space between them: walls of some
mm that leave holes of fat, and whole cells in its midst. So its borders are sharp and scalloped, and slices
show its walls as cords and swirls. VICTRE (Graff 2016) makes lobules from Voronoi cells too, and Pokrajac,
Maidment and Bakic (2012) compartments of fat with ligaments as walls. All lengths here were tuned by the
numbers of `benchmarks/phantom_look.py` and by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from dbtbench.phantom.numbers import Array, gaussian, round_to_grid
from dbtbench.phantom.texture import Grid, power_law, resize

LOBULE_MM = 11.0
"""Cube root of the mean volume of a fat lobule; VICTRE's are 20 to 30 mm long before compression."""
STRETCH = (1.6, 0.95, 1.05)
"""By how much lobules are longer along z, y and x, so that a slice shows walls, not their ends."""
COARSE_MM = 1.5
"""Voxels on which what is smooth is computed, at least."""
BORDER_MM = 1.0
"""Width over which gland turns into fat."""


@dataclass(frozen=True)
class Region:
    """The region in which gland grows.

    Attributes:
        nipple: its y and x.
        depth: of the breast.
        share: of gland in the interior.
        surface: distance to the skin (planes, rows, columns).
    """

    nipple: tuple[float, float]
    depth: float
    share: float
    surface: Array


def coarsen(grid: Grid) -> Grid:
    """Make a grid of the same extent whose voxels have sides of `COARSE_MM` or more."""
    sides = list(zip(grid.shape, grid.spacing, strict=True))
    planes, rows, columns = (max(4, round(n * s / max(COARSE_MM, s))) for n, s in sides)
    dz, dy, dx = (n * s / m for (n, s), m in zip(sides, (planes, rows, columns), strict=True))
    return Grid((planes, rows, columns), (dz, dy, dx))


def grow_gland(region: Region, grid: Grid, coarse: Grid, rng: np.random.Generator) -> Array:
    """Grow gland, and the haze of fat.

    Args:
        region: where it grows.
        grid: the voxels.
        coarse: voxels of the same extent for what is smooth.
        rng: of places, shapes and texture.

    Returns:
        The share of gland in each voxel.
    """
    surface = resize(region.surface, coarse.shape)
    within, brightness = _grow_lobules(
        region, coarse, surface, _rate_places(region, coarse, surface, rng), rng
    )
    even = power_law(coarse.shape, coarse.spacing, 3.0, rng, (2.5, 1, 1), largest=30.0)
    # Broad differences of brightness keep the spectrum of projections steep where texture makes it flat.
    broad = power_law(coarse.shape, coarse.spacing, 5.0, rng, (2.5, 1, 1), largest=40.0)
    # Fine texture is longer along z too, so it is drawn on half of the planes.
    half = Grid((-(-grid.shape[0] // 2), *grid.shape[1:]), (2 * grid.spacing[0], *grid.spacing[1:]))
    fine = resize(power_law(half.shape, half.spacing, 2.4, rng, (3, 1, 1), largest=9.0), grid.shape)
    # Cords: sheets where a smooth field is near 0, bent and closed like the borders of lobes.
    lobes = power_law(coarse.shape, coarse.spacing, 5.0, rng, (3.0, 1, 1), largest=8.0)
    cords = (1 - np.abs(resize(lobes, grid.shape)) / 0.3).clip(0, 1) - 0.17
    share = (0.5 + resize(within, grid.shape) / BORDER_MM).clip(0, 1)
    share *= (resize(brightness + 0.14 * broad + 0.02 * even, grid.shape) + 0.165 * fine + 0.3 * cords).clip(
        0.2, 1.2
    )
    veil = power_law(coarse.shape, coarse.spacing, 3.2, rng, (9.0, 1.2, 1.0), largest=25.0)
    haze = resize(0.115 + 0.135 * veil, grid.shape) + 0.02 * fine
    return round_to_grid(np.maximum(share, haze.clip(0, None)))


def _rate_places(region: Region, grid: Grid, surface: Array, rng: np.random.Generator) -> Array:
    """Rate how thick walls of gland are: in mm; most in a disc behind the nipple."""
    z, y, x = grid.axes()
    centre_y, tip = region.nipple
    along = (x - 0.60 * tip) / (0.42 * tip)
    across = (y - centre_y + 0.05 * region.depth) / (0.55 * region.depth)
    level = (z / (0.5 * grid.shape[0] * grid.spacing[0]))[:, None, None]
    disc = -(along * along)[None, None] - (across * across)[None, :, None] - 0.35 * level * level
    uneven = power_law(grid.shape, grid.spacing, 4.0, rng, (1.6, 1, 1.3), largest=45.0)
    below = (1 - surface / 9.0).clip(0, 1)
    return round_to_grid(5.5 * disc + 3.5 * uneven - 12 * below * below)


def _grow_lobules(
    region: Region, grid: Grid, surface: Array, level: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Grow lobules: depth of each voxel in gland in mm (negative in fat), and brightness there."""
    extent = np.array(grid.shape) * grid.spacing
    count = max(8, round(float(np.prod(extent)) / LOBULE_MM**3))
    seeds = (rng.random((count, 3)) - (0.5, 0.5, 0)) * extent
    where = surface > -1.0
    z, y, x = grid.axes()
    points = np.stack(np.broadcast_arrays(z[:, None, None], y[:, None], x), -1)[where]
    for axis, reach in enumerate((1.5, 3.0, 3.0)):
        bend = power_law(grid.shape, grid.spacing, 6.0, rng, (1.5, 1, 1), largest=30.0)
        points[:, axis] += reach * bend[where]
    distance, nearest = cKDTree(round_to_grid(seeds / STRETCH)).query(round_to_grid(points / STRETCH), k=3)
    second, third = round_to_grid((distance[:, 1:] - distance[:, :1]) / 2).T
    # From the middle of the wall; where three lobules meet the wall is thicker, so lobules are round.
    off = second - 0.3 * (2.5 - third).clip(0, None)
    own, other = nearest[:, 0], nearest[:, 1]
    # Each wall has a strength of its own, from the numbers of its two lobules.
    strength = ((own + 1) * (other + 1) * 7919 + (own + other) * 104729) % 1024 / 1024
    width = round_to_grid(np.exp(0.85 * gaussian(rng, count)))[own] * (0.5 + strength) / 1.3
    rated = round_to_grid(level[where] - off / width)
    inside = surface[where] > 2.5
    least = float(np.quantile(rated[inside], 1 - 0.95 * region.share, method="lower"))
    within, brightness = np.full(grid.shape, -4.0), np.full(grid.shape, 0.7)
    within[where] = ((rated - least) * width).clip(-4, 4)
    shade = 0.04 * gaussian(rng, count)[own]
    brightness[where] = 0.635 + shade + 0.4 * strength * (1 - off / 1.6).clip(0, 1)
    return round_to_grid(within), round_to_grid(brightness)
