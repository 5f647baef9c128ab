"""Filtered back-projection, and pixel values for a viewer."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter
from torch import Tensor

from dbtbench.phantom.acquisition import (
    Geometry,
    centres,
    scale_columns,
    stack_interpolation,
)
from dbtbench.phantom.anatomy import ATTENUATION

FLOOR = 0.55
"""Gain of the filter at frequency 0. With 1, attenuation is exact; less shows detail more, as vendors do."""
WINDOW = (520.0, 640.0)
"""Centre and width of the window in the files, in pixel values of 10 bits."""
FAT_VALUE = 299.0
"""Pixel value of fat (the darkest fifth of tissue): 15.5 % of the window, as measured in real slices."""
GAIN = 4.7e4
"""Pixel values for a difference of 1/mm; like the value of fat, tuned to the quantiles of two real slices."""
RIM_MM = 6.0
RIM_EXCESS = 200.0
"""At the skin line pixel values are limited to RIM_EXCESS above fat. The limit fades out over RIM_MM: the
ramp overshoots at the skin, and scanners tone it down. Tuned by looking at two real slices."""


def silhouette(central: Tensor, pixel: tuple[float, float]) -> np.ndarray:
    """Find pixels where the central projection shows at least 3 mm of fat, without holes; (rows, columns)."""
    image = central.cpu().numpy()
    smooth = gaussian_filter(image, (1.0 / pixel[0], 1.0 / pixel[1]))
    filled: np.ndarray = binary_fill_holes(smooth > 3 * ATTENUATION["fat"])
    return filled


def equalise(integrals: Tensor, mask: np.ndarray, pixel: tuple[float, float]) -> Tensor:
    """Raise the thin rim of the breast to the brightness of its middle, in all views alike.

    Args:
        integrals: (views, rows, columns).
        mask: the breast's silhouette in the central view.
        pixel: mm along rows and columns.
    """
    central = integrals[len(integrals) // 2].cpu().numpy()
    wide, narrow = ((s / pixel[0], s / pixel[1]) for s in (3.0, 1.5))
    weight = gaussian_filter(mask.astype(np.float32), wide)
    mean = gaussian_filter(np.where(mask, central, 0), wide) / np.maximum(weight, 0.05)
    level = np.percentile(mean[mask], 60) if mask.any() else 1.0
    gain = np.clip(level / np.maximum(mean, 1e-3), 1, 6) ** 0.9
    return integrals * torch.from_numpy(gaussian_filter(gain, narrow).astype(np.float32)).to(integrals.device)


def ramp(integrals: Tensor, thickness: float, step: float, geometry: Geometry, floor: float) -> Tensor:
    """Filter projections along the tube's path and divide by the thickness.

    Below 1 / (2 T tan(arc/2)) an arc carries no information about depth, so all depths get the average; above
    it the ramp restores amplitudes. The two are added as squares, and a Butterworth factor calms the noise.

    Args:
        integrals: (views, rows, columns), free of obliquity.
        thickness: T in mm.
        step: mm between rows.
        geometry: gives the arc.
        floor: gain at frequency 0.
    """
    rows = integrals.shape[1]
    pad = rows // 2
    padded = torch.cat(
        [integrals[:, :1].expand(-1, pad, -1), integrals, integrals[:, -1:].expand(-1, pad, -1)], 1
    )
    cut = 1 / (2 * thickness * np.tan(np.deg2rad(geometry.arc / 2)))
    f = torch.fft.rfftfreq(padded.shape[1], step, device=integrals.device)
    gain = (floor**2 + (f / cut) ** 2).sqrt() / (1 + (f / (0.8 * 0.5 / step)) ** 6).sqrt()
    spectrum = torch.fft.rfft(padded, dim=1) * gain[None, :, None]
    filtered: Tensor = torch.fft.irfft(spectrum, n=padded.shape[1], dim=1)
    return filtered[:, pad : pad + rows] / thickness


def back_project(
    filtered: Tensor, slices: int, rows: int, thickness: float, pixel: tuple[float, float], geometry: Geometry
) -> Tensor:
    """Average (views, detector rows, columns) as seen from each slice: (slices, rows, columns)."""
    views, detector, columns = filtered.shape
    heights = geometry.heights(slices, thickness)
    ys, zs = geometry.foci()
    y = centres(rows, pixel[0])[:, None]
    on_detector = ys + (y - ys) * zs / (zs - heights[:, None, None])
    index = (on_detector / pixel[0] + detector / 2 - 0.5).reshape(-1, views)
    matrix = stack_interpolation(index, detector, str(filtered.device))
    sums = torch.sparse.mm(matrix, filtered.reshape(views * detector, columns))
    stack = sums.reshape(slices, rows, columns) / views
    return scale_columns(stack, geometry.source / (geometry.source - heights))


def reconstruct(
    integrals: Tensor,
    shape: tuple[int, int],
    thickness: float,
    pixel: tuple[float, float],
    geometry: Geometry,
    floor: float = FLOOR,
    equalised: bool = True,
) -> tuple[Tensor, Tensor]:
    """Reconstruct slices parallel to the detector.

    Args:
        integrals: (views, rows + 2 · margin, columns), measured.
        shape: slices over the thickness, and rows.
        thickness: mm.
        pixel: mm along rows and columns.
        geometry: of the acquisition.
        floor: gain at frequency 0; 1 for attenuation without a bias.
        equalised: raise the rim.

    Returns:
        Attenuation-like values in 1/mm, and the share of breast in each pixel by the silhouette; both
        (slices, rows, columns).
    """
    views, detector, columns = integrals.shape
    slices, rows = shape
    mask = silhouette(integrals[views // 2], pixel)
    straight = integrals / geometry.obliquity(detector, columns, pixel, str(integrals.device))
    if equalised:
        straight = equalise(straight, mask, pixel)
    filtered = ramp(straight, thickness, pixel[0], geometry, floor)
    volume = back_project(filtered, slices, rows, thickness, pixel, geometry)
    soft = gaussian_filter(mask.astype(np.float32), (0.6 / pixel[0], 0.6 / pixel[1])) * 2 - 1
    shadow = torch.from_numpy(soft.clip(0, 1)).to(volume.device)[None]
    # One shadow, magnified as from above each slice: it is the view from the middle of the arc.
    middle = Geometry(views=1, arc=0.0, source=geometry.source, support=geometry.support)
    inside = back_project(shadow, slices, rows, thickness, pixel, middle)
    return volume, inside


def present(volume: Tensor, inside: Tensor, pixel: tuple[float, float]) -> np.ndarray:
    """Compute pixel values of 10 bits: 0 in air, fat at `FAT_VALUE`, a fixed gain, toned down at the skin.

    The gain is the same for all, so dense breasts stay brighter and busier.

    Args:
        volume: (slices, rows, columns) in 1/mm.
        inside: share of breast.
        pixel: mm along rows and columns.

    Returns:
        float32 (slices, rows, columns) in [0, 1023].
    """
    tissue = volume[inside > 0.99]
    fat = tissue[:: max(1, len(tissue) // 50_000)].quantile(0.2) if len(tissue) else volume.mean()
    # Slices lie so far apart that each pixel's nearest skin is in its own.
    from_skin = distance_transform_edt((inside > 0.5).cpu().numpy(), sampling=(1e6, *pixel))
    rim = torch.from_numpy((1 - from_skin / RIM_MM).clip(0).astype(np.float32)).to(volume.device)
    excess = (volume - fat) * GAIN
    values = (FAT_VALUE + excess / (1 + rim * excess.clamp_min(0) / RIM_EXCESS)).clamp(1, 1023) * inside
    result: np.ndarray = values.cpu().numpy()
    return result
