"""Boxes between native DBTex coordinates and a data set's grid.

A native box has its upper-left corner at (X, Y), its size (Width, Height) in pixels of the original volume
as displayed, and one slice. The grid cuts the same field into fewer voxels, so coordinates scale by the
ratio of the sizes along each axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes

DEPTH_SHARE = 0.25
"""Depth given to a box, as a share of the volume's slices: the tables name one slice only, and the DBTex rule
accepts a detection within a quarter of the slices of it on either side."""


def to_grid(box: Mapping[str, Any], size: tuple[int, int, int], grid: tuple[int, int, int]) -> list[float]:
    """Carry a native box into the grid.

    Args:
        box: Slice, X, Y, Width, Height.
        size: slices, rows, columns of the original volume.
        grid: slices, rows, columns of the grid.

    Returns:
        `[z0, y0, x0, z1, y1, x1]`, inside the grid.
    """
    (slices, rows, columns), half = size, DEPTH_SHARE / 2 * size[0]
    low = np.array([float(box["Slice"]) + 0.5 - half, float(box["Y"]), float(box["X"])])
    high = np.array([low[0] + 2 * half, low[1] + float(box["Height"]), low[2] + float(box["Width"])])
    scale = np.array(grid) / (slices, rows, columns)
    return [*np.clip(low * scale, 0, grid).tolist(), *np.clip(high * scale, 0, grid).tolist()]


def touches_volume(box: Mapping[str, Any], size: tuple[int, int, int]) -> bool:
    """Test whether a native box touches its volume; `to_grid` cuts off the part beyond the edge.

    Args:
        box: Slice, X, Y, Width, Height.
        size: slices, rows, columns of the original volume.
    """
    slices, rows, columns = size
    return bool(
        0 <= box["Slice"] < slices and -box["Width"] < box["X"] < columns and -box["Height"] < box["Y"] < rows
    )


def rotate_box(box: Mapping[str, Any], size: tuple[int, int, int]) -> dict[str, Any]:
    """Rotate a native box by 180° with its volume, about the middle of the slice.

    Args:
        box: X, Y, Width, Height.
        size: slices, rows, columns of the original volume.

    Returns:
        The new X and Y.
    """
    return {"X": size[2] - box["X"] - box["Width"], "Y": size[1] - box["Y"] - box["Height"]}


def cover_voxels(boxes: Boxes, grid: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cover boxes with whole voxels: those of which half is inside, along each axis.

    The voxel at a box's centre always is one.

    Args:
        boxes: (n, 6) in voxels of the grid.
        grid: slices, rows, columns.

    Returns:
        (n, 3) and (n, 3): first slice, row and column of each box, and one past the last.
    """
    centre = np.clip(np.floor((boxes[:, :3] + boxes[:, 3:]) / 2), 0, np.array(grid) - 1)
    low = np.clip(np.minimum(np.ceil(boxes[:, :3] - 0.5), centre), 0, None)
    high = np.clip(np.maximum(np.floor(boxes[:, 3:] + 0.5), centre + 1), None, grid)
    return low.astype(np.int64), high.astype(np.int64)


def to_native(boxes: Boxes, size: tuple[int, int, int], grid: tuple[int, int, int]) -> pd.DataFrame:
    """Carry grid boxes into native coordinates.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels of the grid.
        size: slices, rows, columns of the original volume.
        grid: slices, rows, columns of the grid.

    Returns:
        The geometry columns of a DBTex prediction: X, Width, Y, Height, Z, Depth. The rule compares
        Z + Depth/2 with the index of the true slice. The centre of that slice lies half a slice higher, so
        Z is the lower face minus one half.
    """
    scale = np.array(size) / grid
    low, high = boxes[:, :3] * scale, boxes[:, 3:] * scale
    extent = high - low
    return pd.DataFrame(
        {
            "X": low[:, 2],
            "Width": extent[:, 2],
            "Y": low[:, 1],
            "Height": extent[:, 1],
            "Z": low[:, 0] - 0.5,
            "Depth": extent[:, 0],
        }
    )
