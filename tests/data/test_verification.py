"""A data set that was changed after it was finished is refused where it is used, with the file's name."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import zarr
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.check import check_dataset
from dbtbench.data.dataset import DBTDataset, content_fingerprint, sizes
from dbtbench.data.verification import WITHOUT_VOLUMES, split_digest
from dbtbench.data.words import is_identifier
from dbtbench.errors import DBTBenchError, StaleError, explain_file_error
from dbtbench.runs import add_digest

Rows = list[list[str]]
SHARD = "c/0/0/0/0"


@pytest.fixture
def copy(toy: DBTDataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.path, tmp_path / "datasets" / "toy"))


def edit(file: Path, change: Callable[[Rows], object]) -> None:
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    change(rows)
    with file.open("w", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)


def put(column: str, text: str, line: int = 1) -> Callable[[Rows], object]:
    def change(rows: Rows) -> None:
        rows[line][rows[0].index(column)] = text

    return change


def describe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change dataset.json, and give it its digest again, so that something else has to show the change."""
    file = folder / "dataset.json"
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(add_digest(meta) if "sha256" in meta else meta))


def seal(folder: Path) -> None:
    """Write the digests of the tables as they are now, as somebody does who means to deceive."""
    cases = pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)
    texts = [(folder / name).read_text() for name in ("cases.csv", "boxes.csv")]

    def write(meta: dict[str, Any]) -> None:
        meta["fingerprint"] = content_fingerprint(meta["grid"], meta["intensity"], *texts)
        meta["split"]["hash"] = split_digest(dict(zip(cases["PatientID"], cases["split"], strict=True)))

    describe(folder, write)


EDITS: list[tuple[str, Callable[[Rows], object]]] = [
    ("cases.csv", put("split", "train", 32)),
    ("cases.csv", put("label", "benign")),
    ("cases.csv", put("label", "no label")),
    ("cases.csv", put("View", "rcc")),
    ("cases.csv", put("pixel_mm", "7.1")),
    ("cases.csv", put("pixel_mm", "")),
    ("cases.csv", put("sha256", "0" * 64)),
    ("cases.csv", lambda rows: rows.append(rows[-1])),
    ("cases.csv", lambda rows: rows.append(["99", *rows[-1][1:]])),
    ("cases.csv", lambda rows: rows.pop()),
    ("cases.csv", lambda rows: rows.insert(1, rows.pop(5))),
    ("cases.csv", lambda rows: rows.__setitem__(slice(None), [[*row, "x"] for row in rows])),
    ("boxes.csv", put("x1", "20.5")),
    ("boxes.csv", put("Class", "benign")),
    ("boxes.csv", put("Slice", "1")),
    ("boxes.csv", lambda rows: rows.pop(3)),
    ("boxes.csv", lambda rows: rows.append(rows[1])),
    ("boxes.csv", lambda rows: rows.clear()),
]


@pytest.mark.parametrize(("file", "change"), EDITS)
def test_an_edited_table_is_refused(copy: Path, file: str, change: Callable[[Rows], object]) -> None:
    edit(copy / file, change)
    with pytest.raises(StaleError, match=file.replace(".", r"\.")) as error:
        DBTDataset.open(copy)
    assert "data check" in error.value.hint
    assert any(not check.ok for check in check_dataset(copy))


@pytest.mark.parametrize("file", ["cases.csv", "boxes.csv"])
def test_a_table_that_is_gone_is_refused(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(StaleError, match=file):
        DBTDataset.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(grid=[8, 16, 64]),
        lambda meta: meta["intensity"].update(window="duke"),
        lambda meta: meta.update(fingerprint="0" * 64),
        lambda meta: meta["split"].update(hash="0" * 64),
        lambda meta: meta["split"][WITHOUT_VOLUMES].update(P999="test"),
    ],
)
def test_an_edited_description_is_refused(copy: Path, change: Callable[[Any], object]) -> None:
    describe(copy, change)
    with pytest.raises(StaleError, match=r"dataset\.json"):
        DBTDataset.open(copy)


def test_a_split_of_patients_without_volumes_is_whole_with_them(copy: Path) -> None:
    edit(copy / "cases.csv", lambda rows: [rows.pop() for _ in range(4)])
    patients = pd.read_csv(copy / "cases.csv").set_index("PatientID")["split"].to_dict()
    seal(copy)
    describe(copy, lambda meta: meta["split"].update(hash=split_digest({**patients, "P007": "test"})))
    with pytest.raises(StaleError, match="two splits"):
        DBTDataset.open(copy)
    describe(copy, lambda meta: meta["split"].update({WITHOUT_VOLUMES: {"P007": "test"}}))
    assert len(DBTDataset.open(copy)) == 28


ROW = "labels,{patient},S,lcc,x.dcm,1,not a DICOM file,\n"


@pytest.mark.parametrize(
    ("row", "patients"),
    [("", 0), (ROW.format(patient="P000"), 0), (ROW.format(patient="P999"), 1), ("boxes,P,S,lcc,,,x,\n", 0)],
    ids=["complete", "another volume of its patient", "a patient without volumes", "a box"],
)
def test_the_split_of_an_early_import_is_compared_where_it_is_known(
    copy: Path, row: str, patients: int
) -> None:
    report = {"rows": 32, "imported": 32, "rejected": {}, "missing": 0}
    describe(copy, lambda meta: meta.update(import_report={**report, "boxes": report}))
    describe(copy, lambda meta: meta["split"].pop(WITHOUT_VOLUMES))
    describe(copy, lambda meta: meta.pop("sha256"))
    with (copy / "rejected.csv").open("a") as file:
        file.write(row)
    assert DBTDataset.open(copy)
    describe(copy, lambda meta: meta["split"].update(hash="0" * 64))
    notices = [check.name for check in check_dataset(copy) if check.notice and "split" in check.name]
    if patients:
        assert DBTDataset.open(copy)
        assert notices[0].startswith("1 × patient without a volume")
        return
    assert not notices
    with pytest.raises(StaleError, match="two splits"):
        DBTDataset.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(name="other"),
        lambda meta: meta.update(identity="0" * 64),
        lambda meta: meta.update(cases=99),
        lambda meta: meta["source"].update(kind="synthetic"),
        lambda meta: meta["source"].update(version=2),
        lambda meta: meta["split"].update(seed=2),
        lambda meta: meta.update(import_report=None),
        lambda meta: meta.update(sha256="0" * 64),
    ],
)
def test_all_that_the_description_says_is_covered(copy: Path, change: Callable[[Any], object]) -> None:
    meta = json.loads((copy / "dataset.json").read_text())
    change(meta)
    (copy / "dataset.json").write_text(json.dumps(meta))
    with pytest.raises(StaleError, match=r"dataset\.json: it does not match its digest"):
        DBTDataset.open(copy)
    assert "dataset.json has its digest" in [check.name for check in check_dataset(copy) if not check.ok]
    describe(copy, lambda meta: meta.pop("sha256"))  # as one of an early version
    assert DBTDataset.open(copy).fingerprint


def swap(store: Path) -> None:
    array = zarr.open_array(store, mode="r+")
    array[:2] = np.asarray(array[:2])[::-1]


def flip_bit(store: Path) -> None:
    array = zarr.open_array(store, mode="r+")
    array[1, 0, 0, 0] = np.asarray(array[1, 0, 0, 0]) ^ 1


def cut(store: Path) -> None:
    shard = store / SHARD
    shard.write_bytes(shard.read_bytes()[:-100])


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda store: (store / SHARD).unlink(), SHARD),
    (cut, SHARD),
    (lambda store: (store / SHARD).write_bytes(b""), SHARD),
    (swap, SHARD),
    (flip_bit, SHARD),
    (lambda store: shutil.rmtree(store), ""),
    (lambda store: (store / "zarr.json").write_text("{"), ""),
]


def read_by_worker(data: DBTDataset) -> object:
    return list(DataLoader(cast(Any, data), 4, collate_fn=list, num_workers=1))


WAYS: dict[str, Callable[[DBTDataset], object]] = {
    "volumes": lambda data: data.volumes([1]),
    "all volumes": DBTDataset.volumes,
    "row": lambda data: data[1],
    "loop": list,
    "split": lambda data: data.select("train").volumes(),
    "monai": lambda data: data.to_monai()[1],
    "torchio": lambda data: cast(Any, data.to_torchio()[1])["image"].data,
    "pickled": lambda data: pickle.loads(pickle.dumps(data)).volumes([1]),
}


@pytest.mark.parametrize(("damage", "file"), DAMAGE)
def test_every_way_of_reading_compares_the_volume(
    copy: Path, damage: Callable[[Path], object], file: str
) -> None:
    data = DBTDataset.open(copy)
    for read in WAYS.values():
        assert read(data) is not None
    damage(copy / "volumes.zarr")
    for name, read in WAYS.items():
        with pytest.raises(StaleError, match=r"volumes\.zarr") as error:
            read(DBTDataset.open(copy))
        assert file in str(error.value), name


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.EIO, "the disk reports an error", "check the disk"),
        (errno.EMFILE, "too many files are open", "ulimit"),
        (errno.EACCES, "permission denied", "ls -ld"),
    ],
)
@pytest.mark.parametrize("name", ["dataset.json", "cases.csv", "boxes.csv", "zarr.json", "0"])
def test_what_the_system_refuses_is_no_damage(
    copy: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, message: str, hint: str
) -> None:
    usual = open

    def refuse(path: Any, *words: Any, **options: Any) -> Any:
        if Path(str(path)).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return usual(path, *words, **options)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    try:
        DBTDataset.open(copy).volumes([1])
        explained = None
    except DBTBenchError as error:
        explained = error
    except OSError as error:
        explained = explain_file_error(error)
    assert explained is not None
    assert explained.exit_code == 1
    assert message in str(explained)
    assert name in str(explained)
    assert hint in explained.hint


def test_a_loaders_worker_compares_the_volume(copy: Path) -> None:
    flip_bit(copy / "volumes.zarr")
    with pytest.raises(Exception, match=r"StaleError[\s\S]*volumes\.zarr"):
        read_by_worker(DBTDataset.open(copy).select("train"))


ESC = "\x1b]0;owned\x07"
WORDS: list[tuple[str, str, str]] = [
    ("cases.csv", "PatientID", "P\x1b[31m"),
    ("cases.csv", "PatientID", "../victim"),
    ("cases.csv", "PatientID", "a\\b"),
    ("cases.csv", "PatientID", "=1+1"),
    ("cases.csv", "PatientID", "\u202egpj"),
    ("cases.csv", "PatientID", "x" * 129),
    ("cases.csv", "PatientID", ""),
    ("cases.csv", "StudyUID", "S/1"),
    ("cases.csv", "View", "lcc/../../victim/keys"),
    ("cases.csv", "View", "LCC"),
    ("cases.csv", "label", ESC),
    ("cases.csv", "split", "tset"),
    ("cases.csv", "sha256", "Z" * 64),
    ("cases.csv", "pixel_mm", "-1"),
    ("cases.csv", "pixel_mm", "inf"),
    ("cases.csv", "pixel_mm", "1e300"),
    ("cases.csv", "pixel_mm", ESC),
    ("cases.csv", "rows", ESC),
    ("cases.csv", "case", "-1"),
    ("boxes.csv", "Class", ESC),
    ("boxes.csv", "PatientID", ESC),
    ("boxes.csv", "AD", ESC),
    ("boxes.csv", "x1", "inf"),
    ("boxes.csv", "X", "inf"),
    ("boxes.csv", "z0", "7.9"),
    ("boxes.csv", "x1", "33"),
]


@pytest.mark.parametrize(("file", "column", "text"), WORDS)
def test_a_cell_that_cannot_be_one_is_refused_under_right_digests_too(
    copy: Path, file: str, column: str, text: str
) -> None:
    edit(copy / file, put(column, text))
    seal(copy)
    with pytest.raises(DBTBenchError, match=file.replace(".", r"\.")) as error:
        DBTDataset.open(copy)
    assert "\x1b" not in str(error.value)
    assert "line 2" in str(error.value) or column == "case"
    assert any(not check.ok for check in check_dataset(copy))


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(name="toy" + ESC),
        lambda meta: meta.update(name="../toy"),
        lambda meta: meta.update(name=""),
        lambda meta: meta["intensity"].update(window=ESC),
        lambda meta: meta["source"].update(kind=ESC),
        lambda meta: meta["source"].update(generator="a/b"),
        lambda meta: meta["source"].update({ESC: 1}),
        lambda meta: meta["source"].update(recipe={"list": [1, ESC]}),
        lambda meta: meta["split"].update(kind="x" * 1001),
    ],
)
def test_a_name_or_a_text_that_cannot_be_one_is_refused(copy: Path, change: Callable[[Any], object]) -> None:
    describe(copy, change)
    for read in (DBTDataset.open, DBTDataset.description):
        with pytest.raises(DBTBenchError, match=r"dataset\.json: .* is not allowed there") as error:
            read(copy)
        assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("text", ["P1", "DBT-P00001", "1.2.840.113619", "Müller 3", "a" * 128, "NA", "x_1+y"])
def test_usual_identifiers_are_taken(text: str) -> None:
    assert is_identifier(text)


@pytest.mark.parametrize("mm", [1e-9, 1e9, float("inf"), float("nan"), -1, 0])
def test_no_import_stores_a_distance_that_opening_refuses(mm: float) -> None:
    found = sizes((8, 8, 8), (mm, mm, mm), (8, 8, 8))
    assert [found[name] for name in ("pixel_mm", "z_mm", "y_mm", "x_mm")] == [None] * 4


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "classic", "--n", "2"],
        ["evaluate", "--task", "realism"],
        ["data", "info", "--sheet", "OUT"],
        ["data", "export", "--format", "npz", "--out", "OUT"],
    ],
)
@pytest.mark.parametrize("damaged", ["cases.csv", "volumes.zarr"])
def test_every_verb_that_uses_it_ends_with_4_and_the_files_name(
    copy: Path, tmp_path: Path, words: list[str], damaged: str
) -> None:
    if damaged == "cases.csv":
        edit(copy / damaged, put("split", "train", 32))
    else:
        swap(copy / damaged)
    words = [str(tmp_path / "out.png") if word == "OUT" else word for word in words]
    done = CliRunner().invoke(app, [*words, "--workspace", str(tmp_path)])
    assert isinstance(done.exception, StaleError) or done.exit_code == 4, done.output
    assert damaged in str(done.exception) + done.stderr


def test_a_damaged_data_set_is_made_again_with_fresh_only(copy: Path, tmp_path: Path) -> None:
    words = ["generate", "classic", "--n", "2", "--name", "mine", "--workspace", str(tmp_path)]
    assert CliRunner().invoke(app, words).exit_code == 0
    made = tmp_path / "datasets" / "mine"
    whole = (made / "cases.csv").read_bytes()
    edit(made / "cases.csv", put("label", "normal"))
    edit(made / "cases.csv", put("label", "cancer", 2))
    edited = (made / "cases.csv").read_bytes()
    assert isinstance(CliRunner().invoke(app, words).exception, StaleError)
    assert (made / "cases.csv").read_bytes() == edited
    assert CliRunner().invoke(app, [*words, "--fresh"]).exit_code == 0
    assert (made / "cases.csv").read_bytes() == whole
