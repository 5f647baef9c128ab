"""Fifteen projections of an attenuation map over a 15° arc, with quantum and electronic noise.

Every plane parallel to a flat stationary detector is mapped to it by a magnification and a shift, exactly.
So the projection of all planes to all views is one sparse matrix of linear interpolations along the tube's
path, and no ray tracer is needed (the public ones are GPL, or run on CUDA only).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MARGIN = 0.10
"""Rows that the detector has beyond the field at each end, as a share of the field's."""


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

    def foci(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the position y along the chest wall and the height z of the focus, for each view."""
        angles = np.deg2rad(np.linspace(-self.arc / 2, self.arc / 2, self.views))
        return np.asarray(self.source * np.sin(angles)), np.asarray(self.source * np.cos(angles))

    def heights(self, planes: int, thickness: float) -> NDArray[np.float64]:
        """Compute the heights over the detector of the centres of planes that divide a thickness."""
        return self.support + (np.arange(planes) + 0.5) * thickness / planes

    def obliquity(self, rows: int, columns: int, pixel: tuple[float, float], device: str) -> Tensor:
        """Compute the length of the rays in a layer of thickness 1, (views, rows, columns)."""
        y, x = centres(rows, pixel[0]), (np.arange(columns) + 0.5) * pixel[1]
        ys, zs = self.foci()
        along = (y[None] - ys[:, None])[:, :, None]
        length = np.sqrt(x**2 + along**2 + zs[:, None, None] ** 2) / zs[:, None, None]
        return torch.from_numpy(length.astype(np.float32)).to(device)


def centres(count: int, step: float) -> NDArray[np.float64]:
    """Compute the centres of `count` cells of width `step` about 0."""
    return np.asarray((np.arange(count) + 0.5 - count / 2) * step, np.float64)


def stack_interpolation(index: NDArray[np.float64], count: int, device: str) -> Tensor:
    """Make the sparse matrix that interpolates in several stacked arrays of rows and adds the results.

    Args:
        index: (outputs, stacks) fractional row in each stack; beyond its ends the end row is taken.
        count: rows of one stack.
        device: of the matrix.

    Returns:
        sparse (outputs, stacks × count).
    """
    outputs, stacks = index.shape
    index = index.clip(0, count - 1)
    low = np.minimum(index.astype(np.int64), count - 2)
    upper = index - low
    column = (low + np.arange(stacks) * count)[..., None] + np.array([0, 1])
    row = np.broadcast_to(np.arange(outputs)[:, None, None], column.shape)
    weight = np.stack([1 - upper, upper], -1).astype(np.float32)
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([row.reshape(-1), column.reshape(-1)])),
        torch.from_numpy(weight.reshape(-1)),
        (outputs, stacks * count),
        device=device,
        is_coalesced=True,
        check_invariants=False,
    )


def scale_columns(planes: Tensor, scales: NDArray[np.float64]) -> Tensor:
    """Stretch each plane (n, rows, columns) away from the chest wall: out[x] = plane[x · scale]."""
    columns = planes.shape[2]
    index = ((np.arange(columns) + 0.5)[None] * scales[:, None] - 0.5).clip(0, columns - 1)
    low = np.minimum(index.astype(np.int64), columns - 2)
    upper = torch.from_numpy((index - low).astype(np.float32)).to(planes.device)
    out = torch.empty_like(planes)
    for k, plane in enumerate(planes):
        start = torch.from_numpy(low[k]).to(planes.device)
        out[k] = torch.lerp(plane[:, start], plane[:, start + 1], upper[k])
    return out


def project(attenuation: Tensor, thickness: float, pixel: tuple[float, float], geometry: Geometry) -> Tensor:
    """Compute line integrals of an attenuation map, on a detector with the map's own pixels.

    Tissue that the field cuts off above and below (the axilla of an MLO view) goes on outside it as at its
    edge. The magnification away from the chest wall is that of the central view; the others differ by less
    than 0.1 mm.

    Args:
        attenuation: (planes, rows, columns) in 1/mm; plane 0 lies on the support.
        thickness: mm over all planes.
        pixel: mm along rows and columns.
        geometry: of tube and detector.

    Returns:
        (views, rows + 2 · margin, columns); the margin is `MARGIN` of the rows.
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
    matrix = stack_interpolation(index, rows, str(attenuation.device))
    sums: Tensor = torch.sparse.mm(matrix, stretched.reshape(planes * rows, columns))
    sums = sums.reshape(geometry.views, detector, columns) * (thickness / planes)
    return sums * geometry.obliquity(detector, columns, pixel, str(sums.device))


def margin(rows: int) -> int:
    """Count the rows that the detector has beyond a field of `rows` at each end."""
    return round(MARGIN * rows)


def expose(
    integrals: Tensor, pixel: tuple[float, float], geometry: Geometry, rng: np.random.Generator
) -> Tensor:
    """Measure line integrals: Poisson quanta and Gaussian electronic noise, and back by the logarithm.

    Args:
        integrals: any shape, without unit.
        pixel: mm along rows and columns.
        geometry: gives quanta and noise.
        rng: of the noise.

    Returns:
        Noisy line integrals of the same shape.
    """
    area = pixel[0] * pixel[1]
    unattenuated = geometry.quanta * area
    expected = unattenuated * np.exp(-integrals.double().cpu().numpy())
    counts = rng.poisson(expected).astype(np.float32)
    counts += rng.normal(0, geometry.electronic * np.sqrt(area), counts.shape).astype(np.float32)
    measured = np.log(unattenuated / np.maximum(counts, 1)).astype(np.float32)
    return torch.from_numpy(measured).to(integrals.device)
