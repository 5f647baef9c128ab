"""Broken and hostile input: whatever the bytes are, a file is read or has a reason, in bounded time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from dbtbench.dicom.volume import read_volume
from dbtbench.errors import DBTBenchError, UnreadableError
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.bcs_dbt.tables import read_tables
from dbtbench.exchange.engine import ImportSettings
from dbtbench.runtime.pool import Pool

LIMIT_MB = 250
SECONDS = 30
FIXED = settings(
    derandomize="CI" in os.environ,
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Mutation = tuple[str, float, bytes]


@st.composite
def mutations(draw: st.DrawFn) -> list[Mutation]:
    """Changes of a file: what, where (a share of its length), and with which bytes."""
    kinds = st.sampled_from(["overwrite", "insert", "delete", "cut", "repeat", "header"])
    junk = st.binary(min_size=1, max_size=12) | st.sampled_from(
        [
            b"\xff" * 4,
            bytes(8),
            b"\xff\x4f",
            b"\xff\x51",
            b"\xff\x90",
            b"\xfe\xff\x00\xe0",
            b"\xff\xff\xff\x7f",
        ]
    )
    one = st.tuples(kinds, st.floats(0, 1, exclude_max=True), junk)
    return draw(st.lists(one, min_size=1, max_size=5))


def mutate(raw: bytes, changes: list[Mutation], header: int) -> bytes:
    """Apply changes; those of kind `header` fall before the pixels."""
    for kind, where, junk in changes:
        at = int(where * (min(header, len(raw)) if kind == "header" else len(raw)))
        if kind in ("overwrite", "header"):
            raw = raw[:at] + junk + raw[at + len(junk) :]
        elif kind == "insert":
            raw = raw[:at] + junk + raw[at:]
        elif kind == "delete":
            raw = raw[:at] + raw[at + 16 * len(junk) :]
        elif kind == "repeat":
            raw = raw[:at] + raw[max(at - 4096, 0) : at] + raw[at:]
        else:
            raw = raw[:at]
    return raw


@pytest.fixture(scope="module")
def seeds(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, int]]:
    """A good file in each transfer syntax: its bytes, and where its pixels begin."""
    source = pydicom.dcmread(next(iter(sorted(collection.rglob("*.dcm")))))
    frames, folder = source.pixel_array, tmp_path_factory.mktemp("seeds")
    source.save_as(folder / "j2k.dcm")
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.PixelData = frames.tobytes()
    source["PixelData"].VR = "OW"
    source["PixelData"].is_undefined_length = False
    source.save_as(folder / "raw.dcm")
    for syntax, plugin in ((JPEGLSLossless, "pyjpegls"), (RLELossless, "pydicom")):
        dataset = pydicom.dcmread(folder / "raw.dcm")
        dataset.compress(syntax, encoding_plugin=plugin)
        dataset.save_as(folder / f"{syntax.keyword}.dcm")
    source.PixelData = encapsulate([bytes(imagecodecs.ljpeg_encode(f, bitspersample=10)) for f in frames])
    source.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    source.save_as(folder / "sv1.dcm")
    raws = [file.read_bytes() for file in sorted(folder.iterdir())]
    return [(raw, raw.rindex(b"\xe0\x7f\x10\x00O")) for raw in raws]


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    """One process that reads all files: a crash breaks it, and memory that is not given back adds up."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        yield executor


@FIXED
@given(index=st.integers(0, 4), changes=mutations(), exact=st.booleans())
@example(index=0, changes=[("cut", 0.0, b"")], exact=True)
@example(index=0, changes=[("cut", 0.999, b"")], exact=False)
def test_a_mutated_file_is_read_or_has_a_reason(
    seeds: list[tuple[bytes, int]],
    worker: ProcessPoolExecutor,
    tmp_path: Path,
    index: int,
    changes: list[Mutation],
    exact: bool,
) -> None:
    raw, header = seeds[index]
    path = tmp_path / "mutated.dcm"
    path.write_bytes(mutate(raw, changes, header))
    try:
        volume = worker.submit(read_volume, path, "lcc", (4, 4, 4), exact=exact).result(SECONDS).volume
    except UnreadableError as error:
        reason = error.reason
    else:
        reason = "none: it is a volume"
        assert volume.shape == (4, 4, 4)
        assert np.isfinite(volume).all()
    assert reason
    status = worker.submit(Path.read_text, Path("/proc/self/status")).result(SECONDS)
    assert int(status.split("VmHWM:")[1].split()[0]) < LIMIT_MB * 1024


def test_an_import_of_many_mutated_files_ends_with_a_row_for_each(
    collection: Path, seeds: list[tuple[bytes, int]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(collection, tmp_path / "root"))
    rng = np.random.default_rng(0)
    labels, paths = (root / f"BCS-DBT-{kind}-train-v2.csv" for kind in ("labels", "file-paths"))
    for number in range(200):
        raw, header = seeds[number % len(seeds)]
        changes = [
            (str(rng.choice(["overwrite", "header", "delete", "cut"])), rng.random(), rng.bytes(6))
            for _ in range(rng.integers(1, 4))
        ]
        (root / f"{number}.dcm").write_bytes(mutate(raw, changes, header))
        with labels.open("a") as table:
            table.write(f"F{number},F{number},lcc,1,0,0,0\n")
        with paths.open("a") as table:
            table.write(f"F{number},F{number},lcc,{number}.dcm,\n")
    with Pool(2) as pool:
        report: dict[str, Any] = import_bcs_dbt(root, tmp_path / "d", ImportSettings(), pool).meta[
            "import_report"
        ]
    assert report["rows"] == 216
    assert report["imported"] + sum(report["rejected"].values()) == 216
    assert report["missing"] == 0
    assert report["imported"] >= 16
    assert "the process that read it died" not in report["rejected"]
    assert len(report["rejected"]) > 4


@FIXED
@given(kind=st.sampled_from(["labels", "file-paths", "boxes"]), changes=mutations())
def test_a_mutated_table_is_read_or_is_an_error_that_says_why(
    collection: Path, tmp_path: Path, kind: str, changes: list[Mutation]
) -> None:
    for table in collection.glob("*.csv"):
        raw = table.read_bytes()
        (tmp_path / table.name).write_bytes(mutate(raw, changes, 60) if kind in table.name else raw)
    hint = ""
    try:
        labels = set(read_tables(tmp_path).volumes["label"])
    except DBTBenchError as error:
        hint, labels = error.hint, {"unread"}
    assert hint or labels <= {"normal", "actionable", "benign", "cancer", ""}
