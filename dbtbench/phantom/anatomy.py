"""The compressed breast: its outline, its tissues, and their attenuation of X-rays.

The compressed shape is made directly (no compression is simulated): the outline in the plane is a curve,
and the free edge between the two plates is round.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.spatial import cKDTree

from dbtbench.phantom.numbers import Array, gaussian, round_to_grid
from dbtbench.phantom.texture import Grid, power_law, tubes, wander

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
        field.name: getattr(breast, field.name) * float(1 + 0.03 * gaussian(rng))
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
            self._y = round_to_grid(breast.nipple_cc + breast.half_width * sine)
            self._x = round_to_grid(breast.depth * np.cos(t))
        foremost = int(np.argmax(self._x))
        self.nipple = (float(self._y[foremost]), float(self._x[foremost]))
        self._tree = cKDTree(np.stack([self._y, self._x], 1))

    def distance(self, y: Array, x: Array) -> Array:
        """Compute the distance in mm of points (any shape) to the skin line, positive inside."""
        y, x = np.broadcast_arrays(y, x)
        distance = round_to_grid(self._tree.query(np.stack([y, x], -1))[0])
        line = round_to_grid(np.interp(y, self._y, self._x, left=-1, right=-1))
        return np.where(x < line, distance, -distance)

    def muscle(self, y: Array, x: Array) -> Array:
        """Compute the distance in mm of points to the muscle's edge, positive inside; negative in CC."""
        y, x = np.broadcast_arrays(y, x)
        if not self._mlo:
            return np.full(y.shape, -np.inf)
        width, height = self._breast.muscle_width, self._breast.muscle_height
        down = (y + FIELD_MM[0] / 2) / height
        # A straight edge that bulges forward by 5 mm at its middle.
        edge = width * (1 - down) + 20 * down * (1 - down).clip(0)
        return round_to_grid((edge - x) / (np.hypot(width, height) / height))


def _trace_oblique(breast: Breast) -> tuple[Array, Array]:
    """Trace the skin line of an MLO view: axilla, breast, inframammary fold and some of the abdomen."""
    top, nipple, fold = -FIELD_MM[0] / 2, breast.nipple_mlo, breast.fold_y
    y = np.linspace(top - 30, -top + 30, 3000)
    upper = ((y - top) / (nipple - top)).clip(0, 1)
    lower = ((y - nipple) / (fold - nipple)).clip(0, 1)
    x = breast.axilla + (breast.depth - breast.axilla) * np.sin(np.pi / 2 * upper) ** 2
    x = np.where(y > nipple, breast.fold_x + (breast.depth - breast.fold_x) * (1 - lower**2.6), x)
    x = np.maximum(x - 0.45 * (y - fold).clip(0), 4.0)
    return round_to_grid(y), round_to_grid(gaussian_filter1d(x, 3.0 / (y[1] - y[0])))


@dataclass(frozen=True)
class Tissue:
    """The tissue in the voxels of a grid, each (planes, rows, columns), on the grid `STEP`.

    Attributes:
        gland: fibroglandular share of the soft tissue; lesions may go beyond 1.
        surface: distance in mm to the skin's outside, positive inside the breast.
        muscle: share of pectoral muscle.
    """

    gland: Array
    surface: Array
    muscle: Array


def compose(
    breast: Breast, projection: str, outline: Outline, grid: Grid, rng: np.random.Generator
) -> Tissue:
    """Fill a compressed breast with tissue.

    Args:
        breast: the breast.
        projection: `cc` or `mlo`.
        outline: its outline in that view.
        grid: the voxels; planes span the compressed thickness.
        rng: of the texture.
    """
    z, y, x = grid.axes()
    half = breast.thickness(projection) / 2
    flat = outline.distance(y[:, None], x[None])
    height = z[:, None, None]
    # The free edge is half a circle between the plates, so this is the distance to the surface exactly.
    surface = half - np.sqrt((half - flat).clip(0) ** 2 + height**2)
    nipple = _measure_nipple(outline, grid)
    apart = (1 - np.abs(surface - nipple) / 6).clip(0)
    surface = round_to_grid(np.maximum(surface, nipple) + 1.5 * apart**2)  # a smooth union
    depth = outline.muscle(y[:, None], x[None])
    # The muscle is a wedge: the deeper behind its edge, the thicker.
    wedge = 0.26 * 2 * half * np.sqrt((depth / 40).clip(0, 1))
    muscle = ((wedge - np.abs(height + 0.06 * half)) / 3 + 0.5).clip(0, 1) * (depth > 0)
    gland = _grow_gland(breast, outline, grid, surface, rng)
    threads = _grow_threads(outline, grid, half, projection, rng)
    areola = 0.8 * (nipple / 2).clip(0, 1)
    gland = np.maximum(np.maximum(gland, threads), areola)
    return Tissue(round_to_grid(gland), surface, round_to_grid(muscle))


def _measure_nipple(outline: Outline, grid: Grid) -> Array:
    """Measure the distance to the surface of the nipple: a rod that ends in a half sphere, in profile."""
    z, y, x = grid.axes()
    centre_y, tip = outline.nipple
    along = ((x - tip + 0.5).clip(0) + (tip - 8.0 - x).clip(0))[None, None]
    squared = z[:, None, None] ** 2 + (y[None, :, None] - centre_y) ** 2 + along**2
    return round_to_grid(NIPPLE_RADIUS_MM - np.sqrt(squared))


def _grow_gland(
    breast: Breast, outline: Outline, grid: Grid, surface: Array, rng: np.random.Generator
) -> Array:
    """Grow the gland's share: a disc behind the nipple, broken up by two power-law fields and septa."""
    z, y, x = grid.axes()
    centre_y, tip = outline.nipple
    even = power_law(grid.shape, grid.spacing, EXPONENT, rng)
    radial = _bend_about_nipple(
        power_law(grid.shape, grid.spacing, EXPONENT, rng, (1, 1, 2.5)), outline, grid
    )
    # Cooper's ligaments: where a smooth field crosses zero lie curved sheets, which a slice shows as strands.
    coarse = power_law(grid.shape, grid.spacing, 4.5, rng, (0.8, 1, 1.8), largest=28.0)
    septa = _bend_about_nipple(coarse, outline, grid)

    along = (x - 0.58 * tip) / (0.44 * tip)
    across = (y - centre_y + 0.04 * breast.depth) / (0.62 * breast.depth)
    level = (z / grid.spacing[0] / (0.42 * grid.shape[0]))[:, None, None]
    envelope = -(along[None, None] ** 2) - across[None, :, None] ** 2 - 0.5 * level**4
    envelope = envelope - 2.0 * np.exp(-surface.clip(0) / 6)
    field = round_to_grid(1.3 * envelope + 0.55 * even + 0.55 * radial + 0.25 * septa)
    threshold = np.quantile(field[surface > 2.5], 1 - breast.gland, method="lower")
    share = 1 / (1 + np.exp((threshold - field) / 0.28))
    share = share * (0.70 + 0.10 * radial + 0.07 * even).clip(0.35, 1.0)
    sheets = (1 - np.abs(septa) / 0.14).clip(0) * (0.38 + 0.22 * radial).clip(0.05, 0.8)
    haze = (0.04 + 0.025 * even + 0.03 * radial).clip(0)
    return np.asarray(np.maximum(share, sheets + haze))


def _bend_about_nipple(field: Array, outline: Outline, grid: Grid) -> Array:
    """Bend a field so that its columns become rays from a point in front of the nipple, its rows angles."""
    _, y, x = grid.axes()
    centre_y, tip = outline.nipple
    back, up = (tip + 15 - x)[None, :], (y - centre_y)[:, None]
    row = (np.arctan2(up, back) / 1.9 + 1) * grid.shape[1] / 2 - 0.5
    column = np.hypot(up, back) / 200 * grid.shape[2] - 0.5
    where = round_to_grid(np.stack([row, column]))
    return np.stack([map_coordinates(plane, where, order=1, mode="reflect") for plane in field])


def _grow_threads(
    outline: Outline, grid: Grid, half: float, projection: str, rng: np.random.Generator
) -> Array:
    """Grow ducts that branch behind the nipple, and vessels that run through the fat below the skin."""
    step = 0.6
    centre_y, tip = outline.nipple
    filled = np.zeros(grid.shape)
    starts = np.tile([0.0, centre_y, tip - 3], (9, 1)) + 1.2 * gaussian(rng, (9, 3))
    headings = np.stack([0.2 * gaussian(rng, 9), 0.6 * gaussian(rng, 9), np.full(9, -1.0)], 1)
    for generation in range(4):
        points = wander(starts, headings, 14.0, step, 0.06, rng)
        filled += tubes(grid, points, np.array(1.0 * 0.75**generation), step, rng)
        ends = points[:, -1] - points[:, -3]
        starts = np.repeat(points[:, -1], 2, axis=0)
        spread = gaussian(rng, (len(starts), 3)) * (0.18, 0.45, 0.45)
        headings = np.repeat(ends / step / 2, 2, axis=0) + spread
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
    aim = aim * (0.15, 1, 1) + gaussian(rng, aim.shape) * (2.5, 25, 25)
    points = wander(starts, aim, 85.0, step, 0.035, rng)
    taper = rng.uniform(0.6, 1.5, (count, 1)) * np.linspace(1, 0.45, points.shape[1])
    return np.minimum(filled + tubes(grid, points, taper, step, rng), 1) * 0.9


def attenuation(tissue: Tissue, spacing: tuple[float, float, float]) -> Array:
    """Compute attenuation (planes, rows, columns) in 1/mm; the surface is blurred over half a pixel.

    On a grid of 2⁻¹⁸, a two-thousandth of the difference between fat and gland.
    """
    blur = min(spacing)
    fat, gland = ATTENUATION["fat"], ATTENUATION["gland"]
    soft = fat + (gland - fat) * tissue.gland
    soft += tissue.muscle * (0.93 * ATTENUATION["muscle"] + 0.1 * (soft - fat) - soft)
    skin = ((SKIN_MM - tissue.surface) / blur + 0.5).clip(0, 1)
    inside = (tissue.surface / blur + 0.5).clip(0, 1)
    return round_to_grid((soft + skin * (ATTENUATION["skin"] - soft)) * inside, 2.0**-18)
