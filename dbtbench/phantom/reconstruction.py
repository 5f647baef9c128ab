"""Filtered back-projection, and pixel values for a viewer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import binary_fill_holes, gaussian_filter

from dbtbench.phantom.acquisition import (
    INTEGRAL_STEP,
    Geometry,
    centres,
    scale_columns,
    stack_interpolation,
)
from dbtbench.phantom.anatomy import ATTENUATION
from dbtbench.phantom.numbers import Array, round_to_grid
from dbtbench.phantom.texture import resize

FLOOR = 0.55
"""Gain of the filter at frequency 0. With 1, attenuation is exact; less shows detail more, as vendors do."""
WINDOW = (520.0, 640.0)
"""Centre and width of the window in the files, in pixel values of 10 bits."""
FAT_VALUE = 299.0
"""Pixel value of fat (the darkest fifth of tissue): 15.5 % of the window, as measured in real slices."""
GAIN = 4.7e4
"""Pixel values for a difference of 1/mm; like the value of fat, tuned to the quantiles of two real slices."""
TONE = (0.85, 1.2)
"""Above fat, a share e of the window is shown as e · (TONE[0] + TONE[1] · e): dense tissue gains most.
Fitted, with the anatomy, to the quantiles of real slices."""

RIM_MM = 3.0
"""Standard deviation of the blur by which the rim below the skin is found."""


def silhouette(central: Array, pixel: tuple[float, float]) -> NDArray[np.bool_]:
    """Find pixels where the central projection shows at least 3 mm of fat, without holes; (rows, columns)."""
    smooth = round_to_grid(gaussian_filter(central, (1.0 / pixel[0], 1.0 / pixel[1])))
    filled: NDArray[np.bool_] = binary_fill_holes(smooth > 3 * ATTENUATION["fat"])
    return filled


def equalise(integrals: Array, pixel: tuple[float, float]) -> Array:
    """Bring the breast's thin rim to the brightness of its middle, and what lies outside it too.

    So the filter meets no step at the skin line, at which it would overshoot in each view elsewhere: bright
    bands and rings below the skin. The gain is smooth, so it is computed on pixels of twice the size.

    Args:
        integrals: (views, rows, columns).
        pixel: mm along rows and columns.
    """
    views, rows, columns = integrals.shape
    even = np.pad(integrals, ((0, 0), (0, rows % 2), (0, columns % 2)), mode="edge")
    small = even.reshape(views, -(-rows // 2), 2, -(-columns // 2), 2).mean(axis=(2, 4))

    def blur(values: Array, mm: float) -> Array:
        return np.asarray(gaussian_filter(values, (0, 0.5 * mm / pixel[0], 0.5 * mm / pixel[1]), truncate=3))

    shadow = (round_to_grid(blur(small, 1.0)) > 2 * ATTENUATION["fat"]).astype(np.float64)
    mean = round_to_grid(blur(shadow * small, 3.0) / blur(shadow, 3.0).clip(0.05, None))
    middle = mean[views // 2][shadow[views // 2] > 0]
    level = float(np.quantile(middle, 0.6, method="lower")) if len(middle) else 1.0
    gain = np.clip(level / mean.clip(1e-3, None), 1, 6) ** 0.86
    within = (2 * blur(shadow, 1.5) - 1).clip(0, 1)
    gain, within = (resize(round_to_grid(v), even.shape)[:, :rows, :columns] for v in (gain, within))
    return np.asarray(level + within * (integrals * gain - level))


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
    gain = np.sqrt(floor**2 + (f / cut) ** 2) / np.sqrt(1 + (f / (1.2 * 0.5 / step)) ** 6)
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
        Attenuation-like values in 1/mm, and how deep each pixel lies below the silhouette's edge: from 0
        there to 1 some `RIM_MM` inside; both (slices, rows, columns).
    """
    views, detector, columns = integrals.shape
    slices, rows = shape
    mask = silhouette(integrals[views // 2], pixel)
    straight = integrals / geometry.obliquity(detector, columns, pixel)
    if equalised:
        straight = equalise(straight, pixel)
    filtered = ramp(round_to_grid(straight, INTEGRAL_STEP), thickness, pixel[0], geometry, floor)
    volume = back_project(filtered, slices, rows, thickness, pixel, geometry)
    soft = gaussian_filter(mask.astype(np.float64), (RIM_MM / pixel[0], RIM_MM / pixel[1])) * 2 - 1
    # One shadow, magnified as from above each slice: it is the view from the middle of the arc.
    middle = Geometry(views=1, arc=0.0, source=geometry.source, support=geometry.support)
    shadow = round_to_grid(soft.clip(0, 1))[None]
    return volume, back_project(shadow, slices, rows, thickness, pixel, middle)


def present(volume: Array, depth: Array) -> Array:
    """Compute pixel values of 10 bits: 0 in air, fat at `FAT_VALUE`, a fixed gain and a tone curve.

    The gain is the same for all, so dense breasts stay brighter and busier. Below the edge less is added: the
    skin, along which rays run, would be white where it is in focus.

    Args:
        volume: (slices, rows, columns) in 1/mm.
        depth: below the silhouette's edge, as `reconstruct` gives it.

    Returns:
        (slices, rows, columns) in [0, 1023].
    """
    tissue = round_to_grid(volume[depth > 0.5], 2.0**-18)
    fat = np.quantile(tissue, 0.2, method="lower") if len(tissue) else 0.0
    excess = (volume - fat) * GAIN
    excess *= TONE[0] + TONE[1] * excess.clip(0) / WINDOW[1]
    excess = np.where(excess > 0, excess * depth * depth, excess)
    outside = 1 - depth
    inside = 1 - outside * outside * outside
    return np.asarray((FAT_VALUE + excess).clip(1, 1023) * inside)
