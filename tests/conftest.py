"""Fixtures that several rooms share."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from runpy import run_path
from types import ModuleType
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder

from dbtbench import leaderboard, plugins
from dbtbench.cli import main
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import DatasetWriter
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.leaderboard import Record
from dbtbench.metric import Metric
from dbtbench.metrics import froc
from dbtbench.phantom.anatomy import Breast, draw_breasts
from dbtbench.phantom.cohort import write_collection
from dbtbench.phantom.numbers import stream
from dbtbench.runtime.files import digest, write_json
from dbtbench.tasks.classification import Classification
from dbtbench.tasks.detection import Detection
from dbtbench.testing import make_toy_dataset
from dbtbench.workspace import Workspace

PRIMARY_METRIC = "mean_sensitivity_positive"
os.environ["LOKY_MAX_CPU_COUNT"] = "1"
"""A command without `--jobs` starts no workers: to import torch costs each of them more than its work."""


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., DBTDataset]:
    """`make_toy_dataset(path, patients, grid, seed)`."""
    return make_toy_dataset


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """Eight patients with four views each; half of the patients have a lesion in every view."""
    return make_toy_dataset(tmp_path_factory.mktemp("toy") / "toy")


def _write_synthetic(path: Path, real: DBTDataset, volumes: Any, **source: Any) -> DBTDataset:
    """Write a synthetic data set of these volumes, with views of `real`, and what is added to its source."""
    size = dict(zip(("slices", "rows", "columns"), real.grid, strict=True))
    with DatasetWriter(path, real.grid, len(volumes), {"synthetic": path.name}) as writer:
        for index, volume in enumerate(volumes):
            key = {"PatientID": f"s{index}", "StudyUID": f"s{index}", "View": real.cases["View"][index]}
            case = {**key, "label": "normal", "split": "train", **size, "pixel_mm": 7.0}
            writer.add(index, volume, {**case, "flipped": False, "file": ""}, [])
        described = {"kind": "synthetic", "generator": path.name, "version": 1, "run": "0" * 12, "recipe": {}}
        described |= {"data": real.identity, **source}
        meta = {
            "intensity": real.meta["intensity"],
            "source": described,
            "split": {"kind": "all for training"},
        }
        return writer.finish(meta, real.split_hash)


@pytest.fixture(scope="session")
def write_synthetic() -> Callable[..., DBTDataset]:
    """`write_synthetic(path, real, volumes, **source)`: a synthetic data set of these volumes."""
    return _write_synthetic


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom patients as a BCS-DBT collection: 16 DICOM files and three tables."""
    root = tmp_path_factory.mktemp("collection") / "phantom"
    write_collection(root, "tiny", 4, seed=1)
    return root


class Fork:
    """A fork of this process, where everything is imported already; as a program it would import for seconds.

    What a command may import, and what only a new process does, is tested on real ones: `tests/cli`,
    `tests/test_end_to_end.py`, `tests/runtime`.

    Args:
        act: what it does.
        words: its `sys.argv`.
        folder: where it works.
        environment: variables to be set.
    """

    def __init__(
        self, act: Callable[[], object], words: Iterable[object], folder: Path | None, **environment: object
    ) -> None:
        self.words = [str(word) for word in words]
        self._output = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        arguments = (act, folder, environment)
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=arguments)
        self.process.start()

    def _run(self, act: Callable[[], object], folder: Path | None, environment: dict[str, object]) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # torchrun leaves its own in this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        torch.set_num_threads(1)  # a fork has lost the threads of OpenMP, and would wait for them
        for number, file in enumerate(self._output, 1):
            os.dup2(file.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = open(os.devnull), *self._output  # noqa: PTH123, SIM115
        sys.argv = self.words
        os.environ.update({name: str(value) for name, value in environment.items()})
        if folder:
            os.chdir(folder)
        act()

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its exit code, or minus the signal that killed it, and what it said."""
        self.process.join(300)
        assert self.process.exitcode is not None
        for file in self._output:
            file.seek(0)
        out, err = (file.read() for file in self._output)
        return subprocess.CompletedProcess(self.words, self.process.exitcode, out, err)


@pytest.fixture(scope="session")
def _imported() -> None:
    """What commands import, imported here, so that their forks need not."""
    for name in ("monai", "torchio", "torch._dynamo", "sklearn", "zarr", "dbtbench.generators.ddpm"):
        import_module(name)


@pytest.fixture(scope="session")
def start_command(_imported: None) -> Callable[..., Fork]:
    """`start_command(*words, folder=None)`: `dbtbench WORDS` as a `Fork`; `wait()` for what it says."""
    return lambda *words, folder=None: Fork(main, ["dbtbench", *words], folder)


@pytest.fixture(scope="session")
def start_program(_imported: None) -> Callable[..., Fork]:
    """`start_program(file, *words, **environment)`: a program as a `Fork`."""

    def start(file: Path, *words: object, **environment: object) -> Fork:
        return Fork(partial(run_path, str(file), run_name="__main__"), [file, *words], None, **environment)

    return start


@pytest.fixture(scope="session")
def run_ranks(start_program: Callable[..., Fork]) -> Callable[..., str]:
    """`run_ranks(number, file, *words)`: a program's ranks as forks; what they said to stderr, in order.

    They find each other as on a cluster: torchrun's processes would all import torch and MONAI again.
    """

    def run(number: int, file: Path, *words: object) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
        sizes = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
        ranks = [start_program(file, *words, RANK=rank, **place, **sizes) for rank in range(number)]
        ended = [rank.wait() for rank in ranks]
        said = "".join(done.stderr for done in ended)
        assert all(done.returncode == 0 for done in ended), f"{[done.returncode for done in ended]}\n{said}"
        return said

    return run


@pytest.fixture(scope="session")
def breasts() -> list[Breast]:
    """Sixty left breasts of phantom patients."""
    return [draw_breasts(stream(seed))["l"] for seed in range(60)]


@pytest.fixture(scope="session")
def scattered(breasts: list[Breast]) -> Breast:
    """One of them, of density b."""
    return next(breast for breast in breasts if breast.density == "b")


@pytest.fixture
def register_tasks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`register_tasks(NAME=Class, …)`: tasks as another installed package brings them."""

    def register(**tasks: type) -> None:
        module = ModuleType("another_package")
        vars(module).update(tasks)
        monkeypatch.setitem(sys.modules, "another_package", module)
        points = [EntryPoint(name, f"another_package:{name}", "dbtbench.tasks") for name in tasks]
        monkeypatch.setattr(
            plugins, "entry_points", lambda group: points if group == "dbtbench.tasks" else []
        )

    return register


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


def _declare(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What a record says of its metrics: those of the built-in tasks as they are, others like `other`."""
    known = {metric.name: metric for metric in (*Detection.metrics, *Classification.metrics)}
    return {name: known.get(name, Metric(name, name, "higher")).describe() for name in names}


def _record(arm: str = "real", seed: int = 0, **changes: Any) -> dict[str, Any]:
    generator = arm.split(":")[0]
    synthetic = {"name": f"{generator}-d", "fingerprint": digest(arm), "generator": generator, "version": 1}
    synthetic |= {"run": "0123456789ab", "recipe": {"steps": 9}, "volumes": 24}
    real = generator in ("real", "oversample", "more-real")
    counts = {"patients": 10, "volumes": 40, "boxes": 10, "training_synthetic": 0 if real else 24}
    scores = changes.get("scores", {PRIMARY_METRIC: 0.5, "other": 1.0})
    return {
        **{"task": "detection", "version": 1, "primary": PRIMARY_METRIC, "recipe": {"steps": 250, "lr": 0.1}},
        **{"data": {"name": "d", "fingerprint": "a" * 64, "split_hash": "b" * 64}, "arm": arm},
        **{"augmentation": None if real else synthetic, "seed": seed},
        **{
            "scores": scores,
            "metrics": _declare(scores),
            "seconds": 1.5,
            "dbtbench": "0.1.0",
            "commit": None,
        },
        "counts": counts | {"training_real": 48 if generator == "more-real" else 12},
        **{"versions": {"torch": "2", "monai": "1"}, "device": "CPU"},
        **{"created": "2026-01-01T00:00:00+00:00", **changes},
    }


def _outcomes(found: int, patients: int = 10) -> pd.DataFrame:
    """The first `found` of ten patients' lesions are found, and there are two false positives."""
    rows: list[tuple[str, str, str, int, float]] = [
        (f"P{n}", f"S{n}", "lcc", 0, 0.9 if n < found else np.nan) for n in range(patients)
    ]
    rows += [(f"P{n}", f"S{n}", "lcc", -1, 0.4) for n in range(2)]
    return pd.DataFrame(rows, columns=["PatientID", "StudyUID", "View", "box", "Score"])


def _write_run(folder: Path, record: dict[str, Any], outcomes: pd.DataFrame | None = None) -> Path:
    """Write a run as `evaluate` does; with outcomes, the record's primary score is theirs."""
    if outcomes is not None:
        value = float(froc.mean_sensitivity(outcomes, np.ones((1, outcomes["PatientID"].nunique())))[0])
        record = record | {"scores": record["scores"] | {record["primary"]: value}}
    run: Path = folder / record["task"] / Record.model_validate(record).hash
    write_json(run / "run.json", record)
    if outcomes is not None:
        outcomes.to_csv(run / "outcomes.csv", index=False, lineterminator="\n")
    return run


@pytest.fixture(scope="session")
def make_record() -> Callable[..., dict[str, Any]]:
    """`make_record(arm, seed, **changes)`: a valid record of a run of detection."""
    return _record


@pytest.fixture(scope="session")
def make_outcomes() -> Callable[..., pd.DataFrame]:
    """`make_outcomes(found, patients)`: a tenth of mean sensitivity for each lesion found."""
    return _outcomes


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """`write_run(folder, record, outcomes=None)`: a finished run in `folder/TASK/HASH`."""
    return _write_run


@pytest.fixture(scope="session")
def board_readme() -> bytes:
    """A README file with the board's markers."""
    markers = "<!-- board -->\nold\n<!-- /board -->\ntext\n\n<!-- columns -->\n<!-- /columns -->\nend\n"
    return f"# Title\r\n\n{markers}".encode()


@pytest.fixture(scope="session")
def _board(tmp_path_factory: pytest.TempPathFactory, board_readme: bytes) -> Path:
    root = tmp_path_factory.mktemp("board")
    for arm, more in (("real", 0), ("ddpm", 2), ("oversample", 0), ("more-real", 3)):
        for seed in range(5):
            _write_run(root / "work" / "evaluations", _record(arm, seed), _outcomes(4 + seed % 3 + more))
    (root / "results").mkdir()
    (root / "results" / "README.md").write_bytes(board_readme)
    leaderboard.publish(Workspace(root / "work"), root / "results")
    return root


@pytest.fixture
def evaluated(_board: Path, tmp_path: Path) -> Workspace:
    """Five seeds of four arms; the ceiling finds three lesions more than `real`, ddpm two more."""
    shutil.copytree(_board / "work", tmp_path / "work")
    return Workspace(tmp_path / "work")


@pytest.fixture
def published(_board: Path, tmp_path: Path) -> Path:
    """These runs as published results, with `board_readme`."""
    shutil.copytree(_board / "results", tmp_path / "results")
    return tmp_path / "results"
