"""`dbtbench score` as a person, a program and a script meet it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench.cli import app
from dbtbench.errors import UsageError

ORACLE = Path(__file__).parents[1] / "oracles" / "dbtex"
OFFICIAL: dict[str, dict[str, float]] = json.loads((ORACLE / "official_outputs.json").read_text())

Output = pytest.CaptureFixture[str]


def score(case: str, *arguments: str | Path, files: list[Path] | None = None) -> None:
    tables = ["--labels", ORACLE / case / "labels.csv", "--boxes", ORACLE / case / "boxes.csv"]
    words = [*tables, *arguments, *(files or [ORACLE / case / "predictions.csv"])]
    app(args=["score", *map(str, words)], standalone_mode=False)


def printed(capsys: Output) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize("case", OFFICIAL)
def test_gives_the_official_numbers_by_their_official_names(case: str, capsys: Output) -> None:
    score(case, "--json", "--replicates", "10")
    (row,) = printed(capsys)
    assert {name: row[name] for name in OFFICIAL[case]} == pytest.approx(OFFICIAL[case], rel=0, abs=1e-12)


def test_views_in_upper_case_score_as_if_they_were_not(tmp_path: Path, capsys: Output) -> None:
    upper = tmp_path / "predictions.csv"
    table = pd.read_csv(ORACLE / "plain" / "predictions.csv")
    table.assign(View=table["View"].str.upper()).to_csv(upper)
    score("plain", "--json", "--replicates", "10", files=[upper])
    (row,) = printed(capsys)
    assert row["mean_sensitivity_positive"] == pytest.approx(OFFICIAL["plain"]["mean_sensitivity_positive"])


def test_json_has_null_where_there_is_no_number(capsys: Output) -> None:
    score("no_hits", "--json", "--replicates", "10")
    (row,) = printed(capsys)
    assert row["difference_to_first"] is None
    assert (row["rank"], row["team"], row["replicates"]) == (1, "predictions", 10)


def test_out_writes_the_same_board_as_csv(tmp_path: Path, capsys: Output) -> None:
    copy = shutil.copyfile(ORACLE / "ties" / "predictions.csv", tmp_path / "=copy.csv")
    files, out = [ORACLE / "ties" / "predictions.csv", copy], tmp_path / "new" / "board.csv"
    score("ties", "--json", "--replicates", "10", "--out", out, files=files)
    rows = printed(capsys)
    board = pd.read_csv(out)
    assert board["team"].tolist() == ["'=copy", "predictions"]
    for number, row in enumerate(rows):
        for name in row.keys() - {"team"}:
            assert row[name] == board[name][number] or (row[name] is None and pd.isna(board[name][number]))
    first = out.read_bytes()
    score("ties", "--replicates", "10", "--out", out, files=files)
    assert out.read_bytes() == first
    assert capsys.readouterr().out.endswith(f"written: {out}\n")


@pytest.mark.parametrize("name", [".", "predictions.csv"])
def test_nothing_that_is_there_is_written_over(tmp_path: Path, name: str) -> None:
    given = shutil.copyfile(ORACLE / "plain" / "predictions.csv", tmp_path / "predictions.csv")
    before = given.read_bytes()
    with pytest.raises(UsageError, match=r"--out .* is "):
        score("plain", "--out", tmp_path / name, files=[given])
    assert given.read_bytes() == before


def test_a_bad_cell_is_an_error_that_names_it(tmp_path: Path, capsys: Output) -> None:
    bad = tmp_path / "team.csv"
    lines = (ORACLE / "plain" / "predictions.csv").read_text().splitlines()
    bad.write_text("\n".join([*lines[:7], lines[7].rpartition(",")[0] + ",high"]))
    with pytest.raises(UsageError, match=r"team\.csv, line 8, column Score: 'high' where a number is needed"):
        score("plain", files=[bad])
    assert capsys.readouterr().out == ""
