"""Filtered back-projection, and pixel values for a viewer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

from dbtbench.phantom.acquisition import (
    INTEGRAL_STEP,
    Geometry,
    centres,
    scale_columns,
    stack_interpolation,
)
from dbtbench.phantom.anatomy import ATTENUATION
from dbtbench.phantom.numbers import Array, round_to_grid

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


def silhouette(central: Array, pixel: tuple[float, float]) -> NDArray[np.bool_]:
    """Find pixels where the central projection shows at least 3 mm of fat, without holes; (rows, columns)."""
    smooth = round_to_grid(gaussian_filter(central, (1.0 / pixel[0], 1.0 / pixel[1])))
    filled: NDArray[np.bool_] = binary_fill_holes(smooth > 3 * ATTENUATION["fat"])
    return filled


def equalise(integrals: Array, mask: NDArray[np.bool_], pixel: tuple[float, float]) -> Array:
    """Raise the thin rim of the breast to the brightness of its middle, in all views alike.

    Args:
        integrals: (views, rows, columns).
        mask: the breast's silhouette in the central view.
        pixel: mm along rows and columns.
    """
    central = integrals[len(integrals) // 2]
    wide, narrow = ((s / pixel[0], s / pixel[1]) for s in (3.0, 1.5))
    weight = gaussian_filter(mask.astype(np.float64), wide)
    mean = round_to_grid(gaussian_filter(np.where(mask, central, 0), wide) / np.maximum(weight, 0.05))
    level = np.quantile(mean[mask], 0.6, method="lower") if mask.any() else 1.0
    gain = np.clip(level / np.maximum(mean, 1e-3), 1, 6) ** 0.9
    return integrals * round_to_grid(gaussian_filter(gain, narrow))


def ramp(integrals: Array, thickness: float, step: float, geometry: Geometry, floor: float) -> Array:
    """Filter projections along the tube's path and divide by the thickness.

    Below 1 / (2 T tan(arc/2)) an arc carries no information about depth, so all depths get the average; above
    it the ramp restores amplitudes. The two are added as squares, and a Butterworth factor calms the noise.
    The filter is a convolution by numbers on a grid, so that it is exact whatever library multiplies.

    Args:
        integrals: (views, rows, columns), free of obliquity, on the grid `INTEGRAL_STEP`.
        thickness: T in mm.
        step: mm between rows.
        geometry: gives the arc.
        floor: gain at frequency 0.

    Returns:
        Of the same shape, in 1/mm, on a grid of 2⁻¹⁸.
    """
    rows = integrals.shape[1]
    cut = 1 / (2 * thickness * np.tan(np.deg2rad(geometry.arc / 2)))
    f = fft.rfftfreq(2 * rows, step)
    gain = np.sqrt(floor**2 + (f / cut) ** 2) / np.sqrt(1 + (f / (0.8 * 0.5 / step)) ** 6)
    kernel = round_to_grid(fft.irfft(gain), 2.0**-20)
    lag = np.arange(rows)
    matrix = kernel[np.abs(lag[:, None] - lag)]
    # Outside, the first and the last row go on for half the field.
    beyond = np.arange(1, rows // 2 + 1)
    matrix[:, 0] += kernel[lag[:, None] + beyond].sum(axis=1)
    matrix[:, -1] += kernel[rows - 1 - lag[:, None] + beyond].sum(axis=1)
    filtered = np.tensordot(matrix, integrals, (1, 1)).swapaxes(0, 1)
    return round_to_grid(filtered / thickness, 2.0**-18)


def back_project(
    filtered: Array, slices: int, rows: int, thickness: float, pixel: tuple[float, float], geometry: Geometry
) -> Array:
    """Average (views, detector rows, columns) as seen from each slice: (slices, rows, columns)."""
    views, detector, columns = filtered.shape
    heights = geometry.heights(slices, thickness)
    ys, zs = geometry.foci()
    y = centres(rows, pixel[0])[:, None]
    on_detector = ys + (y - ys) * zs / (zs - heights[:, None, None])
    index = (on_detector / pixel[0] + detector / 2 - 0.5).reshape(-1, views)
    sums = stack_interpolation(index, detector) @ filtered.reshape(views * detector, columns)
    stack = sums.reshape(slices, rows, columns)
    return np.asarray(scale_columns(stack, geometry.source / (geometry.source - heights)) / views)


def reconstruct(
    integrals: Array,
    shape: tuple[int, int],
    thickness: float,
    pixel: tuple[float, float],
    geometry: Geometry,
    floor: float = FLOOR,
    equalised: bool = True,
) -> tuple[Array, Array]:
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
    straight = integrals / geometry.obliquity(detector, columns, pixel)
    if equalised:
        straight = equalise(straight, mask, pixel)
    filtered = ramp(round_to_grid(straight, INTEGRAL_STEP), thickness, pixel[0], geometry, floor)
    volume = back_project(filtered, slices, rows, thickness, pixel, geometry)
    soft = gaussian_filter(mask.astype(np.float64), (0.6 / pixel[0], 0.6 / pixel[1])) * 2 - 1
    # One shadow, magnified as from above each slice: it is the view from the middle of the arc.
    middle = Geometry(views=1, arc=0.0, source=geometry.source, support=geometry.support)
    shadow = round_to_grid(soft.clip(0, 1))[None]
    return volume, back_project(shadow, slices, rows, thickness, pixel, middle)


def present(volume: Array, inside: Array, pixel: tuple[float, float]) -> Array:
    """Compute pixel values of 10 bits: 0 in air, fat at `FAT_VALUE`, a fixed gain, toned down at the skin.

    The gain is the same for all, so dense breasts stay brighter and busier.

    Args:
        volume: (slices, rows, columns) in 1/mm.
        inside: share of breast.
        pixel: mm along rows and columns.

    Returns:
        (slices, rows, columns) in [0, 1023].
    """
    tissue = round_to_grid(volume[inside > 0.99], 2.0**-18)
    fat = np.quantile(tissue, 0.2, method="lower") if len(tissue) else 0.0
    from_skin = np.stack([distance_transform_edt(frame > 0.5, sampling=pixel) for frame in inside])
    rim = (1 - from_skin / RIM_MM).clip(0)
    excess = (volume - fat) * GAIN
    values = (FAT_VALUE + excess / (1 + rim * excess.clip(0) / RIM_EXCESS)).clip(1, 1023) * inside
    return np.asarray(values)
