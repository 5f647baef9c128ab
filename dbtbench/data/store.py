"""The stored volumes of a data set: each is compared with its SHA-256 whenever it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dbtbench.data.verification import is_of_system, remedy
from dbtbench.errors import StaleError

STORE = "volumes.zarr"


class VolumeStore:
    """The volumes of a data set, opened for reading.

    Args:
        folder: the data set's folder.
        grid: slices, rows, columns.

    Raises:
        StaleError: when the store is gone or damaged, or is not one of volumes on this grid.
        OSError: when the system does not let it be read: no permission, a broken disk.
    """

    def __init__(self, folder: Path, grid: Sequence[int]) -> None:
        self.folder, self.grid = folder, tuple(grid)
        try:
            self.array: zarr.Array[Any] = zarr.open_array(folder / STORE, mode="r")
            shape, chunks, kind = self.array.shape, self.array.chunks, self.array.dtype
        except Exception as error:  # a damaged zarr.json can raise any error
            if is_of_system(error):
                raise
            raise self._refuse(STORE, f"cannot be opened: {type(error).__name__}: {error}") from error
        if shape[1:] != self.grid or chunks != (1, *self.grid) or kind != np.uint16:
            found = f"{kind} {shape} in chunks {chunks}"
            raise self._refuse(STORE, f"holds {found}, not uint16 on {self.grid}")

    def read(self, case: int, sha256: str) -> NDArray[np.uint16]:
        """Read one volume, and compare it with its digest.

        Zarr takes a chunk that is not there for a chunk of zeros: its digest shows that it is none.

        Args:
            case: its row.
            sha256: of its values, from cases.csv.

        Returns:
            (D, H, W).

        Raises:
            StaleError: when it is missing, cut, damaged or another one; the chunk's file is named.
            OSError: when the system does not let it be read: no permission, a broken disk.
        """
        try:
            values: NDArray[np.uint16] = np.ascontiguousarray(self.array[case], dtype="<u2")
        except Exception as error:  # every codec has its own way of refusing a damaged chunk
            if is_of_system(error):
                raise
            problem = f"case {case} cannot be read: {type(error).__name__}: {error}"
            raise self._refuse(self.file_of(case), problem) from error
        if hashlib.sha256(values.tobytes()).hexdigest() != sha256:
            file = self.file_of(case)
            problem = f"the values of case {case} do not have the SHA-256 of cases.csv"
            if not values.any():
                gone = "" if (self.folder / file).is_file() else "the file is not there, "
                problem = f"{gone}the values of case {case} are missing"
            raise self._refuse(file, problem)
        return values

    def file_of(self, case: int) -> str:
        """Name the file that holds a case, relative to the data set's folder."""
        packed = (self.array.shards or self.array.chunks)[0]
        key = self.array.metadata.encode_chunk_key((case // packed, 0, 0, 0))
        return f"{STORE}/{key}"

    def _refuse(self, file: str, problem: str) -> StaleError:
        return StaleError(f"{self.folder / file}: {problem}", remedy(self.folder))
