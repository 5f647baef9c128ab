"""The reader of volumes that are plain arrays of intensities: NIfTI, NPZ, NPY and MAT files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.preconditions import MAX_VOXELS
from dbtbench.errors import UnreadableError
from dbtbench.exchange.volumes.nifti import UNKNOWN, orient
from dbtbench.geometry.views import Volume

SUFFIXES = (".nii.gz", ".nii", ".npz", ".npy", ".mat")
MAT_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ROUNDING = 1e-6
"""The distance that a value may lie outside [0, 1]."""
OVERSHOOT = 0.25
"""Values that lie less than this outside [0, 1] are probably to be clipped; others have another scale."""
USUAL_BITS = (1, 8, 10, 12, 14, 16)


@dataclass(frozen=True)
class ArrayFile:
    """A file's volume.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        spacing: mm between slices, rows and columns; NaN where the file does not give them.
        turned: whether the file's affine says another order or direction of the axes than the usual one.
        integers: type and largest value of whole numbers; None for floating-point numbers.
    """

    volume: Volume
    spacing: tuple[float, float, float]
    turned: bool = False
    integers: tuple[str, int] | None = None


def read_array(path: Path, view: str | None = None, full_scale: float | None = None) -> ArrayFile:
    """Read a volume; nothing is unpickled, and no volume is larger than `MAX_VOXELS`.

    A NIfTI file's affine says how its axes lie; without one they are columns, rows and slices. The others'
    are slices, rows and columns. Further axes of length 1 are left out.

    Args:
        path: its name ends with one of `SUFFIXES`; an NPZ or MAT file holds the volume as `volume`.
        view: lcc, lmlo, rcc or rmlo: the view that a NIfTI file's axes are turned to; None to take them as
            they are.
        full_scale: the value that becomes 1; None for 1, and for whole numbers the largest of their type.

    Raises:
        UnreadableError: when it cannot be a volume.
    """
    try:
        turned = False
        if _is_nifti(path):
            array, spacing, turned = _read_nifti(path, view)
        else:
            array, spacing = (_read_mat if path.suffix.lower() == ".mat" else _read_numpy)(path)
    except UnreadableError:
        raise
    except Exception as error:  # damaged headers and streams raise nearly anything
        raise UnreadableError("cannot be read", f"{type(error).__name__}: {error}") from error
    array = _squeeze(array)
    integers = (str(array.dtype), int(array.max())) if array.dtype.kind != "f" else None
    return ArrayFile(_to_unit_range(array, full_scale), spacing, turned, integers)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _read_nifti(path: Path, view: str | None) -> tuple[NDArray[Any], tuple[float, float, float], bool]:
    import nibabel

    loaded = nibabel.load(path)
    if not isinstance(loaded, nibabel.Nifti1Image):  # Nifti2Image is one as well
        raise UnreadableError("not a NIfTI image", type(loaded).__name__)
    image: Any = loaded
    _check_header(image.shape, image.get_data_dtype())
    return orient(image, np.asanyarray(image.dataobj), view)


def _read_numpy(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            _check_npy(file)
        return np.load(path, allow_pickle=False), UNKNOWN
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "volume.npy" not in names:
            raise UnreadableError("no array named volume", _describe_members(archive))
        for name in sorted({"volume.npy", "spacing.npy"} & set(names)):
            with archive.open(name) as member:
                _check_npy(member)
    with np.load(path, allow_pickle=False) as arrays:
        spacing = np.asarray(arrays["spacing"], float).reshape(-1) if "spacing" in arrays else np.array([])
        z, y, x = spacing.tolist() if len(spacing) == 3 else UNKNOWN
        return arrays["volume"], (z, y, x)


def _read_mat(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """Read a file of MATLAB, up to version 7."""
    from scipy.io import loadmat, whosmat

    members = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    if "volume" not in members:
        raise UnreadableError("no array named volume", _list_arrays(members))
    shape, kind = members["volume"]
    if kind not in MAT_NUMBERS:
        raise UnreadableError("not grey values", kind)
    _check_header(shape, np.dtype("f8"))
    volume: NDArray[Any] = loadmat(path, variable_names=["volume"])["volume"]
    _check_header(volume.shape, volume.dtype)
    return volume, UNKNOWN


def _list_arrays(members: Mapping[str, tuple[Sequence[int], object] | None]) -> str:
    """List arrays by name, with shape and type where they are known, in printable characters."""
    texts = []
    for name, known in members.items():
        size = f" ({' × '.join(map(str, known[0]))}, {known[1]})" if known else ""
        texts.append("".join(c if c.isprintable() else "?" for c in name[:100]) + size)
    return "it holds " + (", ".join(texts) or "nothing") + "; save the volume as `volume`"


def _describe_members(archive: zipfile.ZipFile) -> str:
    """List every array of an NPZ file."""
    members: dict[str, tuple[Sequence[int], object] | None] = {}
    for name in archive.namelist():
        try:
            with archive.open(name) as member:
                members[name] = _read_npy_header(member)
        except Exception:  # no array, or a damaged one
            members[name] = None
    return _list_arrays(members)


def _check_npy(file: IO[bytes]) -> None:
    """Check the header of an array that is to be read."""
    _check_header(*_read_npy_header(file))


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(file)
    else:  # version 3 is for fields with names beyond Latin-1
        raise UnreadableError("not grey values", f"NPY version {version}")
    return shape, kind


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


def _to_unit_range(array: NDArray[Any], full_scale: float | None) -> Volume:
    """Convert the values to float32 in [0, 1]."""
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        wrong = int(array.size - np.isfinite(array).sum())
        raise UnreadableError("values are not finite", f"{wrong} of {array.size} are NaN or infinite")
    if low == high:
        raise UnreadableError("every voxel has the same value", f"{low:g}")
    whole = array.dtype.kind != "f"
    largest = full_scale or (float(np.iinfo(array.dtype).max) if whole else 1.0)
    rounding = 0.0 if whole else ROUNDING * largest
    if low < -rounding or high > largest + rounding:
        scale = f"[0, {largest:g}]" if full_scale else "[0, 1]"
        raise UnreadableError(
            f"values are not in {scale}", f"they run from {low:g} to {high:g}; {_advise_scale(low, high)}"
        )
    volume: Volume = array.astype(np.float32)
    volume /= np.float32(largest)
    return volume


def _advise_scale(low: float, high: float) -> str:
    """Say how values outside [0, 1] come into it."""
    if -1 - OVERSHOOT <= low < 0 and high <= 1 + OVERSHOOT:
        if low <= -OVERSHOOT:
            return "values in [-1, 1] become intensities as (x + 1) / 2"
        return "clip them to [0, 1]"
    if low >= 0 and high <= 1 + OVERSHOOT:
        return "clip them to [0, 1]"
    if low >= 0:
        return f"`--full-scale {fit_scale(high)}`, or scale them to [0, 1]"
    return "scale them to [0, 1]: 0 is air, and 1 the upper end of the window"


def fit_scale(largest: float) -> int:
    """Find the full scale that values probably have: the next 2^n - 1."""
    bits = next((n for n in USUAL_BITS if largest <= 2**n - 1), None)
    return (1 << (bits or int(largest).bit_length())) - 1
