"""Lesions: their kinds and sizes, their place in the breast, and their insertion into its tissue.

A lesion is placed once, in the uncompressed breast: its depth behind the nipple is the same in both views,
and the oblique view sees its two other coordinates rotated by 45°.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dbtbench.phantom.anatomy import Breast, Outline
from dbtbench.phantom.numbers import Array, gaussian, round_to_grid, stream
from dbtbench.phantom.texture import Grid, power_law, tubes, wander

SIZE_MM = {"mass": (17.7, 0.57), "distortion": (26.8, 0.42)}
"""Median and sigma of a log-normal of sqrt(width · height), fitted to the 147 and 77 training boxes of
BCS-DBT (DOI 10.7937/E4WT-CD02) at 0.1 mm per pixel."""
SIZE_RANGE_MM = (6.0, 80.0)
ELONGATION = 0.31
"""Sigma of log(width / height) in the same boxes."""
KINDS = {
    "benign": {"mass": 0.55, "spiculated": 0.07, "distortion": 0.38},
    "cancer": {"mass": 0.15, "spiculated": 0.56, "distortion": 0.29},
    "actionable": {"asymmetry": 1.0},
}
"""Frequencies of the kinds of lesions for each label. The shares of distortions are those of BCS-DBT: 52 of
137 benign boxes, 25 of 87 cancer boxes. A spiculated margin is a sign of cancer, a smooth one a sign against
it (BI-RADS)."""
DENSEST = 1.07
"""Gland-equivalent share of a lesion's own tissue: VICTRE's mass (gland at 1.06 g/cm³) by the calculation of
`ATTENUATION`: 0.0574 per mm."""
CONTRAST = {
    "mass": (0.35, 0.8),
    "spiculated": (0.65, 1.07),
    "distortion": (0.7, 1.07),
    "asymmetry": (0.2, 0.6),
}
"""Bounds of the gland-equivalent share that a lesion of each kind has where it grew in fat; the logarithm is
even between them. The upper end is a lesion without any fat, the lower one such that `lesion_difficulty.py`
in `benchmarks` finds lesions of every difficulty; with strands it is higher."""
MARGIN_MM = (0.8, 5.0)
"""Bounds of the width over which a margin fades, from circumscribed to indistinct; the logarithm is even."""
BODY = {"mass": (0.92, 0.05, 1.0), "spiculated": (0.6, 0.12, 1.7), "distortion": (0.3, 0.1, 0.5)}
"""Mean radius of the solid part and amplitude of its surface, as shares of the box's half extent, and its
density relative to the lesion's tissue. A mass fills its box, a distortion has little of a body. A spiculated
mass is denser than a physical one, so that it shows as such in fat: its body is small, and a slice averages
over depth. A conspicuity takes over from this factor, and does not come on top of it."""
STRANDS = {"spiculated": (0.3, 0.095, 1.5), "distortion": (0.1, 0.08, 1.0)}
"""Start and radius of the strands that leave the body, as shares of the box's half extent, and density."""
THINNEST_MM = 0.8
"""Least radius of a strand where it starts."""
BAND = 3.0
"""Height of a strand over its width: bands of fibrous tissue, which slices show on edge."""
DEEPEST = 0.70
"""Largest height of a centre, as a share of half the thickness."""


@dataclass(frozen=True)
class Lesion:
    """A lesion in one breast; lengths in mm.

    Attributes:
        kind: mass, spiculated, distortion or asymmetry.
        behind: from the nipple towards the chest wall.
        outward: from the nipple towards the arm.
        upward: from the nipple towards the head.
        half: half extents along these three directions; the box goes around them.
        contrast: gland-equivalent share where it grew in fat.
        seed: of its texture.
        margin: width over which its body fades.
    """

    kind: str
    behind: float
    outward: float
    upward: float
    half: tuple[float, float, float]
    contrast: float
    seed: int
    margin: float = 1.2

    @property
    def size(self) -> float:
        """Square root of width · height of its box as seen from above."""
        return 2 * float(np.sqrt(self.half[0] * self.half[1]))


@dataclass(frozen=True)
class Place:
    """A lesion in the coordinates of a view, in mm.

    Attributes:
        centre: z, y, x.
        half: half extents along them.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]


def draw_lesion(
    label: str, breast: Breast, rng: np.random.Generator, kind: str | None = None, size: float | None = None
) -> Lesion:
    """Draw a lesion that lies in the breast in both views.

    Args:
        label: benign, cancer or actionable.
        breast: the breast with the lesion.
        rng: of kind, size, place and texture.
        kind: of the lesion; drawn by the label when None.
        size: square root of its box's width · height in mm; drawn when None.
    """
    kinds = KINDS[label]
    drawn_kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    kind = kind or drawn_kind
    median, sigma = SIZE_MM["distortion" if kind == "distortion" else "mass"]
    drawn_size = median * np.exp(sigma * gaussian(rng))
    # Larger than half the breast's depth it would not fit; real boxes are cut off by the range.
    size = float(np.clip(size or drawn_size, SIZE_RANGE_MM[0], min(SIZE_RANGE_MM[1], 0.55 * breast.depth)))
    stretch = np.exp(ELONGATION / 2 * gaussian(rng))
    half = size / 2 * np.array([stretch, 1 / stretch, np.exp(0.15 * gaussian(rng)) / stretch])
    depth, out, up = map(float, round_to_grid(half))
    contrast, margin = (_draw_evenly(*bounds, rng) for bounds in (CONTRAST[kind], MARGIN_MM))
    seed = int(rng.integers(2**31))
    candidates = 400
    behind = rng.uniform(10, breast.depth - 8, candidates)
    across = rng.uniform(-0.8, 0.8, (candidates, 2)) * breast.half_width
    drawn = [
        Lesion(kind, float(b), float(u), float(v), (depth, out, up), contrast, seed, margin)
        for b, (u, v) in zip(behind, across, strict=True)
    ]
    room = np.minimum(_measure_room(drawn, breast, "cc"), _measure_room(drawn, breast, "mlo"))
    fits = np.flatnonzero(room > 2.0)
    return drawn[int(fits[0]) if len(fits) else int(np.argmax(room))]


def _draw_evenly(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a number between two bounds whose logarithm is even between theirs."""
    return float(round_to_grid(low * np.exp(rng.uniform() * np.log(high / low))))


def _measure_room(lesions: list[Lesion], breast: Breast, projection: str) -> Array:
    """Measure the free distance in mm from lesions to skin, chest wall and muscle; negative in an overlap."""
    outline = Outline(breast, projection)
    places = [locate(lesion, breast, projection, outline) for lesion in lesions]
    centre, half = (np.array([getattr(p, name) for p in places]) for name in ("centre", "half"))
    y, x = centre[:, 1], centre[:, 2]
    skin = outline.distance(y, x) - half[:, 1:].max(axis=1)
    chest = x - half[:, 2]
    muscle = -outline.muscle(y, x)
    too_high = np.where(
        np.abs(centre[:, 0]) < DEEPEST * breast.thickness(projection) / 2 * 0.999, np.inf, -99
    )
    return round_to_grid(np.min([skin, chest, muscle, too_high], axis=0))


def locate(lesion: Lesion, breast: Breast, projection: str, outline: Outline) -> Place:
    """Compute the place of a lesion in a view.

    The view from above shows `outward` in its plane and `upward` in its height; the oblique one sees both
    rotated by 45°. Compression squeezes heights by the ratio of thickness and width.
    """
    turn = np.sqrt(0.5)
    depth, out, up = lesion.half
    if projection == "mlo":
        aside, height = turn * (lesion.upward + lesion.outward), turn * (lesion.upward - lesion.outward)
        half_y = half_z = float(turn * np.hypot(out, up))
    else:
        aside, height, half_y, half_z = lesion.outward, lesion.upward, out, up
    thick = breast.thickness(projection) / 2
    z = float(np.clip(height * thick / breast.half_width, -DEEPEST * thick, DEEPEST * thick))
    nipple_y, nipple_x = outline.nipple
    z, y, x = map(float, round_to_grid([z, nipple_y - aside, nipple_x - lesion.behind]))
    half_z, half_y, half_x = map(float, round_to_grid([min(half_z, 0.8 * thick), half_y, depth]))
    return Place((z, y, x), (half_z, half_y, half_x))


def insert(gland: Array, lesion: Lesion, place: Place, grid: Grid) -> Array:
    """Put a lesion into the gland share of a breast; return a new array of the same shape."""
    low, shape = _find_block(place, grid)
    window = tuple(slice(int(a), int(a + n)) for a, n in zip(low, shape, strict=True))
    rng = stream(lesion.seed, "lesion")
    block = gland[window]
    z, y, x = (
        (axis[part] - centre) / half
        for axis, part, centre, half in zip(grid.axes(), window, place.centre, place.half, strict=True)
    )
    squared = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None] ** 2
    # The lesion's own tissue takes a share of each voxel, so that what it grew in shines through: it is plain
    # in fat, and hardly there in dense gland.
    filled, tissue = min(1.0, lesion.contrast / DENSEST), max(DENSEST, lesion.contrast)
    if lesion.kind == "asymmetry":
        part = np.exp(-2 * squared)
    else:
        # A random sphere: a smooth field moves the surface (de Sisternes 2015).
        radius, amplitude, solid = BODY[lesion.kind]
        solid = _limit_density(solid, tissue)
        wobble = power_law(shape, grid.spacing, 4.0, rng, largest=2 * max(place.half))
        edge = lesion.margin / float(np.mean(place.half))
        distance = np.sqrt(squared)
        part = solid * ((radius + amplitude * wobble - distance) / edge + 0.5).clip(0, 1)
        # A growing lesion pushes the tissue around it aside: fat remains in a rim (the halo of a mass).
        block = block * (1 - 0.3 * filled * solid * np.exp(-(((distance - radius - 0.1) / 0.12) ** 2)))
    if lesion.kind in STRANDS:
        density = _limit_density(STRANDS[lesion.kind][2], tissue)
        part = np.maximum(part, density * _grow_strands(lesion, place, grid, rng)[window])
    out = gland.copy()
    out[window] = round_to_grid(block + filled * part * np.maximum(tissue - block, 0))
    return out


def _limit_density(density: float, tissue: float) -> float:
    """Limit a density above 1 to the same multiple of `DENSEST`, whatever share of gland the tissue has."""
    return min(density, max(1.0, density * DENSEST / tissue))


def _find_block(place: Place, grid: Grid) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """Find first voxel and shape of the part of the grid around a lesion, at least 4 voxels each way."""
    reach = 1.35 * np.array(place.half) + 2 * np.array(grid.spacing)
    low = np.floor(round_to_grid(grid.indices(np.array(place.centre) - reach))).astype(np.int64).clip(0)
    low = np.minimum(low, np.array(grid.shape) - 4)
    high = np.ceil(round_to_grid(grid.indices(np.array(place.centre) + reach))).astype(np.int64) + 1
    high = np.minimum(np.maximum(high, low + 4), grid.shape)
    depth, height, width = (int(n) for n in high - low)
    return low, (depth, height, width)


def _grow_strands(lesion: Lesion, place: Place, grid: Grid, rng: np.random.Generator) -> Array:
    """Grow thin strands that run outwards from the centre to the extents and a little beyond, tapering."""
    step = 0.4
    count = int(rng.integers(22, 40))
    start, thickness, _ = STRANDS[lesion.kind]
    directions = gaussian(rng, (count, 3)) * (0.3, 1, 1)  # compression turns strands into the plane
    directions /= np.sqrt((directions * directions).sum(axis=1, keepdims=True))
    half = np.array(place.half)
    reach = float(half[1:].mean())
    points = wander(start * directions * reach, directions, (1.25 - start) * reach, step, 0.05, rng)
    points = points / reach * half + np.array(place.centre)
    lengths = rng.uniform(0.4, 1.0, (count, 1))
    along = np.linspace(0, 1, points.shape[1])
    thick = max(thickness * reach, THINNEST_MM)
    radii = np.where(along < lengths, thick * (1 - 0.55 * along / lengths), 0.0)
    return tubes(grid, points, radii, step, rng, BAND)
