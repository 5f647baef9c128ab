"""Tables as teams and releases really write them: odd ones are scored by the official rule, and reported."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dbtbench.errors import UsageError
from dbtbench.submissions.tables import read_boxes, read_labels, read_predictions, team_names

ORACLE = Path(__file__).parents[1] / "oracles" / "dbtex" / "plain"
LABELS = pd.DataFrame({"PatientID": ["P"], "StudyUID": ["S"], "View": ["lcc"]})
HEADING = "PatientID,StudyUID,View,X,Width,Y,Height,Z,Depth,Score\n"

Notices = pytest.CaptureFixture[str]


def predictions(path: Path, text: str) -> pd.DataFrame:
    file = path / "team.csv"
    file.write_text(text)
    return read_predictions(file, LABELS)


def test_a_file_as_it_should_be_causes_no_notice(tmp_path: Path, capsys: Notices) -> None:
    assert len(predictions(tmp_path, HEADING + "P,S,lcc,1,2,3,4,5,6,0.5\n")) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("index", ["", "Unnamed: 0"])
def test_an_index_column_does_no_harm(tmp_path: Path, index: str) -> None:
    table = predictions(tmp_path, f"{index},{HEADING}0,P,S,lcc,1,2,3,4,5,6,0.5\n")
    assert table.iloc[0].tolist() == ["P", "S", "lcc", 1, 2, 3, 4, 5, 6, 0.5]


def test_views_in_upper_case_are_lowered_and_counted(tmp_path: Path, capsys: Notices) -> None:
    row = "P,S,{},1,2,3,4,5,6,0.5\n"
    table = predictions(tmp_path, HEADING + "".join(row.format(view) for view in ("LCC", "lcc", "Lcc")))
    assert table["View"].tolist() == ["lcc"] * 3
    assert "team.csv: 2 views in upper case are read as lower case" in capsys.readouterr().err


def test_a_negative_depth_is_kept_and_reported(tmp_path: Path, capsys: Notices) -> None:
    table = predictions(tmp_path, HEADING + "P,S,lcc,1,2,3,4,5,-1,0.5\nP,S,lcc,1,2,3,4,5,0,0.5\n")
    assert table["Depth"].tolist() == [-1, 0]
    assert "team.csv: 1 predictions have a Depth below 0" in capsys.readouterr().err


def test_predictions_on_volumes_that_the_labels_lack_are_kept_and_reported(
    tmp_path: Path, capsys: Notices
) -> None:
    rows = ["P,S,lcc,1,2,3,4,5,6,0.5\n", "P,S,xx,1,2,3,4,5,6,0.5\n"]
    assert len(predictions(tmp_path, HEADING + "".join(rows))) == 2
    assert "team.csv: 1 of 2 predictions are on volumes that the labels lack" in capsys.readouterr().err
    predictions(tmp_path, HEADING + rows[1])
    assert "team.csv: all predictions are on volumes" in capsys.readouterr().err


def test_boxes_of_the_first_release_are_refused(tmp_path: Path) -> None:
    old = tmp_path / "boxes.csv"
    pd.read_csv(ORACLE / "boxes.csv").drop(columns="VolumeSlices").to_csv(old, index=False)
    with pytest.raises(UsageError, match=r"boxes\.csv has no column VolumeSlices") as raised:
        read_boxes([old])
    assert "use v2" in raised.value.hint


def test_several_tables_are_read_as_one(tmp_path: Path) -> None:
    lines = (ORACLE / "labels.csv").read_text().splitlines()
    (tmp_path / "validation.csv").write_text("\n".join(lines[:41]))
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[41:]]))
    together = read_labels([tmp_path / "validation.csv", tmp_path / "test.csv"])
    pd.testing.assert_frame_equal(together, read_labels([ORACLE / "labels.csv"]))


def test_a_volume_in_two_tables_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"DBT-P00000 DBT-S00000 lcc is in .* and in .*labels\.csv"):
        read_labels([ORACLE / "labels.csv"] * 2)


def test_teams_are_named_after_their_files_and_the_folders_that_distinguish_them() -> None:
    assert team_names([Path("a/x.csv"), Path("a/y.csv")]) == ["x", "y"]
    assert team_names([Path("test/x.csv"), Path("val/x.csv"), Path("y.csv")]) == ["test/x", "val/x", "y"]
    deep = [Path(f"phase{n}/test/x.csv") for n in (1, 2)]
    assert team_names(deep) == ["phase1/test/x", "phase2/test/x"]


@pytest.mark.parametrize("other", ["x.csv", "../work/x.csv", "x.txt"])
def test_a_team_named_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UsageError, match="two files are called x"):
        team_names([Path("x.csv"), Path(other)])
