"""The simulation of one view: a reconstructed volume, and the box of its lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import laterality, projection
from dbtbench.phantom.acquisition import Geometry, expose, project
from dbtbench.phantom.anatomy import FIELD_MM, Breast, Outline, attenuation, compose
from dbtbench.phantom.lesions import Lesion, insert, locate
from dbtbench.phantom.numbers import Array, round_to_grid, stream
from dbtbench.phantom.reconstruction import present, reconstruct
from dbtbench.phantom.texture import Grid


@dataclass(frozen=True)
class Preset:
    """The resolution at which the field is simulated and stored.

    Attributes:
        shape: slices, rows and columns that are stored.
        fine: factor by which the simulation is finer along each of them; its voxels are averaged.
        planes: planes of the anatomy.
        conspicuity: factor by which its lesions are denser than physical ones.
    """

    shape: tuple[int, int, int]
    fine: tuple[int, int, int]
    planes: int
    conspicuity: float = 1.0

    @property
    def pixel(self) -> tuple[float, float]:
        """Stored pixel in mm: between rows, between columns."""
        return FIELD_MM[0] / self.shape[1], FIELD_MM[1] / self.shape[2]


PRESETS = {
    # A pixel of 3.75 mm would alias skin and strands, so the physics of `tiny` runs on half of it.
    "tiny": Preset((8, 64, 64), (2, 2, 2), 24, conspicuity=2.25),
    "small": Preset((32, 160, 128), (1, 1, 1), 32, conspicuity=2.0),
    "standard": Preset((32, 320, 256), (1, 1, 1), 48),
}


@dataclass(frozen=True)
class Box:
    """A lesion's box as displayed, in pixels of the volume: central slice, upper-left corner, size."""

    slice: int
    x: int
    y: int
    width: int
    height: int


def simulate(
    preset: Preset,
    breast: Breast,
    view: str,
    lesion: Lesion | None,
    seed: Sequence[int],
    geometry: Geometry | None = None,
) -> NDArray[np.uint16]:
    """Simulate one view of a breast.

    Args:
        preset: grid and fineness.
        breast: the breast.
        view: lcc, lmlo, rcc or rmlo.
        lesion: a lesion in it; the tissue around it is the same with and without.
        seed: of texture and noise.
        geometry: of the scanner; by default a Hologic's.

    Returns:
        (slices, rows, columns) of 10 bits, as displayed: a left breast has its chest wall at the left edge.
    """
    levels = compute_levels(preset, breast, view, lesion, seed, geometry)
    frames = round_to_grid(levels, 1.0).astype(np.uint16)
    return frames if laterality(view) == "l" else frames[:, :, ::-1].copy()


def compute_levels(
    preset: Preset,
    breast: Breast,
    view: str,
    lesion: Lesion | None,
    seed: Sequence[int],
    geometry: Geometry | None = None,
) -> Array:
    """Compute the pixel values of `simulate` before they are whole numbers, with the chest wall at the left.

    They are the same to the last bit on every processor: whole numbers would hide small differences.
    """
    geometry = geometry or Geometry()
    kind = projection(view)
    thickness = breast.thickness(kind)
    outline = Outline(breast, kind)
    grid = _make_grid(preset, thickness, outline)
    tissue = compose(breast, kind, outline, grid, stream(*seed, "tissue"))
    if lesion:
        place = locate(lesion, breast, kind, outline)
        denser = replace(lesion, contrast=lesion.contrast * preset.conspicuity)
        tissue = replace(tissue, gland=insert(tissue.gland, denser, place, grid))
    pixel = (grid.spacing[1], grid.spacing[2])
    slices, rows, columns = (n * k for n, k in zip(preset.shape, preset.fine, strict=True))
    # The shadow of the grid is the larger, the nearer to the tube its top is. Beyond it there is air.
    shadow = grid.shape[2] * geometry.source / (geometry.source - geometry.support - thickness)
    lit = min(columns, ceil(round_to_grid(shadow)))
    map_ = np.pad(attenuation(tissue, grid.spacing), ((0, 0), (0, 0), (0, lit - grid.shape[2])))
    integrals = project(map_, thickness, pixel, geometry)
    measured = expose(integrals, pixel, geometry, stream(*seed, "noise"))
    volume, inside = reconstruct(measured, (slices, rows), thickness, pixel, geometry)
    levels = np.pad(present(volume, inside), ((0, 0), (0, 0), (0, columns - lit)))
    return _average_blocks(levels, preset.fine)


def box_of(preset: Preset, breast: Breast, view: str, lesion: Lesion) -> Box:
    """Compute the box of a lesion in a view: whole pixels inside the volume, at least 2 wide and high."""
    kind = projection(view)
    place = locate(lesion, breast, kind, Outline(breast, kind))
    z, *centre = place.centre
    slices, rows, columns = preset.shape
    edges = []
    for middle, reach, step, count in zip(
        (centre[0] + FIELD_MM[0] / 2, centre[1]), place.half[1:], preset.pixel, (rows, columns), strict=True
    ):
        size = min(max(2, int(round_to_grid(2 * reach / step, 1.0))), count)
        start = int(round_to_grid(middle / step - size / 2, 1.0))
        edges.append((min(max(start, 0), count - size), size))
    (y, height), (x, width) = edges
    central = int(round_to_grid((z / breast.thickness(kind) + 0.5) * slices))
    return Box(central, x if laterality(view) == "l" else columns - x - width, y, width, height)


def _make_grid(preset: Preset, thickness: float, outline: Outline) -> Grid:
    """Make the grid of the anatomy: as wide as breast and nipple, a multiple of 16 columns (for the FFT)."""
    rows, columns = (n * k for n, k in zip(preset.shape[1:], preset.fine[1:], strict=True))
    width = FIELD_MM[1] / columns
    used = min(columns, 16 * ceil(round_to_grid((outline.nipple[1] + 10) / width / 16)))
    return Grid((preset.planes, rows, used), (thickness / preset.planes, FIELD_MM[0] / rows, width))


def _average_blocks(values: Array, fine: tuple[int, int, int]) -> Array:
    """Average blocks of `fine` voxels."""
    shape = [n for count, k in zip(values.shape, fine, strict=True) for n in (count // k, k)]
    return np.asarray(values.reshape(shape).mean(axis=(1, 3, 5)))
