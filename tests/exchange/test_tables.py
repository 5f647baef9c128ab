"""The checks of the tables that a reader hands to the import engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.dataset import NATIVE_BOX
from dbtbench.data.schema import NO_LABEL, NOT_DOWNLOADED
from dbtbench.exchange.locating import LEAVES, SHARED, locate_files
from dbtbench.exchange.tables import Tables, check_tables

BOX: dict[str, Any] = {"PatientID": "P0", "StudyUID": "S", "View": "lcc", "Class": "cancer"}
BOX |= {"Slice": 1, "X": 2, "Y": 3, "Width": 4, "Height": 5}


def volumes(n: int = 2, **columns: Any) -> pd.DataFrame:
    rows = [{"PatientID": f"P{i}", "StudyUID": "S", "View": "lcc", "label": "normal"} for i in range(n)]
    return pd.DataFrame(rows).assign(file=[f"{i}.dcm" for i in range(n)]).assign(**columns)


def check(table: pd.DataFrame, *boxes: dict[str, Any]) -> Tables:
    return check_tables(table, pd.DataFrame(boxes or [BOX])[: len(boxes)], "digest")


def test_columns_that_may_be_left_out_get_their_usual_values() -> None:
    tables = check(volumes(), BOX)
    assert tables.volumes[["split", "reason", "detail"]].to_numpy().tolist() == [["", "", ""]] * 2
    box = tables.boxes.iloc[0]
    assert box[NATIVE_BOX[:6]].tolist() == [0, 1, 2, 3, 4, 5]
    assert (box["AD"], box["reason"]) == (0, "")
    assert np.isnan(box["VolumeSlices"])
    assert tables.boxes_displayed


def test_tables_without_boxes_are_tables() -> None:
    assert check(volumes()).boxes.empty


@pytest.mark.parametrize(
    ("split", "reasons"),
    [
        (["", ""], ["", ""]),
        (["train", "test"], ["", ""]),
        (["train", "holdout"], ["", "not a split"]),
        (["reserve", "test"], ["not a split", ""]),
        (["train", ""], ["", "not a split"]),
    ],
)
def test_a_split_is_one_of_the_three_or_there_is_none(split: list[str], reasons: list[str]) -> None:
    assert check(volumes(split=split)).volumes["reason"].tolist() == reasons


def test_a_reason_of_the_reader_is_kept() -> None:
    tables = check(volumes(label="lump", reason=["blurred", ""], detail=["by eye", ""]))
    assert tables.volumes[["reason", "detail"]].to_numpy().tolist() == [
        ["blurred", "by eye"],
        ["not a label", "lump"],
    ]


def test_a_box_needs_a_volume_and_counts_once() -> None:
    boxes = check(volumes(), BOX, BOX, BOX | {"PatientID": "P9"}).boxes
    assert boxes["reason"].tolist() == ["", "duplicate row", NO_LABEL]


def test_files_are_found_below_the_folder_only(tmp_path: Any) -> None:
    (tmp_path / "root").mkdir()
    for name in ("root/0.dcm", "secret.dcm"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "root" / "link.dcm").symlink_to(tmp_path / "secret.dcm")
    names = ["0.dcm", ".\\0.dcm", "../secret.dcm", "/0.dcm", "link.dcm", "1.dcm", "", "\0"]
    found = locate_files(tmp_path / "root", check(volumes(8, file=names)).volumes)
    expected = [SHARED, SHARED, LEAVES, LEAVES, LEAVES, NOT_DOWNLOADED, "no file is named", NOT_DOWNLOADED]
    assert found["reason"].tolist() == expected
    assert found["file"].tolist() == ["0.dcm", "0.dcm"] + [""] * 6
    assert found["bytes"].tolist() == [5, 5] + [-1] * 6
    assert found["detail"].tolist()[2] == "../secret.dcm"
