"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.data.dicom.writing import write_tomosynthesis
from dbtbench.data.writer import DatasetWriter, split_digest
from dbtbench.phantom.anatomy import Breast, draw_breasts
from dbtbench.phantom.cohort import write_collection

VIEWS = ("lcc", "lmlo", "rcc", "rmlo")


def write_toy(
    path: Path, patients: int = 8, grid: tuple[int, int, int] = (8, 32, 32), seed: int = 0
) -> DBTDataset:
    """Write a small data set without DICOM: half-elliptic breasts, every other patient with lesions.

    Native and grid coordinates are the same; a voxel is 7 mm wide.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = grid
    with DatasetWriter(path, grid, patients * 4, {"toy": [patients, *grid, seed]}) as writer:
        splits = {f"P{p:03d}": ("train", "train", "validation", "test")[p // 2 % 4] for p in range(patients)}
        z, y, x = np.mgrid[:depth, :height, :width] + 0.5
        for index in range(patients * 4):
            patient, view = f"P{index // 4:03d}", VIEWS[index % 4]
            from_chest = x if view[0] == "l" else width - x
            inside = ((y - height / 2) / (0.45 * height)) ** 2 + (from_chest / (0.75 * width)) ** 2 < 1
            volume = np.where(inside, 0.35 + 0.05 * rng.standard_normal(grid), 0.0)
            boxes = []
            if index // 4 % 2 == 0:
                centre = np.array([depth / 2, height / 2, width * (0.3 if view[0] == "l" else 0.7)])
                centre += rng.uniform(-1, 1, 3) * (1, height / 6, width / 8)
                half = np.array([1.0, 3.0, 3.0])
                r2 = sum(((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, half, strict=True))
                volume = volume + 0.4 * np.exp(-r2)
                low, high = centre - half, centre + half
                boxes = [
                    dict(zip(GRID_BOX, map(float, (*low, *high)), strict=True))
                    | {"Subject": 0, "Slice": int(centre[0]), "X": round(low[2]), "Y": round(low[1])}
                    | {"Width": 6, "Height": 6, "Class": "cancer", "AD": 0, "VolumeSlices": depth}
                ]
            case: dict[str, Any] = {
                "PatientID": patient,
                "StudyUID": f"S{patient}",
                "View": view,
                "label": "cancer" if boxes else "normal",
            }
            case |= {
                "split": splits[patient],
                "slices": depth,
                "rows": height,
                "columns": width,
                "pixel_mm": 7.0,
            }
            writer.add(index, volume.astype(np.float32), case | {"flipped": False, "file": ""}, boxes)
        meta = {"intensity": {"window": "none"}, "source": {"kind": "toy"}, "split": {"kind": "toy"}}
        return writer.finish(meta, split_digest(splits))


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., DBTDataset]:
    """`write_toy(path, patients, grid, seed)`."""
    return write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """Eight patients with four views each; half of the patients have a lesion in every view."""
    return write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom patients as a BCS-DBT collection: 16 DICOM files and three tables."""
    root = tmp_path_factory.mktemp("collection") / "phantom"
    write_collection(root, "tiny", 4, seed=1)
    return root


@pytest.fixture(scope="session")
def breasts() -> list[Breast]:
    """Sixty left breasts of phantom patients."""
    return [draw_breasts(np.random.default_rng(seed))["l"] for seed in range(60)]


@pytest.fixture(scope="session")
def scattered(breasts: list[Breast]) -> Breast:
    """One of them, of density b."""
    return next(breast for breast in breasts if breast.density == "b")


def _write_dicom(path: Path, frames: Any, **changes: Any) -> Path:
    arguments: dict[str, Any] = {"view": "lcc", "patient_id": "P", "study_id": "S", "pixel_mm": (0.4, 0.1)}
    arguments |= {"slice_mm": 1.5, "window": (500, 600), "uid_seed": "test"}
    write_tomosynthesis(path, frames, **arguments | changes)
    return path


def _change_dicom(file: Path, change: Callable[[pydicom.Dataset], object]) -> Path:
    ds = pydicom.dcmread(file)
    change(ds)
    ds.save_as(file)
    return file


def _compress_frame(frame: Any, syntax: str, bits: int) -> bytes:
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return bytes(imagecodecs.ljpeg_encode(frame, bitspersample=bits))
    rows, columns = frame.shape
    options: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
    }
    options |= {"photometric_interpretation": "MONOCHROME2", "pixel_representation": 0, "bits_allocated": 16}
    plugin = "pyjpegls" if syntax == uid.JPEGLSLossless else "pylibjpeg"
    return get_encoder(syntax).encode(frame, bits_stored=bits, encoding_plugin=plugin, **options)


def _store_dicom(file: Path, frames: Any, syntax: uid.UID, bits: int = 10, fragments: int = 1) -> Path:
    """Store a file's frames in another transfer syntax."""
    ds = pydicom.dcmread(file)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed:
        encoded = [_compress_frame(frame, syntax, bits) for frame in frames]
        ds.PixelData = encapsulate(encoded, fragments_per_frame=fragments)
        ds["PixelData"].VR = "OB"
    else:
        ds.PixelData = frames.astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
        ds["PixelData"].VR = "OW"
    ds["PixelData"].is_undefined_length = syntax.is_compressed
    for element in ds.iterall():  # read all values, so that they are written in the other byte order
        assert element.tag
    pydicom.dcmwrite(
        file,
        ds,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        force_encoding=True,
    )
    return file


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """`write_dicom(path, frames, **changes)`: a left breast's file, 1.5 × 0.4 × 0.1 mm, window 500 ± 300."""
    return _write_dicom


@pytest.fixture(scope="session")
def change_dicom() -> Callable[..., Path]:
    """`change_dicom(file, change)`: call `change` on the data set and write it again."""
    return _change_dicom


@pytest.fixture(scope="session")
def compress_frame() -> Callable[..., bytes]:
    """`compress_frame(frame, syntax, bits)`: one frame's bytes."""
    return _compress_frame


@pytest.fixture(scope="session")
def store_dicom() -> Callable[..., Path]:
    """`store_dicom(file, frames, syntax, bits=10, fragments=1)`: other frames, in another transfer syntax."""
    return _store_dicom


@pytest.fixture
def frames() -> Any:
    """Noise of 10 bits, at the left edge only: a left breast."""
    values = np.random.default_rng(0).integers(0, 1024, (5, 40, 36)).astype(np.uint16)
    values[:, :, -3:] = 0
    return values


@pytest.fixture
def file(tmp_path: Path, frames: Any) -> Path:
    """A file of these frames."""
    return _write_dicom(tmp_path / "volume.dcm", frames)
