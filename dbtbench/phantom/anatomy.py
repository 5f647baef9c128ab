"""The compressed breast: its outline, its tissues, and their attenuation of X-rays.

The compressed shape is made directly (no compression is simulated): the outline in the plane is a curve,
and the free edge between the two plates is round.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree
from torch import Tensor

from dbtbench.phantom.texture import Grid, Points, power_law, tubes, wander

FIELD_MM = (240.0, 192.0)
"""Rows and columns of the field in mm; BCS-DBT (DOI 10.7937/E4WT-CD02): 2457 × 1890 pixels of about 0.1."""

ATTENUATION = {"fat": 0.0383, "gland": 0.0561, "skin": 0.0597, "muscle": 0.0615}
"""1/mm, averaged over the spectrum: W anode, 0.7 mm Al, 31 kVp, weighted by energy in a-Se, behind 5 cm of
breast with 25 % gland; SpekPy 2.5 and xraydb 4.5 with the compositions of Hammerstein 1979 and Woodard
1986. At 20 keV the same calculation agrees within 2 % with the tables of VICTRE (Badano 2018)."""

DENSITIES = {"a": 0.1, "b": 0.4, "c": 0.4, "d": 0.1}
"""Frequency of each BI-RADS density in screening, in the round numbers of patient information."""
GLAND_SHARE = {"a": 0.05, "b": 0.15, "c": 0.34, "d": 0.60}
"""Volume share of fibroglandular tissue, 1 − targetFatFrac of VICTRE."""
THICKNESS_MM = {"a": 60.0, "b": 55.0, "c": 45.0, "d": 35.0}
"""Compressed thickness of VICTRE's four breasts."""
DEPTH_MM = {"a": 110.0, "b": 105.0, "c": 92.0, "d": 78.0}
"""Chest wall to nipple; VICTRE has 110, 108, 90 and 72."""

SKIN_MM = 1.6
"""Skin thickness: mean 1.45 mm by breast CT (Huang 2008), with the layer below that the pixel blurs in."""
NIPPLE_RADIUS_MM = 4.5
EXPONENT = 3.0
"""Of the power spectrum in 3-D: it gives the 3.06 (CC) and 3.10 (MLO) measured in DBT (Chen 2012)."""


@dataclass(frozen=True)
class Breast:
    """The properties of a breast that all its views share; lengths in mm.

    Attributes:
        density: a, b, c or d.
        gland: share of fibroglandular tissue in the interior.
        depth: chest wall to nipple.
        half_width: half of the extent along the chest wall in CC.
        thickness_cc: compressed, craniocaudal.
        thickness_mlo: compressed, oblique.
        roundness: exponent of the CC outline; 2 is an ellipse.
        nipple_cc: the nipple's y in CC.
        nipple_mlo: its y in MLO.
        axilla: x of the outline at the upper edge in MLO.
        fold_y: y of the inframammary fold in MLO.
        fold_x: x of the fold.
        muscle_width: x of the pectoral muscle's edge at the upper edge.
        muscle_height: length of the muscle from the upper edge downwards.
    """

    density: str
    gland: float
    depth: float
    half_width: float
    thickness_cc: float
    thickness_mlo: float
    roundness: float
    nipple_cc: float
    nipple_mlo: float
    axilla: float
    fold_y: float
    fold_x: float
    muscle_width: float
    muscle_height: float

    def thickness(self, projection: str) -> float:
        """Get the compressed thickness in `cc` or `mlo`."""
        return self.thickness_mlo if projection == "mlo" else self.thickness_cc


def draw_breasts(rng: np.random.Generator) -> dict[str, Breast]:
    """Draw a patient's breasts: `l` and `r` are similar, not the same."""
    density = str(rng.choice(list(DENSITIES), p=list(DENSITIES.values())))
    thickness = THICKNESS_MM[density] * rng.uniform(0.85, 1.15)
    depth = DEPTH_MM[density] * rng.uniform(0.88, 1.12)
    left = Breast(
        density=density,
        gland=GLAND_SHARE[density] * rng.uniform(0.8, 1.2),
        depth=depth,
        half_width=min(depth * rng.uniform(0.88, 1.05), 0.44 * FIELD_MM[0]),
        thickness_cc=thickness,
        thickness_mlo=thickness * rng.uniform(0.98, 1.12),
        roundness=rng.uniform(2.1, 2.6),
        nipple_cc=rng.uniform(-8, 8),
        nipple_mlo=rng.uniform(8, 28),
        axilla=rng.uniform(40, 62),
        fold_y=rng.uniform(92, 104),
        fold_x=rng.uniform(9, 22),
        muscle_width=rng.uniform(34, 52),
        muscle_height=rng.uniform(90, 150),
    )
    return {"l": left, "r": _vary(left, rng)}


def _vary(breast: Breast, rng: np.random.Generator) -> Breast:
    """Make the other breast: every measure differs by 3 %."""
    changed = {
        field.name: getattr(breast, field.name) * float(rng.normal(1, 0.03))
        for field in fields(breast)
        if field.name != "density"
    }
    return replace(breast, **changed)


class Outline:
    """Skin line, nipple and pectoral muscle of a compressed breast, seen along the beam.

    Attributes:
        nipple: y and x of the skin line's foremost point, in mm.
    """

    def __init__(self, breast: Breast, projection: str) -> None:
        self._breast = breast
        self._mlo = projection == "mlo"
        if self._mlo:
            self._y, self._x = _trace_oblique(breast)
        else:
            t = np.linspace(-np.pi / 2, np.pi / 2, 2400)
            sine = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / breast.roundness)
            self._y = breast.nipple_cc + breast.half_width * sine
            self._x = breast.depth * np.cos(t)
        foremost = int(np.argmax(self._x))
        self.nipple = (float(self._y[foremost]), float(self._x[foremost]))
        self._tree = cKDTree(np.stack([self._y, self._x], 1))

    def distance(self, y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the distance in mm of points (any shape) to the skin line, positive inside."""
        where = np.stack(np.broadcast_arrays(y, x), -1)
        distance = self._tree.query(where)[0]
        inside = where[..., 1] < np.interp(where[..., 0], self._y, self._x, left=-1, right=-1)
        return np.asarray(np.where(inside, distance, -distance), np.float32)

    def muscle(self, y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the distance in mm of points to the muscle's edge, positive inside; negative in CC."""
        y, x = np.broadcast_arrays(y, x)
        if not self._mlo:
            return np.full(y.shape, -np.inf, np.float32)
        width, height = self._breast.muscle_width, self._breast.muscle_height
        down = (y + FIELD_MM[0] / 2) / height
        # A straight edge that bulges forward by 5 mm at its middle.
        edge = width * (1 - down) + 20 * down * (1 - down).clip(0)
        steepness = np.hypot(width, height) / height
        return np.asarray((edge - x) / steepness, np.float32)


def _trace_oblique(breast: Breast) -> tuple[Points, Points]:
    """Trace the skin line of an MLO view: axilla, breast, inframammary fold and some of the abdomen."""
    top, nipple, fold = -FIELD_MM[0] / 2, breast.nipple_mlo, breast.fold_y
    y = np.linspace(top - 30, -top + 30, 3000)
    upper = ((y - top) / (nipple - top)).clip(0, 1)
    lower = ((y - nipple) / (fold - nipple)).clip(0, 1)
    x = breast.axilla + (breast.depth - breast.axilla) * np.sin(np.pi / 2 * upper) ** 2
    x = np.where(y > nipple, breast.fold_x + (breast.depth - breast.fold_x) * (1 - lower**2.6), x)
    x = np.maximum(x - 0.45 * (y - fold).clip(0), 4.0)
    return y, gaussian_filter1d(x, 3.0 / (y[1] - y[0]))


@dataclass(frozen=True)
class Tissue:
    """The tissue in the voxels of a grid, each (planes, rows, columns).

    Attributes:
        gland: fibroglandular share of the soft tissue; lesions may go beyond 1.
        surface: distance in mm to the skin's outside, positive inside the breast.
        muscle: share of pectoral muscle.
    """

    gland: Tensor
    surface: Tensor
    muscle: Tensor


def compose(
    breast: Breast, projection: str, outline: Outline, grid: Grid, rng: np.random.Generator, device: str
) -> Tissue:
    """Fill a compressed breast with tissue.

    Args:
        breast: the breast.
        projection: `cc` or `mlo`.
        outline: its outline in that view.
        grid: the voxels; planes span the compressed thickness.
        rng: of the texture.
        device: of the arrays.
    """
    z, y, x = grid.axes()
    half = breast.thickness(projection) / 2
    flat = torch.from_numpy(outline.distance(y[:, None], x[None])).to(device)
    height = torch.from_numpy(z).to(device)[:, None, None]
    # The free edge is half a circle between the plates, so this is the distance to the surface exactly.
    surface = half - torch.hypot((half - flat).clamp_min(0), height)
    nipple = _measure_nipple(outline, grid, device)
    apart = (1 - (surface - nipple).abs() / 6).clamp_min(0)
    surface = torch.maximum(surface, nipple) + 1.5 * apart**2  # a smooth union
    depth = torch.from_numpy(outline.muscle(y[:, None], x[None])).to(device)
    # The muscle is a wedge: the deeper behind its edge, the thicker.
    wedge = 0.26 * 2 * half * (depth / 40).clamp(0, 1).sqrt()
    muscle = ((wedge - (height + 0.06 * half).abs()) / 3 + 0.5).clamp(0, 1) * (depth > 0)
    gland = _grow_gland(breast, outline, grid, surface, rng, device)
    threads = _grow_threads(outline, grid, half, projection, rng).to(device)
    areola = 0.8 * (nipple / 2).clamp(0, 1)
    return Tissue(torch.maximum(torch.maximum(gland, threads), areola), surface, muscle)


def _measure_nipple(outline: Outline, grid: Grid, device: str) -> Tensor:
    """Measure the distance to the surface of the nipple: a rod that ends in a half sphere, in profile."""
    z, y, x = (torch.from_numpy(axis).to(device) for axis in grid.axes())
    centre_y, tip = outline.nipple
    along = ((x - tip + 0.5).clamp_min(0) + (tip - 8.0 - x).clamp_min(0))[None, None]
    squared = z[:, None, None] ** 2 + (y[None, :, None] - centre_y) ** 2 + along**2
    return NIPPLE_RADIUS_MM - squared.sqrt()


def _grow_gland(
    breast: Breast, outline: Outline, grid: Grid, surface: Tensor, rng: np.random.Generator, device: str
) -> Tensor:
    """Grow the gland's share: a disc behind the nipple, broken up by two power-law fields and septa."""
    z, y, x = (torch.from_numpy(axis).to(device) for axis in grid.axes())
    centre_y, tip = outline.nipple
    even = power_law(grid.shape, grid.spacing, EXPONENT, rng, device)
    radial = _bend_about_nipple(
        power_law(grid.shape, grid.spacing, EXPONENT, rng, device, (1, 1, 2.5)), outline, grid
    )
    # Cooper's ligaments: where a smooth field crosses zero lie curved sheets, which a slice shows as strands.
    coarse = power_law(grid.shape, grid.spacing, 4.5, rng, device, (0.8, 1, 1.8), largest=28.0)
    septa = _bend_about_nipple(coarse, outline, grid)

    along = (x - 0.58 * tip) / (0.44 * tip)
    across = (y - centre_y + 0.04 * breast.depth) / (0.62 * breast.depth)
    level = (z / grid.spacing[0] / (0.42 * grid.shape[0]))[:, None, None]
    envelope = -(along[None, None] ** 2) - across[None, :, None] ** 2 - 0.5 * level**4
    envelope = envelope - 2.0 * torch.exp(-surface.clamp_min(0) / 6)
    field = 1.3 * envelope + 0.55 * even + 0.55 * radial + 0.25 * septa
    interior = field[surface > 2.5]
    threshold = interior[:: max(1, len(interior) // 50_000)].quantile(1 - breast.gland)
    share = torch.sigmoid((field - threshold) / 0.28)
    share = share * (0.70 + 0.10 * radial + 0.07 * even).clamp(0.35, 1.0)
    sheets = (1 - septa.abs() / 0.14).clamp_min(0) * (0.38 + 0.22 * radial).clamp(0.05, 0.8)
    haze = (0.04 + 0.025 * even + 0.03 * radial).clamp_min(0)
    return torch.maximum(share, sheets + haze)


def _bend_about_nipple(field: Tensor, outline: Outline, grid: Grid) -> Tensor:
    """Bend a field so that its columns become rays from a point in front of the nipple, its rows angles."""
    _, y, x = grid.axes()
    centre_y, tip = outline.nipple
    back, up = (tip + 15 - x)[None, :], (y - centre_y)[:, None]
    angle = np.arctan2(up, back) / 1.9
    radius = np.hypot(up, back) / 100 - 1
    where = np.stack(np.broadcast_arrays(radius, angle), -1).astype(np.float32)
    sampled = torch.nn.functional.grid_sample(
        field[None],
        torch.from_numpy(where)[None].to(field.device),
        padding_mode="reflection",
        align_corners=False,
    )
    return sampled[0]


def _grow_threads(
    outline: Outline, grid: Grid, half: float, projection: str, rng: np.random.Generator
) -> Tensor:
    """Grow ducts that branch behind the nipple, and vessels that run through the fat below the skin."""
    step = 0.6
    centre_y, tip = outline.nipple
    filled = torch.zeros(grid.shape)
    starts = np.tile([0.0, centre_y, tip - 3], (9, 1)) + rng.normal(0, 1.2, (9, 3))
    headings = np.stack([rng.normal(0, 0.2, 9), rng.normal(0, 0.6, 9), np.full(9, -1.0)], 1)
    for generation in range(4):
        points = wander(starts, headings, 14.0, step, 0.06, rng)
        filled += tubes(grid, points, np.array(1.0 * 0.75**generation), step, rng)
        ends = points[:, -1] - points[:, -3]
        starts = np.repeat(points[:, -1], 2, axis=0)
        headings = np.repeat(ends / step / 2, 2, axis=0) + rng.normal(0, 0.45, (len(starts), 3)) * (0.4, 1, 1)
    count = 22
    starts = np.stack(
        [
            rng.choice([-0.7, 0.7], count) * half * rng.uniform(0.3, 1, count),
            rng.uniform(-0.45, 0.4, count) * FIELD_MM[0] * (1.0 if projection == "mlo" else 0.7),
            rng.uniform(0, 25, count),
        ],
        1,
    )
    aim = np.array([0.0, centre_y, tip]) - starts
    aim = aim * (0.15, 1, 1) + rng.normal(0, 25, aim.shape) * (0.1, 1, 1)
    points = wander(starts, aim, 85.0, step, 0.035, rng)
    taper = rng.uniform(0.6, 1.5, (count, 1)) * np.linspace(1, 0.45, points.shape[1])
    return (filled + tubes(grid, points, taper, step, rng)).clamp_max(1) * 0.9


def attenuation(tissue: Tissue, spacing: tuple[float, float, float]) -> Tensor:
    """Compute attenuation (planes, rows, columns) in 1/mm; the surface is blurred over half a pixel."""
    blur = min(spacing)
    fat, gland = ATTENUATION["fat"], ATTENUATION["gland"]
    soft = fat + (gland - fat) * tissue.gland
    soft = soft + tissue.muscle * (0.93 * ATTENUATION["muscle"] + 0.1 * (soft - fat) - soft)
    skin = ((SKIN_MM - tissue.surface) / blur + 0.5).clamp(0, 1)
    inside = (tissue.surface / blur + 0.5).clamp(0, 1)
    return (soft + skin * (ATTENUATION["skin"] - soft)) * inside
