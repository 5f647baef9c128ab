"""Resampling of a volume of any size onto a grid."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

METHODS = ("area", "torchio")


def area_weights(n_in: int, n_out: int, reduction: int = 0) -> scipy.sparse.csr_array:
    """Compute the weights of exact area means along one axis.

    Output cell i covers the input interval [i·n_in/n_out, (i+1)·n_in/n_out); each input sample counts by the
    share of it that lies inside. The overlaps are whole numbers until the last division, so that the weights
    are the same on every machine.

    Args:
        n_in: samples of the input at full resolution.
        n_out: cells of the output.
        reduction: r, when only every 2^r-th sample is there, as JPEG 2000 decodes at reduced resolution:
            ⌈n_in/2^r⌉ samples, each centred on sample 2^r·k of the input (ISO/IEC 15444-1, Annexes B, F)
            and standing for everything that is nearer to it than to another.

    Returns:
        (n_out, ⌈n_in/2^r⌉) float32; each row sums to 1.
    """
    step = 1 << reduction
    kept = -(-n_in // step)
    # In units of 1/(2·n_out) input samples, in which all edges of cells and samples are whole.
    cells = np.arange(n_out + 1) * (2 * n_in)
    samples = (np.arange(kept + 1) * (2 * step) + (1 - step)) * n_out
    samples[[0, -1]] = 0, cells[-1]
    edges = np.union1d(cells, samples)
    where = [np.searchsorted(axis, edges[:-1], "right") - 1 for axis in (cells, samples)]
    share = (np.diff(edges) / (2 * n_in)).astype(np.float32)
    return scipy.sparse.csr_array((share, (where[0], where[1])), shape=(n_out, kept))


def area_mean(
    frames: Iterable[NDArray[np.float32]],
    shape: tuple[int, int, int],
    grid: tuple[int, int, int],
    reduction: int = 0,
) -> NDArray[np.float32]:
    """Resample by exact area means, reading one frame at a time.

    `torchio.Resize` samples points (at most 16 of 60 slices and 4 of about 1,100 pixels of a cell on a
    BCS-DBT volume, correlation 0.95 with the area mean), so it is not used here. The weights are sparse: a
    dense product costs six times more, and its last bits depend on the machine's BLAS and its threads.

    Args:
        frames: `shape[0]` frames, each (H, W), or (⌈H/2^r⌉, ⌈W/2^r⌉) when they were decoded reduced.
        shape: slices, rows, columns of the input at full resolution.
        grid: slices, rows, columns of the output; any of them may be larger than the input's.
        reduction: r.

    Returns:
        (D, H, W) float32.
    """
    along_z = area_weights(shape[0], grid[0]).tocsc()
    along_y, along_x = (area_weights(n, m, reduction) for n, m in zip(shape[1:], grid[1:], strict=True))
    out = np.zeros(grid, np.float32)
    for index, frame in enumerate(frames):
        small = (along_y @ frame) @ along_x.T
        cells = slice(*along_z.indptr[index : index + 2])
        for z, weight in zip(along_z.indices[cells], along_z.data[cells], strict=True):
            out[z] += weight * small
    return out


def torchio_resize(frames: Iterable[NDArray[np.float32]], grid: tuple[int, int, int]) -> NDArray[np.float32]:
    """Resample with `torchio.Resize`, at most a halving at a time: the paper's way.

    The whole volume is in memory at once, as float32.

    Args:
        frames: all frames, each (H, W).
        grid: slices, rows, columns of the output.

    Returns:
        (D, H, W) float32.
    """
    import torch
    import torchio

    tensor = torch.from_numpy(np.stack(list(frames)))[None].permute(0, 3, 2, 1)  # torchio: (C, W, H, D)
    while (size := tuple(tensor.shape[1:])) != grid[::-1]:
        width, height, depth = (max(-(-n // 2), m) for n, m in zip(size, grid[::-1], strict=True))
        tensor = torchio.Resize((width, height, depth))(tensor)
    return np.ascontiguousarray(tensor[0].permute(2, 1, 0).numpy(), dtype=np.float32)
