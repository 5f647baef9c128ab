"""`data info`: the counts of a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.dataset import SPLITS, DBTDataset
from dbtbench.data.summary import as_text, report_lines, summarise
from dbtbench.errors import DBTBenchError

REPORT: dict[str, Any] = {
    "rows": 22032,
    "imported": 20991,
    "rejected": {"not a Breast Tomosynthesis image": 29, "the codestream of a frame is cut or corrupt": 12},
    "missing": 1000,
    "boxes": {"rows": 435, "imported": 400, "rejected": {"its volume was rejected": 5}, "missing": 30},
}


@pytest.fixture
def copy(toy: DBTDataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.path, tmp_path / "datasets" / "toy"))


def edited(folder: Path, **changes: Any) -> DBTDataset:
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return DBTDataset.read(folder)


def test_counts_by_split_class_and_view_add_up_to_the_tables(toy: DBTDataset) -> None:
    summary = summarise(toy)
    assert summary["volumes"] == len(toy) == sum(s["volumes"] for s in summary["splits"].values())
    for split in SPLITS:
        part, counts = toy.select(split), summary["splits"][split]
        assert counts["volumes"] == len(part)
        assert counts["patients"] == len(set(part.cases["PatientID"]))
        assert counts["cancer"] == (part.cases["label"] == "cancer").sum()
        assert counts["normal"] + counts["cancer"] == counts["volumes"]
        assert counts["boxes"] == len(part.boxes)
        assert counts["volumes_with_boxes"] == part.boxes["case"].nunique()
        for view, by_split in summary["views"].items():
            assert by_split[split] == (part.cases["View"] == view).sum()
    assert summary["views"].keys() == set(toy.cases["View"])


def test_several_boxes_of_one_volume_are_one_volume_with_boxes(copy: Path) -> None:
    boxes = pd.read_csv(copy / "boxes.csv")
    pd.concat([boxes, boxes[boxes["case"] == 0]]).to_csv(copy / "boxes.csv", index=False)
    counts = summarise(DBTDataset.read(copy))["splits"]["train"]
    assert (counts["boxes"], counts["volumes_with_boxes"]) == (9, 8)


def test_the_import_report_is_shown_row_by_row(copy: Path) -> None:
    dataset = edited(copy, import_report=REPORT)
    assert summarise(dataset)["import_report"] == REPORT
    text = as_text(summarise(dataset))
    assert "volumes: 22,032 rows = 20,991 imported + 41 rejected + 1,000 not downloaded" in text
    assert "  rejected: 12 × the codestream of a frame is cut or corrupt" in text
    assert "boxes: 435 rows = 400 imported + 5 rejected + 30 not downloaded" in text
    assert "\n".join(report_lines(REPORT)) in text


def test_a_data_set_without_an_import_report_shows_what_was_rejected(copy: Path) -> None:
    (copy / "rejected.csv").write_text(
        "PatientID,StudyUID,View,file,reason\nP9,S9,lcc,a.dcm,file not found\nP9,S9,rcc,,file not found\n"
    )
    summary = summarise(DBTDataset.open(copy))
    assert summary["import_report"] is None
    assert summary["rejected"] == {"file not found": 2}
    assert "  rejected: 2 × file not found" in as_text(summary)


def test_rejected_boxes_are_not_counted_as_volumes(copy: Path) -> None:
    (copy / "rejected.csv").write_text("table,PatientID,reason\nboxes,P1,left\nlabels,P2,right\n")
    assert summarise(DBTDataset.open(copy))["rejected"] == {"right": 1}


def test_a_missing_rejected_csv_means_that_nothing_was_rejected(copy: Path) -> None:
    (copy / "rejected.csv").unlink()
    summary = summarise(DBTDataset.open(copy))
    assert summary["rejected"] == {}
    assert "rejected:" not in as_text(summary)


def test_an_unreadable_rejected_csv_is_named(copy: Path) -> None:
    (copy / "rejected.csv").write_text("table,PatientID\nlabels,P1\n")
    with pytest.raises(DBTBenchError, match=r"rejected\.csv has no column reason"):
        summarise(DBTDataset.open(copy))


def test_window_source_and_split_are_shown(copy: Path) -> None:
    data = {"name": "duke", "fingerprint": "f" * 64, "split_hash": "e" * 64}
    source = {
        "kind": "synthetic",
        "generator": "ddpm",
        "version": 2,
        "recipe": {"steps": 9},
        "data": data,
        "seed": 3,
    }
    summary = summarise(edited(copy, source=source, intensity={"window": "duke", "resample": "area"}))
    text = as_text(summary)
    assert "synthetic, generator ddpm, version 2, data duke, seed 3" in text
    assert "window duke, resample area (bimodality depends on this)" in text
    assert summary["source"] == source


@pytest.mark.parametrize("times", [1, 700])
def test_the_text_fits_80_columns(copy: Path, times: int) -> None:
    cases = pd.read_csv(copy / "cases.csv")
    views = ["lcc", "lcc1", "lcc2", "lmlo1", "rcc3", "rmlo12"]
    many = pd.concat([cases.assign(View=view) for view in views] * times)
    many.assign(case=range(len(many))).to_csv(copy / "cases.csv", index=False)
    source = {"kind": "bcs-dbt", "tables": "a" * 64, "files": "b" * 64}
    intensity = {"window": "dicom", "resample": "torchio", "exact": False}
    text = as_text(summarise(edited(copy, import_report=REPORT, source=source, intensity=intensity)))
    lines = [line for line in text.splitlines() if not line.startswith("in ")]
    assert max(map(len, lines)) <= 80
    assert f"{192 * times:,}" in text


def test_the_command_prints_text_or_json_and_draws_a_sheet(copy: Path, tmp_path: Path) -> None:
    words = ["data", "info", "--data", "toy", "--workspace", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.startswith("toy: 32 volumes of 8 × 32 × 32")
    sheet = tmp_path / "pictures" / "toy.png"
    done = CliRunner().invoke(app, [*words, "--json", "--sheet", str(sheet)])
    assert json.loads(done.stdout) == summarise(DBTDataset.open(copy))
    assert sheet.read_bytes().startswith(b"\x89PNG")
