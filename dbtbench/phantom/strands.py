"""Thin structures of the breast: Cooper's ligaments, ducts and vessels."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from dbtbench.phantom.numbers import Array, gaussian, round_to_grid
from dbtbench.phantom.texture import Grid, power_law, resize, tubes, wander

LIGAMENT_MM = 0.6
"""Half of a ligament's thickness."""
CONVERGENCE_MM = 60.0
"""Distance in front of the nipple of the point from which ligaments run."""


def grow_ligaments(grid: Grid, coarse: Grid, nipple: tuple[float, float], rng: np.random.Generator) -> Array:
    """Grow Cooper's ligaments: two families of curved sheets across the planes, which slices show as strands.

    A family lies where a field in mm is a multiple of a distance. The field rises across the family and
    is bent by a smooth random one, so that sheets are almost parallel and seldom close; they come and go.

    Args:
        grid: the voxels.
        coarse: voxels of the same extent for what is smooth.
        nipple: its y and x.
        rng: of the sheets.

    Returns:
        The share of gland-like tissue in each voxel.
    """
    out = np.zeros(grid.shape)
    for largest, apart, side in ((45.0, 8.0, 1), (30.0, 5.5, -1)):
        bent = power_law(coarse.shape, coarse.spacing, 5.5, rng, (12.0, 0.8, 1.5), largest=largest)
        across, where = _bend_about_nipple(coarse, nipple, side * rng.uniform(0.3, 1.0))
        field = round_to_grid(0.85 * apart * _sample(bent, where) + 0.75 * across)
        steep = round_to_grid(np.sqrt(sum(g * g for g in np.gradient(field, *coarse.spacing))))
        # None where they would lie flat in a plane's view or crowd.
        power = power_law(coarse.shape, coarse.spacing, 3.5, rng, (8.0, 0.6, 2.5), largest=28.0)
        power = (0.08 + 0.18 * _sample(power, where)).clip(0, 0.8)
        power *= (3 * steep - 0.8).clip(0, 1) * (2.6 - 0.8 * steep).clip(0, 1)
        turns = resize(field, grid.shape) / apart
        off = np.abs(turns - np.rint(turns)) * apart / resize(steep, grid.shape).clip(0.05, None)
        sheets = (1.3 - off / LIGAMENT_MM).clip(0, 1) * resize(round_to_grid(power), grid.shape)
        np.maximum(out, sheets, out=out)
    return round_to_grid(out)


def _bend_about_nipple(grid: Grid, nipple: tuple[float, float], tilt: float) -> tuple[Array, Array]:
    """Bend a plane so that its columns are rays from a point in front of the nipple, and its rows cross them.

    Args:
        grid: of the plane.
        nipple: its y and x.
        tilt: mm along a row for 1 mm along a ray; 0 makes the rows arcs.

    Returns:
        Distance in mm across the lines that run along the rows (rows, columns), and fractional indices of the
        plane's rows and columns there (2, rows, columns).
    """
    _, y, x = grid.axes()
    centre_y, tip = nipple
    back, up = (tip + CONVERGENCE_MM - x)[None, :], (y - centre_y)[:, None]
    along = np.sqrt(back * back + up * up) - CONVERGENCE_MM
    across = np.arctan2(up, back) * (CONVERGENCE_MM + tip / 2) - tilt * (along - tip / 2)
    where = np.stack([across / grid.spacing[1] + grid.shape[1] / 2, along / grid.spacing[2]])
    return round_to_grid(across), round_to_grid(where, 2.0**-6)


def _sample(field: Array, where: Array) -> Array:
    """Sample each plane of a field (planes, rows, columns) at indices (2, rows, columns)."""
    return round_to_grid(np.stack([map_coordinates(p, where, order=1, mode="mirror") for p in field]))


def grow_ducts(grid: Grid, nipple: tuple[float, float], rng: np.random.Generator) -> Array:
    """Grow ducts that branch behind the nipple: the share of each voxel."""
    step = 0.6
    centre_y, tip = nipple
    starts = np.tile([0.0, centre_y, tip - 3], (9, 1)) + 1.2 * gaussian(rng, (9, 3))
    headings = gaussian(rng, (9, 3)) * (0.2, 0.6, 0) + (0, 0, -1.0)
    paths, radii = [], []
    for generation in range(4):
        points = wander(starts, headings, 14.0, step, 0.06, rng)
        paths.append(points)
        radii.append(np.full((len(points), 1), 1.0 * 0.75**generation))
        ends = points[:, -1] - points[:, -3]
        starts = np.repeat(points[:, -1], 2, axis=0)
        headings = np.repeat(ends / step / 2, 2, axis=0)
        headings = headings + 0.45 * gaussian(rng, (len(starts), 3)) * (0.4, 1, 1)
    return tubes(grid, np.concatenate(paths), np.concatenate(radii), step, rng)


def grow_vessels(
    grid: Grid, nipple: tuple[float, float], half: float, height: float, rng: np.random.Generator
) -> Array:
    """Grow vessels that run from the chest wall towards the nipple, almost in one plane: share of each voxel.

    Args:
        grid: the voxels.
        nipple: its y and x.
        half: of the thickness in mm.
        height: of the breast along y in mm.
        rng: of their courses.
    """
    step, count = 0.6, 6
    starts = rng.uniform((-0.75, -0.45, 0), (0.75, 0.35, 30), (count, 3)) * (half, height, 1)
    aim = (0, *nipple) - starts + gaussian(rng, (count, 3)) * (0, 34, 34)
    points = wander(starts, aim * (0.1, 1, 1), 95.0, step, 0.035, rng)
    points[..., 0] = starts[:, :1] + 0.1 * (points[..., 0] - starts[:, :1])
    taper = rng.uniform(1.2, 2.4, (count, 1)) * np.linspace(1, 0.4, points.shape[1])
    return tubes(grid, points, taper, step, rng, copies=24)
