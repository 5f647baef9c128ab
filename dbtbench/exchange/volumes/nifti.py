"""The reader of NIfTI files: their affines say how the axes lie in the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.errors import UnreadableError
from dbtbench.geometry.orientation import affine_of

NOMINAL = "nominal spacing"
"""The note that an export writes into a file whose distances between voxels are not known."""
LARGEST_ANGLE = 30.0
"""Degrees between an axis of a file and the nearest axis of its view. At 45° two axes are equally near."""
SHEAR = 1.0
"""Degrees by which the angle between two axes of a file may differ from 90°."""
UNKNOWN = (np.nan, np.nan, np.nan)


def orient(
    image: Any, array: NDArray[Any], view: str | None
) -> tuple[NDArray[Any], tuple[float, float, float], bool]:
    """Bring a NIfTI image's axes into the order and direction of its view.

    Without an affine, or with the one that programs write where nothing is known (the identity of nibabel and
    TorchIO, or that of SimpleITK), the axes are columns, rows and slices as displayed.

    Args:
        image: the opened image; the first three axes are those of space.
        array: its values.
        view: lcc, lmlo, rcc or rmlo; None to take the axes as they are.

    Returns:
        The values, slices, rows and columns first in this order, then the further axes reversed; mm between
        slices, rows and columns, NaN where unknown; and whether the affine says another order or direction
        than columns, rows, slices.

    Raises:
        UnreadableError: when the affine is oblique, sheared or contradicts itself.
    """
    header = image.header
    placed = (header["sform_code"] > 0 or header["qform_code"] > 0) and len(image.shape) >= 3
    nominal = header["descrip"].item() == NOMINAL.encode()
    steps = np.array([[0, 1], [1, 1], [2, 1]], float)
    if placed and view is not None and (nominal or not _says_nothing(image.affine)):
        if 1 in image.shape[:3] and image.ndim > 3:
            raise UnreadableError("not three-dimensional", " × ".join(map(str, image.shape)))
        steps = _find_steps(image.affine, view)
        if header["sform_code"] > 0 and header["qform_code"] > 0:
            other = _find_steps(header.get_qform(), view)
            if not np.array_equal(steps, other):
                raise UnreadableError("sform and qform contradict each other", "leave one of the two unset")
    order = np.argsort(steps[:, 0])
    turned = steps[order, 1] < 0
    array = array.transpose(*order.tolist(), *range(3, array.ndim)) if array.ndim >= 3 else array
    if array.ndim >= 3:
        array = array[tuple(slice(None, None, -1 if turn else 1) for turn in turned)]
    changed = bool((order != range(3)).any() or turned.any())
    if not placed or header.get_xyzt_units()[0] != "mm" or nominal:
        return array.T, UNKNOWN, changed
    x, y, z = (float(header.get_zooms()[axis]) for axis in order)
    return array.T, (z, y, x), changed


def _says_nothing(affine: NDArray[np.float64]) -> bool:
    """Whether an affine is one that programs write by default: voxels of 1 mm at the origin, not turned."""
    return any(np.array_equal(affine, np.diag([sign, sign, 1, 1])) for sign in (1, -1))


def _find_steps(affine: NDArray[np.float64], view: str) -> NDArray[np.float64]:
    """Find the nearest axis of the view (columns, rows, slices) for each axis of a file, and its sign.

    Raises:
        UnreadableError: when an axis has no length, or is oblique, or two are not at right angles.
    """
    from nibabel.orientations import io_orientation

    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        raise UnreadableError("affine is not one", "an axis has no length")
    axes = affine[:3, :3] / lengths
    shear = np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1)))
    if shear > SHEAR:
        raise UnreadableError("affine is sheared", f"two axes are {shear:.0f}° from a right angle")
    displayed = affine_of(view, (1.0, 1.0, 1.0))[:3, :3]
    cosines = displayed.T @ axes
    around = np.eye(4)
    around[:3, :3] = cosines
    steps: NDArray[np.float64] = io_orientation(around)  # type: ignore[no-untyped-call]
    nearest = np.abs(cosines[steps[:, 0].astype(int), range(3)])
    angle = np.degrees(np.arccos(np.clip(nearest.min(), 0, 1)))
    if angle > LARGEST_ANGLE:
        raise UnreadableError(
            "affine is oblique",
            f"an axis is {angle:.0f}° from those of {view}; {LARGEST_ANGLE:.0f}° are the most. Without an "
            "affine, axes are columns, rows and slices as displayed",
        )
    return steps
