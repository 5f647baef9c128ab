"""`data check`: a sound data set passes, and each kind of damage is found by the one check that is for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.check import as_text, check_dataset
from dbtbench.data.dataset import GRID_BOX, DBTDataset, content_fingerprint
from dbtbench.data.writer import DatasetWriter
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.geometry.boxes import to_grid
from dbtbench.runs import add_digest

GRID = (4, 12, 10)
SIZE = (60, 480, 300)
VIEWS = ("lcc", "rmlo1")
REJECTED = [
    {"table": "labels", "PatientID": "P9", "StudyUID": "S9", "View": "lcc", "reason": "not downloaded"},
    {"table": "labels", "PatientID": "P8", "StudyUID": "S8", "View": "lcc", "reason": "file is cut"},
    {
        "table": "boxes",
        "PatientID": "P8",
        "StudyUID": "S8",
        "View": "lcc",
        "reason": "its volume was rejected",
    },
]
REPORT = {
    "rows": 10,
    "imported": 8,
    "rejected": {"file is cut": 1},
    "missing": 1,
    "boxes": {"rows": 3, "imported": 2, "rejected": {"its volume was rejected": 1}, "missing": 0},
}

COMPLETE = "dataset.json and the tables are complete"
FINGERPRINT = "the fingerprint is that of the tables"
NUMBERS = "every case has a number of its own, inside the store"
PATIENTS = "every patient is in one split"
WORDS = "names, words and distances are possible ones"
SPLIT = "the split has its hash"
DESCRIPTION = "dataset.json has its digest"
UNKNOWN = "2 × patient without a volume, and the split is not recorded: its hash was not compared"
SYNTHETIC = "synthetic volumes are for training only"
SIZES = "original sizes are positive"
PATHS = "no path leaves the collection"
OWNED = "every box belongs to its case"
IN_GRID = "boxes lie inside the grid"
NATIVE = "native boxes lie on the original volume"
AGREEMENT = "boxes agree with their native columns"
REPORTED = "the import report adds up"
VOLUMES = "every volume has its SHA-256"


def write(
    path: Path, source: str, boxes: dict[int, dict[str, Any]], size: tuple[int, int, int]
) -> DBTDataset:
    """Four patients with two views each; a box's row is given by its case."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, GRID, 10, {"test": path.name}) as writer:
        for index in range(8):
            patient = index // 2
            case = {
                "PatientID": f"P{patient}",
                "StudyUID": f"S{patient}",
                "View": VIEWS[index % 2],
                "label": "cancer" if index in boxes else "normal",
                "split": "train" if patient < 2 or source == "synthetic" else "test",
                **dict(zip(("slices", "rows", "columns"), size, strict=True)),
                "flipped": False,
                "file": f"P{patient}/{index}.dcm",
                "bytes": 1000 + index,
            }
            lesions = [boxes[index]] if index in boxes else []
            writer.add(index, rng.random(GRID).astype(np.float32), case, lesions)
        meta: dict[str, Any] = {"intensity": {"window": "dicom"}, "source": {"kind": source}, "split": {}}
        imported = source != "synthetic"
        return writer.finish(
            meta | ({"import_report": REPORT} if imported else {}), "hash", REJECTED if imported else []
        )


def lesion(slice_: int, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    native: dict[str, Any] = {"Subject": 0, "Slice": slice_, "X": x, "Y": y, "Width": width, "Height": height}
    native |= {"Class": "cancer", "AD": 0, "VolumeSlices": SIZE[0]}
    return {**native, **dict(zip(GRID_BOX, to_grid(native, SIZE, GRID), strict=True))}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported data set; the second of its boxes reaches over the edge of the image."""
    boxes = {1: lesion(30, 90, 120, 60, 80), 4: lesion(2, 280, -10, 40, 100)}
    return write(tmp_path_factory.mktemp("sound") / "sound", "bcs-dbt", boxes, SIZE).path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set: native size and grid are the same, a box has any extent along z."""
    box: dict[str, Any] = dict(zip(GRID_BOX, (0.0, 2.25, 3.5, 3.0, 6.75, 8.125), strict=True))
    box |= {"Subject": 0, "Slice": 1, "X": 3.5, "Y": 2.25, "Width": 4.625, "Height": 4.5}
    box |= {"Class": "cancer", "AD": 0, "VolumeSlices": 4}
    return write(tmp_path_factory.mktemp("drawn") / "drawn", "synthetic", {3: box}, GRID).path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def failed(path: Path) -> dict[str, list[str]]:
    return {check.name: check.first for check in check_dataset(path) if not check.ok}


def edit(path: Path, row: int, **cells: Any) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in cells.items():
        table.loc[row, column] = str(value)
    table.to_csv(path, index=False, lineterminator="\n")


def describe(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "dataset.json"
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(add_digest(meta)))


def seal(folder: Path) -> None:
    """Write the fingerprint of the tables as they are now."""
    texts = [(folder / name).read_text() for name in ("cases.csv", "boxes.csv")]
    describe(folder, lambda m: m.update(fingerprint=content_fingerprint(m["grid"], m["intensity"], *texts)))


def test_a_sound_data_set_passes_every_check(sound: Path, drawn: Path) -> None:
    for path in (sound, drawn):
        checks = check_dataset(path)
        assert [check.name for check in checks] == [
            COMPLETE, FINGERPRINT, SPLIT, DESCRIPTION, NUMBERS, PATIENTS, WORDS, SYNTHETIC, SIZES, PATHS,
            OWNED, IN_GRID, NATIVE, AGREEMENT, REPORTED, VOLUMES, *([UNKNOWN] if path == sound else []),
        ]  # fmt: skip
        assert all(check.ok for check in checks), as_text(path.name, checks)


def test_what_an_import_makes_passes_every_check(collection: Path, tmp_path: Path) -> None:
    made = import_bcs_dbt(collection, tmp_path / "imported", ImportSettings())
    assert failed(made.path) == {}


CASES: list[tuple[str, int, dict[str, Any], str, str]] = [
    ("cases.csv", 5, {"case": 6}, NUMBERS, "case 6 (P2 rmlo1)"),
    ("cases.csv", 5, {"case": -1}, NUMBERS, "case -1 (P2 rmlo1)"),
    ("cases.csv", 5, {"case": 10}, NUMBERS, "case 10 (P2 rmlo1): the store has 10 rows"),
    ("cases.csv", 7, {"split": "train"}, PATIENTS, "P3: in test (case 6) and train (case 7)"),
    ("cases.csv", 0, {"label": "Cancer"}, WORDS, "case 0 (P0 lcc): label 'Cancer'"),
    ("cases.csv", 0, {"View": "left"}, WORDS, "case 0 (P0 left): view 'left'"),
    ("cases.csv", 0, {"rows": 0}, SIZES, "case 0 (P0 lcc): 60 × 0 × 300"),
    ("cases.csv", 0, {"slices": -60}, SIZES, "case 0 (P0 lcc)"),
    ("cases.csv", 2, {"file": "/etc/passwd"}, PATHS, "case 2 (P1 lcc): /etc/passwd"),
    ("cases.csv", 2, {"file": "a/../../b.dcm"}, PATHS, "case 2 (P1 lcc)"),
    ("cases.csv", 2, {"file": "C:\\x.dcm"}, PATHS, "case 2 (P1 lcc)"),
    ("cases.csv", 2, {"file": "a\\..\\..\\x.dcm"}, PATHS, "case 2 (P1 lcc)"),
    ("cases.csv", 6, {"sha256": "0" * 64}, VOLUMES, "case 6 (P3 lcc): "),
    ("boxes.csv", 0, {"case": 9}, OWNED, "case 9 (P0 rmlo1): no such case"),
    ("boxes.csv", 0, {"PatientID": "P3"}, OWNED, "case 1 (P3 rmlo1): PatientID is P0, and P3"),
    ("boxes.csv", 0, {"View": "lcc"}, OWNED, "case 1 (P0 lcc): View is rmlo1, and lcc"),
    ("boxes.csv", 0, {"x1": 5.6}, AGREEMENT, "case 1 (P0 rmlo1)"),
    ("boxes.csv", 0, {"X": 120}, AGREEMENT, "case 1 (P0 rmlo1)"),
    ("boxes.csv", 0, {"Slice": 50}, AGREEMENT, "case 1 (P0 rmlo1)"),
    ("boxes.csv", 1, {"x1": 10.4}, IN_GRID, "case 4 (P2 lcc)"),
    ("boxes.csv", 1, {"y0": -0.4}, IN_GRID, "case 4 (P2 lcc)"),
    ("boxes.csv", 1, {"Slice": -1}, NATIVE, "case 4 (P2 lcc): Slice -1"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "row", "cells", "check", "offender"), CASES)
def test_damage_to_one_row_fails_one_check_that_names_it(
    copy: Path, file: str, row: int, cells: dict[str, Any], check: str, offender: str
) -> None:
    edit(copy / file, row, **cells)
    assert failed(copy).keys() >= {FINGERPRINT}
    seal(copy)
    found = failed(copy)
    assert found.keys() == {check}
    assert found[check][0].startswith(offender)


@pytest.mark.parametrize(
    "cells",
    [
        {"Slice": 60},
        {"X": 300},
        {"X": -40},
        {"Y": 480},
        {"Y": -100},
        {"Width": 0},
        {"Height": -5},
        {"X": "inf"},
    ],
)
def test_a_native_box_beside_the_volume_is_found_wherever_its_grid_box_lies(
    copy: Path, cells: dict[str, Any]
) -> None:
    edit(copy / "boxes.csv", 1, **cells)
    assert failed(copy)[NATIVE][0].startswith("case 4 (P2 lcc): Slice")


@pytest.mark.parametrize("cells", [{"y0": 5.0, "y1": 5.0}, {"z1": 0.0, "z0": 0.0}, {"x0": "inf"}, {"x1": -1}])
def test_a_box_in_the_grid_has_a_positive_size(copy: Path, cells: dict[str, Any]) -> None:
    edit(copy / "boxes.csv", 0, **cells)
    assert failed(copy)[IN_GRID][0].startswith("case 1 (P0 rmlo1): box [")


def test_an_unknown_split_is_found(copy: Path) -> None:
    for row in (6, 7):
        edit(copy / "cases.csv", row, split="tset")
    seal(copy)
    assert failed(copy) == {WORDS: ["case 6 (P3 lcc): split 'tset'", "case 7 (P3 rmlo1): split 'tset'"]}


def test_a_synthetic_volume_is_in_no_split_but_train(drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    for row in (0, 1):
        edit(copy / "cases.csv", row, split="test")
    seal(copy)
    assert failed(copy) == {SYNTHETIC: ["case 0 (P0 lcc): in test", "case 1 (P0 rmlo1): in test"]}


@pytest.mark.parametrize("cells", [{"X": 5.0}, {"Slice": 3, "z1": 2.0}])
def test_a_synthetic_box_holds_its_slice_and_has_its_native_place(
    drawn: Path, tmp_path: Path, cells: dict[str, Any]
) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    edit(copy / "boxes.csv", 0, **cells)
    seal(copy)
    assert failed(copy).keys() == {AGREEMENT}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m["import_report"].update(rows=11), "volumes: 11 rows, but 10 imported"),
        (
            lambda m: m["import_report"].update(imported=7, missing=2),
            "volumes: 7 imported, but cases.csv has 8",
        ),
        (lambda m: m["import_report"].update(rejected={"file is rot": 1}), "volumes: 0 × file is cut"),
        (lambda m: m["import_report"]["boxes"].update(rows=4, missing=1), "boxes: 1 × not downloaded"),
        (
            lambda m: m["import_report"]["boxes"].update(rows=2, imported=1),
            "boxes: 1 imported, but boxes.csv has 2",
        ),
    ],
)
def test_an_import_report_that_does_not_add_up_is_found(
    copy: Path, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    describe(copy, change)
    found = failed(copy)
    assert found.keys() == {REPORTED}
    assert found[REPORTED][0].startswith(problem)


@pytest.mark.parametrize("content", [None, "", "PatientID\nP1\n", "reason\n\xff", "table,reason\nlabels,\n"])
def test_rejected_csv_has_to_agree_with_the_import_report(copy: Path, content: str | None) -> None:
    file = copy / "rejected.csv"
    file.unlink()
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    assert failed(copy).keys() == {REPORTED}


def test_without_an_import_report_the_rejected_rows_are_counted(copy: Path) -> None:
    describe(copy, lambda m: m.pop("import_report"))
    assert failed(copy) == {}
    describe(copy, lambda m: m.update(rejected=5))
    assert failed(copy) == {REPORTED: ["dataset.json counts 5 rejected rows, rejected.csv has 3"]}


def test_cases_are_as_many_as_dataset_json_says(copy: Path) -> None:
    describe(copy, lambda m: m.update(cases=9))
    assert failed(copy) == {NUMBERS: ["dataset.json counts 9 cases, cases.csv has 8"]}


def test_the_fingerprint_covers_grid_and_window_too(copy: Path) -> None:
    describe(copy, lambda m: m.update(intensity={"window": "none"}))
    assert failed(copy).keys() == {FINGERPRINT}


@pytest.mark.parametrize("file", ["dataset.json", "cases.csv", "boxes.csv"])
def test_without_readable_tables_there_is_one_failure_that_says_why(copy: Path, file: str) -> None:
    (copy / file).write_text((copy / file).read_text()[:20])
    assert file in failed(copy)[COMPLETE][0]
    (copy / file).unlink()
    (check,) = check_dataset(copy)
    assert (check.name, check.ok) == (COMPLETE, False)


def test_a_patient_may_be_called_na_and_columns_may_be_added(copy: Path) -> None:
    edit(copy / "cases.csv", 6, PatientID="NA")
    edit(copy / "cases.csv", 7, PatientID="nan")
    for file in ("cases.csv", "boxes.csv"):
        table = pd.read_csv(copy / file, dtype=str, keep_default_na=False)
        extra = {"rows_x": 1, "slices_y": 2, "PatientID_of_case": "x", "split_x": "y", "own": 3, "a b": 4}
        extra |= {"slices": 0, "rows": 0, "split": "z"} if file == "boxes.csv" else {"X": 0, "x0": 0}
        table.assign(**extra).to_csv(copy / file, index=False, lineterminator="\n")
    seal(copy)
    assert failed(copy) == {}
    assert DBTDataset.open(copy).cases["PatientID"].tolist()[-2:] == ["NA", "nan"]


def test_nothing_that_a_terminal_would_obey_is_printed(copy: Path) -> None:
    edit(copy / "cases.csv", 0, PatientID="\x1b[2J\nok", label="?")
    text = as_text("copy", check_dataset(copy))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 16 + 1 + 2 + 3 + 1  # checks, two's problems, a notice, the summary


def test_the_command_prints_a_line_a_check_and_ends_with_1_when_one_fails(
    sound: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(sound, tmp_path / "datasets" / "mine"))
    words = ["data", "check", "--data", "mine", "--workspace", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.count("\nok  ") + 1 == 16
    assert done.stdout.endswith("mine: all checks passed\n")
    edit(copy / "cases.csv", 0, label="Cancer")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"FAILED  {WORDS}\n        case 0 (P0 lcc): label 'Cancer'\n" in done.stdout
    assert done.stdout.endswith("mine: 2 of 16 checks failed\n")
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert not found["ok"]
    assert {c["check"] for c in found["checks"] if not c["ok"]} == {FINGERPRINT, WORDS}
