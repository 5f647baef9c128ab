"""Directions of a volume's axes in the patient, and the affine from voxels to mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import laterality, projection

Spacing = tuple[float, float, float]
"""mm between slices, rows and columns."""
SAME_DIRECTION = 0.3
"""Cosine from which two directions count as the same or opposite: oblique views differ in their angle."""


def orientation_of(view: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions as displayed, in patient coordinates (left, posterior, superior).

    Returns:
        (2, 3): where columns and rows increase to; and (3,): from the support to the tube. Columns of a left
        breast run to the nipple; rows run from lateral to medial in CC, and 45° downwards as well in MLO.
    """
    left = laterality(view) == "l"
    along_row = np.array([0.0, -1.0 if left else 1.0, 0.0])
    medial = np.array([-1.0 if left else 1.0, 0.0, 0.0])
    up = np.array([0.0, 0.0, 1.0])
    if projection(view) == "cc":
        return np.stack([along_row, medial]), up
    return np.stack([along_row, (medial - up) * np.sqrt(0.5)]), (medial + up) * np.sqrt(0.5)


def decide_rotation(view: str, axes: Sequence[Sequence[float]]) -> bool | None:
    """Decide whether a frame is stored rotated by 180° in its plane.

    Args:
        view: such as lcc.
        axes: (2, 3) directions in which its columns and its rows are counted, in patient coordinates.

    Returns:
        None where it is neither as displayed nor rotated, but mirrored or another plane.
    """
    agree = (orientation_of(view)[0] * np.asarray(axes, float)).sum(axis=1)
    if (np.abs(agree) < SAME_DIRECTION).any() or agree[0] * agree[1] < 0:
        return None
    return bool(agree[0] < 0)


def affine_of(view: str, spacing: Spacing) -> NDArray[np.float64]:
    """From voxel indices (column, row, slice) to mm to the right, anterior and superior.

    DICOM counts to the left and posterior, therefore the two signs. The first voxel lies at the origin.

    Args:
        view: lcc, lmlo, rcc or rmlo.
        spacing: mm between slices, rows and columns.

    Returns:
        (4, 4).
    """
    (along_row, along_column), step = orientation_of(view)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_row, along_column, step], axis=1) * spacing[::-1]
    affine[:2] *= -1
    return affine
