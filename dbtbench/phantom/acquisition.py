"""Fifteen projections of an attenuation map over a 15° arc, with quantum and electronic noise.

Every plane parallel to a flat stationary detector is mapped to it by a magnification and a shift, exactly.
So the projection of all planes to all views is one sparse matrix of linear interpolations along the tube's
path, and no ray tracer is needed (the public ones are GPL, or run on CUDA only).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array

from dbtbench.phantom.numbers import Array, gaussian, round_to_grid
from dbtbench.phantom.texture import split_index

MARGIN = 0.10
"""Rows that the detector has beyond the field at each end, as a share of the field's."""
INTEGRAL_STEP = 2.0**-12
"""Grid of line integrals; their noise has a standard deviation of 0.003 and more."""
LARGEST_INTEGRAL = 8.0


@dataclass(frozen=True)
class Geometry:
    """A Hologic Selenia Dimensions; lengths in mm.

    The tube turns about a point on the detector. Distances and angles are Hologic's; quanta and electronic
    noise are those of the VICTRE trial (Badano 2018): 1.02e10 histories over the field in a projection, and
    5200 electrons at 50 eV a pair in a pixel of 85 µm, which are 13.7 quanta.

    Attributes:
        views: number of projections.
        arc: degrees from the first to the last.
        source: from the tube's focus to the detector.
        support: from the detector to the breast's lower surface.
        quanta: unattenuated per mm² in a projection.
        electronic: noise in quanta (rms) for a pixel of 1 mm².
    """

    views: int = 15
    arc: float = 15.0
    source: float = 700.0
    support: float = 25.0
    quanta: float = 3.0e5
    electronic: float = 13.7 / 0.085

    def foci(self) -> tuple[Array, Array]:
        """Compute the position y along the chest wall and the height z of the focus, for each view."""
        angles = np.deg2rad(np.linspace(-self.arc / 2, self.arc / 2, self.views))
        return round_to_grid(self.source * np.sin(angles)), round_to_grid(self.source * np.cos(angles))

    def heights(self, planes: int, thickness: float) -> Array:
        """Compute the heights over the detector of the centres of planes that divide a thickness."""
        return self.support + (np.arange(planes) + 0.5) * thickness / planes

    def obliquity(self, rows: int, columns: int, pixel: tuple[float, float]) -> Array:
        """Compute the length of the rays in a layer of thickness 1, (views, rows, columns)."""
        y, x = centres(rows, pixel[0]), (np.arange(columns) + 0.5) * pixel[1]
        ys, zs = self.foci()
        along = (y[None] - ys[:, None])[:, :, None]
        return np.sqrt(x**2 + along**2 + zs[:, None, None] ** 2) / zs[:, None, None]


def centres(count: int, step: float) -> Array:
    """Compute the centres of `count` cells of width `step` about 0."""
    return np.asarray((np.arange(count) + 0.5 - count / 2) * step, np.float64)


def stack_interpolation(index: Array, count: int) -> csr_array:
    """Make the sparse matrix that interpolates in several stacked arrays of rows and adds the results.

    Args:
        index: (outputs, stacks) fractional row in each stack; beyond its ends the end row is taken.
        count: rows of one stack.

    Returns:
        (outputs, stacks × count). Its entries lie on the grid `STEP`, so products with values on a grid are
        exact.
    """
    outputs, stacks = index.shape
    low, upper = split_index(index, count)
    column = (low + np.arange(stacks) * count)[..., None] + np.array([0, 1])
    weight = np.stack([1 - upper, upper], -1)
    ends = np.arange(outputs + 1) * 2 * stacks
    return csr_array((weight.reshape(-1), column.reshape(-1), ends), (outputs, stacks * count))


def scale_columns(planes: Array, scales: Array) -> Array:
    """Stretch each plane (n, rows, columns) away from the chest wall: out[x] = plane[x · scale]."""
    columns = planes.shape[2]
    low, upper = split_index((np.arange(columns) + 0.5)[None] * scales[:, None] - 0.5, columns)
    out = np.empty_like(planes)
    for k, plane in enumerate(planes):
        first = plane.take(low[k], 1)
        step = plane.take(low[k] + 1, 1)
        step -= first
        step *= upper[k]
        np.add(first, step, out=out[k])
    return out


def project(attenuation: Array, thickness: float, pixel: tuple[float, float], geometry: Geometry) -> Array:
    """Compute line integrals of an attenuation map, on a detector with the map's own pixels.

    Tissue that the field cuts off above and below (the axilla of an MLO view) goes on outside it as at its
    edge. The magnification away from the chest wall is that of the central view; the others differ by less
    than 0.1 mm.

    Args:
        attenuation: (planes, rows, columns) in 1/mm on a grid; plane 0 lies on the support.
        thickness: mm over all planes.
        pixel: mm along rows and columns.
        geometry: of tube and detector.

    Returns:
        (views, rows + 2 · margin, columns) on the grid `INTEGRAL_STEP`; the margin is `MARGIN` of the rows.
    """
    planes, rows, columns = attenuation.shape
    heights = geometry.heights(planes, thickness)
    magnification = geometry.source / (geometry.source - heights)
    stretched = scale_columns(attenuation, 1 / magnification)
    detector = rows + 2 * margin(rows)
    ys, zs = (focus[:, None, None] for focus in geometry.foci())
    y = centres(detector, pixel[0])[:, None]
    on_plane = ys + (y - ys) * (zs - heights) / zs
    index = (on_plane / pixel[0] + rows / 2 - 0.5).reshape(-1, planes)
    matrix = stack_interpolation(index, rows)
    sums = (matrix @ stretched.reshape(planes * rows, columns)).reshape(geometry.views, detector, columns)
    lengths = geometry.obliquity(detector, columns, pixel) * (thickness / planes)
    return round_to_grid(sums * lengths, INTEGRAL_STEP)


def margin(rows: int) -> int:
    """Count the rows that the detector has beyond a field of `rows` at each end."""
    return round(MARGIN * rows)


def expose(
    integrals: Array, pixel: tuple[float, float], geometry: Geometry, rng: np.random.Generator
) -> Array:
    """Measure line integrals: Poisson quanta and Gaussian electronic noise, and back by the logarithm.

    Each pixel has random bits of its own, and a count of quanta is the inverse distribution function of the
    Poisson law there, by the expansion of Cornish and Fisher (1938) up to 1/√λ: from 100 quanta on it is
    right to 0.01 quanta, and the electronic noise hides that it is no whole number.

    Args:
        integrals: any shape, without unit, on the grid `INTEGRAL_STEP`, below `LARGEST_INTEGRAL`.
        pixel: mm along rows and columns.
        geometry: gives quanta and noise.
        rng: of the noise.

    Returns:
        Noisy line integrals of the same shape, on the same grid.
    """
    area = pixel[0] * pixel[1]
    unattenuated = geometry.quanta * area
    transmission = _transmissions()[(integrals.clip(0, LARGEST_INTEGRAL) / INTEGRAL_STEP).astype(np.int64)]
    mean = transmission
    mean *= unattenuated
    root = np.sqrt(mean)
    z = gaussian(rng, integrals.shape)
    square = z * z
    counts = mean + root * z + (square - 1) / 6 + z * (1 - square) / (72 * root)
    counts += geometry.electronic * np.sqrt(area) * gaussian(rng, integrals.shape)
    return round_to_grid(np.log(unattenuated / np.maximum(counts, 1)), INTEGRAL_STEP)


@cache
def _transmissions() -> Array:
    """Tabulate exp(−x) on the grid of line integrals."""
    x = np.arange(0, LARGEST_INTEGRAL + INTEGRAL_STEP, INTEGRAL_STEP)
    return round_to_grid(np.exp(-x), 2.0**-24)
