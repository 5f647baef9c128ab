"""The raw file of a reconstruction: memory-mapped, checked, and brought onto a grid as displayed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.errors import UnreadableError
from dbtbench.exchange.t_synth.header import UNREADABLE, RawHeader
from dbtbench.geometry.resample import area_mean
from dbtbench.geometry.views import Volume

LARGEST = 1e6
"""A magnitude that no reconstruction has: attenuation is about 1/cm. Numbers in the other byte order do."""
NOT_FINITE = "values are not finite"
TOO_LARGE = "values beyond anything real"
ONE_VALUE = "one value everywhere"
WRONG_LENGTH = "file length differs from the header"


def open_raw(path: Path, header: RawHeader) -> NDArray[Any]:
    """Map a raw file into memory.

    Returns:
        `header.shape`, of `header.dtype`.

    Raises:
        UnreadableError: when the file has another length than its header says.
    """
    try:
        length = path.stat().st_size
        if length != header.bytes:
            raise UnreadableError(WRONG_LENGTH, f"{length} bytes instead of {header.bytes}")
        return np.memmap(path, header.dtype, "r", shape=header.shape)
    except OSError as error:
        raise UnreadableError(UNREADABLE, errno.errorcode.get(error.errno or 0, "")) from None


def read_reconstruction(path: Path, header: RawHeader, grid: tuple[int, int, int]) -> Volume:
    """Read a reconstruction onto a grid, as displayed: chest wall at the left, with one slice in memory.

    In the file the fastest axis of a slice runs from the bottom of the displayed image to its top, and the
    other from the chest wall to the nipple. So the image is turned by 90°, as the collection's own reader
    does. Means are taken of the values themselves: a window before it would clip their noise.

    Args:
        path: the raw file.
        header: of it.
        grid: slices, rows, columns.

    Returns:
        (D, H, W) float32, in the file's own values.

    Raises:
        UnreadableError: when the values cannot be those of a reconstruction.
    """
    raw = open_raw(path, header)
    slices, columns, rows = header.shape
    seen: list[tuple[float, float]] = []

    def yield_slices() -> Iterator[NDArray[np.float32]]:
        for stored in raw:
            low, high = float(stored.min()), float(stored.max())
            if not np.isfinite((low, high)).all():
                raise UnreadableError(NOT_FINITE)
            if max(-low, high) > LARGEST:
                raise UnreadableError(TOO_LARGE)
            seen.append((low, high))
            yield np.asarray(stored, np.float32)

    turned = area_mean(yield_slices(), (slices, columns, rows), (grid[0], grid[2], grid[1]))
    if min(low for low, _ in seen) == max(high for _, high in seen):
        raise UnreadableError(ONE_VALUE)
    return np.ascontiguousarray(turned.transpose(0, 2, 1)[:, ::-1])
