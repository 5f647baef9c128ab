"""The compressed breast: its outline, its tissues, and their attenuation of X-rays.

The compressed shape is made directly (no compression is simulated): the outline in the plane is a curve,
and the free edge between the two plates is round.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.spatial import cKDTree

from dbtbench.phantom.gland import Region, coarsen, grow_gland
from dbtbench.phantom.numbers import Array, gaussian, round_to_grid
from dbtbench.phantom.strands import grow_ducts, grow_ligaments, grow_vessels
from dbtbench.phantom.texture import Grid, power_law

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
VESSEL = 1.3
"""Gland-equivalent share of vessels: blood and wall, with some calcium."""


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
        lean: share by which the CC outline is wider on one side of the nipple than on the other.
        cut: how much of the CC outline's ellipse lies behind the chest wall.
        pointed: exponent of the CC outline's profile; 1 is an ellipse, more is a cone.
        bulge_above: share of the depth by which the skin line stands out above the nipple.
        bulge_below: the same below the nipple.
        upper: exponent of the MLO outline above the nipple; less is fuller.
        lower: exponent of the MLO outline below the nipple; more is fuller.
        turn_cc: angle in radians by which the nipple turns out of profile in CC.
        turn_mlo: the same in MLO.
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
    lean: float
    cut: float
    pointed: float
    bulge_above: float
    bulge_below: float
    upper: float
    lower: float
    turn_cc: float
    turn_mlo: float

    def thickness(self, projection: str) -> float:
        """Get the compressed thickness in `cc` or `mlo`."""
        return self.thickness_mlo if projection == "mlo" else self.thickness_cc


def draw_breasts(rng: np.random.Generator, density: str | None = None) -> dict[str, Breast]:
    """Draw a patient's breasts, of a density or as in screening: `l` and `r` are similar, not the same."""
    usual = str(rng.choice(list(DENSITIES), p=list(DENSITIES.values())))
    density = density or usual
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
        lean=rng.uniform(-0.16, 0.16),
        cut=rng.uniform(0, 0.3) * depth,
        pointed=rng.uniform(0.85, 1.2),
        bulge_above=rng.uniform(-0.06, 0.05),
        bulge_below=rng.uniform(-0.06, 0.05),
        upper=rng.uniform(0.8, 1.35),
        lower=rng.uniform(2.0, 3.2),
        turn_cc=_draw_turn(rng),
        turn_mlo=_draw_turn(rng),
    )
    return {"l": left, "r": _vary(left, rng)}


def _draw_turn(rng: np.random.Generator) -> float:
    """Draw the nipple's angle: mostly in profile, in a third of the views out of it."""
    small, side, large = rng.uniform(-0.3, 0.3), rng.choice([-1.0, 1.0]), rng.uniform(0.6, 1.2)
    return float(side * large if rng.random() < 1 / 3 else small)


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
            self._y, self._x = _trace_craniocaudal(breast)
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


def _trace_craniocaudal(breast: Breast) -> tuple[Array, Array]:
    """Trace the skin line of a CC view: an uneven, more or less pointed ellipse cut by the chest wall."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 2400)
    sine = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / breast.roundness)
    y = breast.nipple_cc + breast.half_width * sine * (1 + breast.lean * sine) / (1 + abs(breast.lean))
    x = (breast.depth + breast.cut) * np.cos(t).clip(0) ** breast.pointed - breast.cut
    for side, bulge in ((-0.8, breast.bulge_above), (0.8, breast.bulge_below)):
        x += breast.depth * bulge * np.exp(-(((t - side) / 0.3) ** 2) / 2)
    return round_to_grid(y), round_to_grid(x)


def _trace_oblique(breast: Breast) -> tuple[Array, Array]:
    """Trace the skin line of an MLO view: axilla, breast, inframammary fold and some of the abdomen."""
    top, nipple, fold = -FIELD_MM[0] / 2, breast.nipple_mlo, breast.fold_y
    y = np.linspace(top - 30, -top + 30, 3000)
    upper = ((y - top) / (nipple - top)).clip(0, 1)
    lower = ((y - nipple) / (fold - nipple)).clip(0, 1)
    x = breast.axilla + (breast.depth - breast.axilla) * np.sin(np.pi / 2 * upper**breast.upper) ** 2
    x = np.where(y > nipple, breast.fold_x + (breast.depth - breast.fold_x) * (1 - lower**breast.lower), x)
    above, below = 0.62 * nipple + 0.38 * top, (nipple + fold) / 2
    for middle, bulge in ((above, breast.bulge_above), (below, breast.bulge_below)):
        x += 0.7 * breast.depth * bulge * np.exp(-(((y - middle) / 16) ** 2) / 2)
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
    turn = breast.turn_mlo if projection == "mlo" else breast.turn_cc
    nipple = _measure_nipple(outline, grid, half, turn)
    apart = (1 - np.abs(surface - nipple) / 6).clip(0)
    surface = round_to_grid(np.maximum(surface, nipple) + 1.5 * apart**2)  # a smooth union
    coarse = coarsen(grid)
    gland = grow_gland(Region(outline.nipple, breast.depth, breast.gland, surface), grid, coarse, rng)
    gland = np.maximum(gland, grow_ligaments(grid, coarse, outline.nipple, rng) + 0.04)
    gland = np.maximum(gland, 0.9 * grow_ducts(grid, outline.nipple, rng))
    height_mm = FIELD_MM[0] if projection == "mlo" else 2 * breast.half_width
    gland = np.maximum(gland, VESSEL * grow_vessels(grid, outline.nipple, half, height_mm, rng))
    gland = np.maximum(gland, 1.3 * (nipple / 2).clip(0, 1))
    depth = outline.muscle(y[:, None], x[None])
    # The muscle is a wedge: the deeper behind its edge, the thicker.
    wedge = 0.22 * 2 * half * np.sqrt((depth / 40).clip(0, 1))
    muscle = ((wedge - np.abs(height + 0.06 * half)) / 3 + 0.5).clip(0, 1) * (depth > 0)
    if projection == "mlo":
        muscle *= _grow_fibres(depth, grid, rng)
    return Tissue(round_to_grid(gland), surface, round_to_grid(muscle))


def _measure_nipple(outline: Outline, grid: Grid, half: float, turn: float) -> Array:
    """Measure the distance to the nipple's surface: a rod with a round end, on the round free edge."""
    z, y, x = grid.axes()
    centre_y, tip = outline.nipple
    ahead, up = np.cos(turn), np.sin(turn)
    back = x - (tip - half)
    along = back[None] * ahead + z[:, None] * up
    beyond = (along - half + 0.5).clip(0) + (half - 8.0 - along).clip(0)
    squared = (back[None] * up - z[:, None] * ahead) ** 2 + beyond**2
    return round_to_grid(NIPPLE_RADIUS_MM - np.sqrt(squared[:, None] + ((y - centre_y) ** 2)[None, :, None]))


def _grow_fibres(depth: Array, grid: Grid, rng: np.random.Generator) -> Array:
    """Grow the muscle's fibres, with fat between: shares of muscle (rows, columns) along its edge."""
    shape, spacing = grid.shape, grid.spacing
    field = power_law((1, *shape[1:]), spacing, 2.5, rng, (1, 7, 1), largest=14.0)[0]
    rows = np.broadcast_to(np.arange(shape[1])[:, None], depth.shape)
    where = np.stack([rows, round_to_grid(depth / spacing[2], 2.0**-6)])
    return np.asarray((0.85 + 0.2 * map_coordinates(field, where, order=1, mode="grid-wrap")).clip(0.3, 1))


def attenuation(tissue: Tissue, spacing: tuple[float, float, float]) -> Array:
    """Compute attenuation (planes, rows, columns) in 1/mm; the surface is blurred over a voxel.

    On a grid of 2⁻¹⁸, a two-thousandth of the difference between fat and gland.
    """
    fat, gland = ATTENUATION["fat"], ATTENUATION["gland"]
    soft = fat + (gland - fat) * tissue.gland
    soft += tissue.muscle * (0.93 * ATTENUATION["muscle"] + 0.1 * (soft - fat) - soft)
    # Where the surface is oblique to the planes, a step between planes crosses more of it than a pixel does.
    blur = np.abs(np.gradient(tissue.surface, axis=0)).clip(min(spacing), None)
    skin = ((SKIN_MM - tissue.surface) / blur + 0.5).clip(0, 1)
    inside = (tissue.surface / blur + 0.5).clip(0, 1)
    return round_to_grid((soft + skin * (ATTENUATION["skin"] - soft)) * inside, 2.0**-18)
