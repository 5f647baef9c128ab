"""The reader of volumes that are plain arrays of intensities: NIfTI, NPZ and NPY files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.preconditions import MAX_VOXELS
from dbtbench.errors import UnreadableError
from dbtbench.geometry.views import Volume

NOMINAL = "nominal spacing"
"""The note that an export writes into a file whose distances between voxels are not known."""
SUFFIXES = (".nii.gz", ".nii", ".npz", ".npy")
ROUNDING = 1e-6
"""The distance that a value may lie outside [0, 1]."""
UNKNOWN = (np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class ArrayFile:
    """A file's volume.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        spacing: mm between slices, rows and columns; NaN where the file does not give them.
    """

    volume: Volume
    spacing: tuple[float, float, float]


def read_array(path: Path) -> ArrayFile:
    """Read a volume; nothing is unpickled, and no volume is larger than `MAX_VOXELS`.

    A NIfTI file's axes are columns, rows and slices; the others' are slices, rows and columns. Further axes
    of length 1 are left out. Floating-point numbers are intensities; whole numbers are full scale of their
    type.

    Args:
        path: its name ends with one of `SUFFIXES`; an NPZ file holds the volume as `volume`.

    Raises:
        UnreadableError: when it cannot be a volume.
    """
    try:
        array, spacing = _read_nifti(path) if _is_nifti(path) else _read_numpy(path)
    except UnreadableError:
        raise
    except Exception as error:  # damaged headers and streams raise nearly anything
        raise UnreadableError("cannot be read", f"{type(error).__name__}: {error}") from error
    return ArrayFile(_to_unit_range(_squeeze(array)), spacing)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _read_nifti(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    import nibabel

    loaded = nibabel.load(path)
    if not isinstance(loaded, nibabel.Nifti1Image):  # Nifti2Image is one as well
        raise UnreadableError("not a NIfTI image", type(loaded).__name__)
    image: Any = loaded
    _check_header(image.shape, image.get_data_dtype())
    array = np.asanyarray(image.dataobj).T
    header = image.header
    known = header["sform_code"] > 0 or header["qform_code"] > 0
    known = known and header.get_xyzt_units()[0] == "mm" and header["descrip"].item() != NOMINAL.encode()
    if not known or len(header.get_zooms()) < 3:
        return array, UNKNOWN
    x, y, z = (float(mm) for mm in header.get_zooms()[:3])
    return array, (z, y, x)


def _read_numpy(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            _check_npy(file)
        return np.load(path, allow_pickle=False), UNKNOWN
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "volume.npy" not in names:
            raise UnreadableError("no array named volume", ", ".join(names)[:200])
        for name in sorted({"volume.npy", "spacing.npy"} & set(names)):
            with archive.open(name) as member:
                _check_npy(member)
    with np.load(path, allow_pickle=False) as arrays:
        spacing = np.asarray(arrays["spacing"], float).reshape(-1) if "spacing" in arrays else np.array([])
        z, y, x = spacing.tolist() if len(spacing) == 3 else UNKNOWN
        return arrays["volume"], (z, y, x)


def _check_npy(file: IO[bytes]) -> None:
    """Check the header of an array that is to be read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(file)
    else:  # version 3 is for fields with names beyond Latin-1
        raise UnreadableError("not grey values", f"NPY version {version}")
    _check_header(shape, kind)


def _check_header(shape: Sequence[int], kind: np.dtype[Any]) -> None:
    """Refuse an array that must not be loaded.

    Raises:
        UnreadableError: for other things than numbers, and for sizes that no volume has.
    """
    if kind.hasobject:
        raise UnreadableError("holds Python objects", "save an array of numbers")
    if kind.kind not in "fiu":
        raise UnreadableError("not grey values", str(kind))
    voxels = 1
    for n in shape:
        voxels *= int(n)
    if voxels > MAX_VOXELS or any(n < 0 for n in shape):
        raise UnreadableError("absurd size", " × ".join(map(str, shape)))


def _squeeze(array: NDArray[Any]) -> NDArray[Any]:
    """Leave out axes of length 1 until three are left, the first of them first."""
    shape = array.shape
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim != 3:
        raise UnreadableError("not three-dimensional", " × ".join(map(str, shape)))
    if array.size == 0:
        raise UnreadableError("no voxels", " × ".join(map(str, shape)))
    return array


def _to_unit_range(array: NDArray[Any]) -> Volume:
    """Convert the values to float32 in [0, 1]."""
    low, high = array.min(), array.max()
    if not np.isfinite([float(low), float(high)]).all():
        raise UnreadableError("values are not finite")
    whole = array.dtype.kind != "f"
    largest = float(np.iinfo(array.dtype).max) if whole else 1.0
    rounding = 0.0 if whole else ROUNDING
    if low < -rounding or high > largest + rounding:
        raise UnreadableError(
            "values are not in [0, 1]",
            f"they run from {float(low):g} to {float(high):g}; scale them to [0, 1], or to the full scale of "
            "an unsigned integer type",
        )
    volume: Volume = array.astype(np.float32)
    volume /= np.float32(largest)
    return volume
