"""Copies: how alike a volume, or a lesion, is to training ones, however it was moved, mirrored or shaded.

A copy that was shifted by two voxels lies further from its original, by the root of the mean squared
difference, than another patient does. Here what is compared is the fine structure of the breast, registered:
outline, brightness and contrast say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, TypeVar

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

from dbtbench.geometry.resample import area_weights
from dbtbench.geometry.views import Boxes, Volume, mirror_boxes
from dbtbench.metrics.mask import li_threshold

Floats = NDArray[np.float64]
Descriptor = NDArray[np.float32]

CELLS = 32
"""Rows or columns of a descriptor, whichever are more."""
DETAIL = 2.5
"""Structure wider than this many cells is taken away, and contrast is made equal over twice as many."""
FLOOR = 0.1
"""Local contrast below this share of the whole breast's is not raised further: it would be noise."""
ANGLES = (-6.0, -3.0, 0.0, 3.0, 6.0)
"""Angles in the plane that are tried, in degrees."""
SHIFT = 2
"""Largest shift that is tried, in cells, along rows and columns."""

LESION_VOXELS = 128
"""Rows or columns to which a volume with more is reduced before its lesions are looked at."""
NARROWEST = 5.0
"""Rows and columns that a lesion must have then, at least: a smaller one looks like any other."""
DEGREE = 2
"""Degree of the polynomial that is taken away inside a lesion: all lesions are brighter in the middle."""
SMALLEST = np.array([1.0, 2.0, 2.0])
LARGEST = np.array([2, 8, 8])
"""Half-axes of the ellipsoid that is compared, in voxels, at least and at most."""
MARGIN = np.array([1, 2, 2])
"""Largest shift of a lesion that is tried, in voxels."""
LESIONS_AT_ONCE = 32

Item = TypeVar("Item", contravariant=True)


class Gallery(Protocol[Item]):
    """Training volumes, or lesions, that others are compared with."""

    def compare(self, item: Item) -> Floats:
        """Compute the similarity to each of them, (N,), up to 1."""


def describe_volume(volume: Volume) -> Descriptor:
    """Describe the fine structure of a breast, as a left one.

    The mean over the slices, which no mirroring in depth changes, is reduced by area means; structure wider
    than `DETAIL` is taken away inside the breast (normalised convolution, so that its outline leaves no rim),
    and what is left is divided by its local standard deviation, so that neither a shading nor one bright
    lesion decides.

    Args:
        volume: (D, H, W) in [0, 1].

    Returns:
        (h, w) float32, 0 outside the breast; all 0 for a volume without structure.
    """
    mean = volume.mean(axis=0, dtype=np.float64)
    rows, columns = mean.shape
    if _is_right(mean):
        mean = mean[:, ::-1]
    factor = max(rows, columns) / CELLS
    along_y, along_x = (area_weights(n, max(1, round(n / factor))) for n in (rows, columns))
    small = np.asarray((along_y @ mean) @ along_x.T, np.float64)
    inside = _find_breast(small)
    weight = _smooth(inside, DETAIL)
    weight = np.where(weight > 0, weight, 1)
    fine = (small - _smooth(small * inside, DETAIL) / weight) * inside
    wider = _smooth(inside, 2 * DETAIL)
    local = _smooth(fine**2, 2 * DETAIL) / np.where(wider > 0, wider, 1)
    floor = FLOOR**2 * float((fine**2).sum()) / max(float(inside.sum()), 1.0)
    scale = np.sqrt(np.maximum(local, 0)) + np.sqrt(floor)
    return np.asarray(np.divide(fine, scale, out=np.zeros_like(fine), where=scale > 0), np.float32)


def _is_right(image: Floats) -> bool:
    """Tell by its brighter half whether an image shows a right breast: a label may be wrong."""
    half = image.shape[1] // 2
    return bool(image[:, :half].sum() < image[:, image.shape[1] - half :].sum())


def _find_breast(image: Floats) -> Floats:
    """Find the largest bright piece of an image, one cell from its outline: (h, w), 1 inside."""
    pieces, count = scipy.ndimage.label(image > li_threshold(image))
    if not count:
        return np.zeros(image.shape)
    largest = scipy.ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))
    return np.asarray(scipy.ndimage.binary_erosion(largest, border_value=1), np.float64)


def _smooth(image: Floats, sigma: float) -> Floats:
    return np.asarray(scipy.ndimage.gaussian_filter(image, sigma, mode="constant"), np.float64)


class VolumeGallery:
    """Descriptors of training volumes, compared by the best normalised cross-correlation.

    All rotations by `ANGLES`, upside down or not, and all shifts up to `SHIFT` are tried: one matrix product
    for each volume.

    Args:
        descriptors: from `describe_volume`, of volumes of one grid.
    """

    def __init__(self, descriptors: Sequence[Descriptor]) -> None:
        stacked = np.stack(descriptors)
        self.unit = _normalise(stacked.reshape(len(stacked), -1))

    def compare(self, item: Descriptor) -> Floats:
        """Compute the similarity of a descriptor to each training volume, (N,) in [-1, 1]."""
        return np.asarray((_move(item) @ self.unit.T).max(axis=0), np.float64)


def _move(descriptor: Descriptor) -> Descriptor:
    """Rotate, turn upside down and shift a descriptor in every way: (ways, h * w), each of length 1."""
    rows, columns = descriptor.shape
    turned = [
        descriptor
        if not angle
        else scipy.ndimage.rotate(descriptor, angle, reshape=False, order=1, mode="constant")
        for angle in ANGLES
    ]
    padded = np.pad(np.stack([*turned, *(image[::-1] for image in turned)]), ((0, 0), *[(SHIFT, SHIFT)] * 2))
    steps = range(2 * SHIFT + 1)
    shifted = [padded[:, y : y + rows, x : x + columns] for y, x in product(steps, steps)]
    return _normalise(np.concatenate(shifted).reshape(-1, rows * columns))


def _normalise(vectors: Descriptor) -> Descriptor:
    """Scale rows to length 1; those of length 0 stay so."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Descriptor = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-9)
    return scaled


@dataclass(frozen=True)
class Lesion:
    """A description of a lesion.

    Attributes:
        values: intensities around its centre, `LARGEST` and `MARGIN` voxels to each side, float32.
        mask: the ellipsoid in its box, without the margin, bool.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


def is_wide_enough(boxes: Boxes, grid: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which lesions have voxels enough to be recognised, (n,).

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        grid: slices, rows, columns of their volume.
    """
    size = (boxes[:, 4:] - boxes[:, 1:3]) / _reduction(grid)
    return np.asarray((size >= NARROWEST).all(axis=1), bool)


def describe_lesions(volume: Volume, boxes: Boxes) -> list[Lesion]:
    """Describe what is inside and around each lesion's box, as of a left breast.

    Args:
        volume: (D, H, W) in [0, 1].
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
    """
    if not len(boxes):
        return []
    if (factor := _reduction(volume.shape)) > 1:
        along_y, along_x = (area_weights(n, -(-n // factor)) for n in volume.shape[1:])
        scale = np.array([1, along_y.shape[0] / volume.shape[1], along_x.shape[0] / volume.shape[2]])
        volume = np.stack([np.asarray((along_y @ frame) @ along_x.T, np.float32) for frame in volume])
        boxes = boxes * np.tile(scale, 2)
    if _is_right(volume.sum(axis=0, dtype=np.float64)):
        volume, boxes = volume[:, :, ::-1], mirror_boxes(boxes, volume.shape[2])
    reach = LARGEST + MARGIN
    padded = np.pad(volume, [(n, n) for n in reach], mode="edge")
    offsets = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in LARGEST], indexing="ij"), -1)
    lesions = []
    for low, high in zip(boxes[:, :3], boxes[:, 3:], strict=True):
        centre = np.clip(((low + high) / 2).astype(int), 0, np.array(volume.shape) - 1)
        axes = np.clip((high - low) / 2, SMALLEST, LARGEST)
        window = tuple(slice(c, c + 2 * n + 1) for c, n in zip(centre, reach, strict=True))
        mask = ((offsets / axes) ** 2).sum(axis=-1) < 1
        lesions.append(Lesion(np.ascontiguousarray(padded[window], np.float32), mask))
    return lesions


def _reduction(grid: Sequence[int]) -> int:
    """Choose the factor by which the plane of a grid is reduced."""
    return max(1, -(-max(grid[1:]) // LESION_VOXELS))


class LesionGallery:
    """Training lesions, compared by the best local normalised cross-correlation.

    All shifts up to `MARGIN` and all eight mirror images are tried, inside the ellipsoid of the lesion that
    is compared, where a polynomial of degree `DEGREE` is taken away from both. Nothing outside of it counts.

    Args:
        lesions: from `describe_lesions`, of volumes of one grid.
    """

    def __init__(self, lesions: Sequence[Lesion]) -> None:
        self.values = np.stack([lesion.values for lesion in lesions])

    def compare(self, item: Lesion) -> Floats:
        """Compute the similarity of a lesion to each training lesion, (N,) in [-1, 1]."""
        core = item.values[tuple(slice(n, -n) for n in MARGIN)]
        mirrored = [
            core[tuple(slice(None, None, step) for step in steps)][item.mask]  # an ellipsoid has no sides
            for steps in product((1, -1), repeat=3)
        ]
        smooth = _polynomials(item.mask)
        own = _take_away(np.stack(mirrored), smooth)
        best = []
        for start in range(0, len(self.values), LESIONS_AT_ONCE):
            block = self.values[start : start + LESIONS_AT_ONCE]
            windows = np.lib.stride_tricks.sliding_window_view(block, core.shape, axis=(1, 2, 3))
            found = _take_away(windows.reshape(len(block), -1, *core.shape)[..., item.mask], smooth)
            best.append((found @ own.T).max(axis=(1, 2)))
        return np.asarray(np.concatenate(best), np.float64)


def _polynomials(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Make an orthonormal basis of the polynomials of three variables on a mask, (voxels, terms)."""
    places = (np.argwhere(mask) - LARGEST) / LARGEST
    powers = [each for each in product(range(DEGREE + 1), repeat=3) if sum(each) <= DEGREE]
    terms = np.stack([(places**power).prod(axis=1) for power in powers], axis=1)
    basis: NDArray[np.float32] = np.linalg.qr(terms)[0].astype(np.float32)
    return basis


def _take_away(vectors: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take what a basis spans out of each row, and scale it to length 1."""
    rest = np.asarray(vectors - (vectors @ basis) @ basis.T, np.float32)
    return _normalise(rest)
