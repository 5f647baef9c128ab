"""Opening a data set whose files are cut, empty or wrong: the error names file, column and line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError

REPORT = {"rows": 1, "imported": 1, "rejected": {}, "missing": 0}


@pytest.fixture
def copy(toy: DBTDataset, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(toy.path, tmp_path / "copy"))
    meta = json.loads((folder / "dataset.json").read_text())
    meta["import_report"] = REPORT | {"boxes": REPORT}
    del meta["sha256"]  # as in an early version
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def without(column: str) -> Callable[[str], str]:
    def cut(text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        place = lines[0].index(column)
        return "\n".join(",".join([*line[:place], *line[place + 1 :]]) for line in lines) + "\n"

    return cut


BROKEN: list[tuple[str, Callable[[str], str], str]] = [
    ("dataset.json", lambda text: "", "dataset.json"),
    ("dataset.json", lambda text: text[:100], "dataset.json: Invalid JSON"),
    ("dataset.json", lambda text: "[]", "dataset.json: Input should be an object"),
    ("dataset.json", lambda text: "[" * 100_000, "dataset.json"),
    ("dataset.json", lambda text: text.replace('"format": 1', '"format": 2'), "dataset.json: format"),
    ("dataset.json", lambda text: text.replace('"grid"', '"gird"'), "dataset.json: grid"),
    ("dataset.json", lambda text: text.replace('"kind"', '"kin"'), "dataset.json: source.kind"),
    ("dataset.json", lambda text: re.sub(r"(grid\W+)", r"\g<1>" + "9" * 400, text), "dataset.json: grid"),
    (
        "dataset.json",
        lambda text: text.replace('"without_volumes": {', '"without_volumes": 1, "x": {'),
        "dataset.json: split.without_volumes",
    ),
    ("dataset.json", lambda text: text.replace('"missing": 0', '"missing": -1'), "import_report.missing"),
    ("cases.csv", lambda text: "", "cases.csv"),
    ("cases.csv", lambda text: text[:500], "cases.csv, line"),
    ("cases.csv", lambda text: text.replace("\n1,", "\none,"), "line 3, column case: 'one'"),
    ("cases.csv", lambda text: text.replace(",32,", ",32.5,", 1), "line 2, column rows: '32.5'"),
    ("cases.csv", lambda text: text.replace(",32,", ",1e99,", 1), "cases.csv, line 2, column rows"),
    ("cases.csv", lambda text: text.replace("\n3,P000", "\n3,"), "line 5, column PatientID: nothing"),
    ("cases.csv", without("split"), "cases.csv has no column split"),
    ("cases.csv", without("sha256"), "cases.csv has no column sha256"),
    ("cases.csv", lambda text: text + ",".join("x" * 40) + "\n", "cases.csv"),
    ("cases.csv", lambda text: text + '"', "cases.csv"),
    ("cases.csv", lambda text: text.replace("\n", ",,\n").replace(",,\n", "\n", 1), "cases.csv"),
    ("boxes.csv", lambda text: "", "boxes.csv"),
    ("boxes.csv", lambda text: "<html>\n", "boxes.csv has no column case"),
    ("boxes.csv", without("x1"), "boxes.csv has no column x1"),
    ("boxes.csv", lambda text: text.replace(",6,6,", ",wide,6,"), "line 2, column Width: 'wide'"),
    ("boxes.csv", lambda text: text.replace(",6,6,", ",nan,6,"), "boxes.csv, line 2, column Width: 'nan'"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage", "problem"), BROKEN)
def test_a_table_that_cannot_be_read_is_named_with_its_column(
    copy: Path, file: str, damage: Callable[[str], str], problem: str
) -> None:
    text = (copy / file).read_text()
    (copy / file).write_text(damage(text))
    assert damage(text) != text
    with pytest.raises(DBTBenchError, match="is not a data set") as error:
        DBTDataset.open(copy)
    assert problem in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize("file", ["dataset.json", "cases.csv", "boxes.csv"])
@pytest.mark.parametrize("kind", ["bytes", "gone", "folder"])
def test_what_is_no_text_or_no_file_is_named(copy: Path, file: str, kind: str) -> None:
    (copy / file).write_bytes(b"\xff\xfe\x00,\n\x00")
    if kind != "bytes":
        (copy / file).unlink()
    if kind == "folder":
        (copy / file).mkdir()
    with pytest.raises(DBTBenchError, match=file.replace(".", r"\.")):
        DBTDataset.open(copy)


def test_columns_keep_the_types_that_they_were_written_with(toy: DBTDataset) -> None:
    kinds: dict[str, Any] = toy.cases.dtypes.to_dict() | toy.boxes.dtypes.to_dict()
    assert {name: kinds[name].kind for name in ("case", "rows", "pixel_mm", "x1", "X")} == {
        "case": "i", "rows": "i", "pixel_mm": "f", "x1": "f", "X": "i"
    }  # fmt: skip


def test_a_data_set_without_boxes_has_an_empty_table_of_numbers(copy: Path) -> None:
    lines = (copy / "boxes.csv").read_text().splitlines()
    (copy / "boxes.csv").write_text(lines[0] + "\n")
    dataset = DBTDataset.read(copy)
    assert dataset.boxes_of(0).shape == (0, 6)
    assert dataset.boxes["x1"].dtype.kind == "f"
    assert dataset.boxes["case"].dtype.kind == "i"


def test_a_report_under_its_earlier_name_is_read_and_checked(copy: Path) -> None:
    file = copy / "dataset.json"
    present = DBTDataset.open(copy).meta
    text = file.read_text().replace('"import_report"', '"account"')
    file.write_text(text)
    assert DBTDataset.open(copy).meta == present
    file.write_text(text.replace('"missing": 0', '"missing": -1'))
    with pytest.raises(DBTBenchError, match=r"dataset\.json: .*account\.missing"):
        DBTDataset.open(copy)
