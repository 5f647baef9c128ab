"""A board of submissions: the official numbers, and intervals that are right for fixed submissions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dbtbench.errors import UsageError
from dbtbench.metrics.froc import score_dbtex
from dbtbench.submissions.ranking import COLUMNS, score_submissions, summary

ORACLE = Path(__file__).parents[1] / "oracles" / "dbtex"
PLAIN = ORACLE / "plain"
MEAN = "mean_sensitivity_positive"


@pytest.fixture
def teams(tmp_path: Path) -> list[Path]:
    """A team, one that lacks the best half of the first's predictions, and a copy of the first."""
    table = pd.read_csv(PLAIN / "predictions.csv")
    worse = table[table["Score"] < table["Score"].median()]
    files = [tmp_path / f"{name}.csv" for name in ("alpha", "beta", "copy")]
    for file, predictions in zip(files, (table, worse, table), strict=True):
        predictions.to_csv(file, index=False)
    return files


def board(teams: list[Path], replicates: int = 500, seed: int = 0) -> pd.DataFrame:
    return score_submissions([PLAIN / "labels.csv"], [PLAIN / "boxes.csv"], teams, replicates, seed)


def test_the_best_stands_first_and_equals_share_a_rank(teams: list[Path]) -> None:
    table = board(teams)
    assert list(table.columns) == COLUMNS
    assert table["team"].tolist() == ["alpha", "copy", "beta"]
    assert table["rank"].tolist() == [1, 1, 3]
    assert board(teams[::-1]).equals(table)


def test_ties_are_broken_by_the_sensitivity_on_all_volumes(tmp_path: Path) -> None:
    table = pd.read_csv(PLAIN / "predictions.csv")
    boxes = pd.read_csv(PLAIN / "boxes.csv").set_index(["StudyUID", "View"]).index
    on_positive = table[table.set_index(["StudyUID", "View"]).index.isin(boxes)]
    files = [tmp_path / "all.csv", tmp_path / "careful.csv"]
    table.to_csv(files[0], index=False)
    on_positive.to_csv(files[1], index=False)
    ranked = board(files)
    assert ranked[MEAN].nunique() == 1
    assert ranked["team"].tolist() == ["careful", "all"]
    assert ranked["rank"].tolist() == [1, 2]


def test_the_paired_difference_of_equal_teams_is_nothing_but_nothing(teams: list[Path]) -> None:
    first, copy, beta = board(teams).to_dict("records")
    assert [copy[f"difference_{end}"] for end in ("to_first", "low", "high")] == [0, 0, 0]
    assert all(np.isnan(first[f"difference_{end}"]) for end in ("to_first", "low", "high"))
    assert beta["difference_to_first"] == beta[MEAN] - first[MEAN] < 0
    assert beta["difference_low"] < beta["difference_to_first"] < beta["difference_high"]


def test_pairing_makes_the_interval_of_a_difference_narrower(teams: list[Path], tmp_path: Path) -> None:
    table = pd.read_csv(teams[0])
    nearly = tmp_path / "nearly.csv"
    table[table["PatientID"] != table["PatientID"].iloc[0]].to_csv(nearly, index=False)
    _, second = board([teams[0], nearly]).to_dict("records")
    assert (
        second["difference_high"] - second["difference_low"] < second[f"{MEAN}_high"] - second[f"{MEAN}_low"]
    )


def test_an_interval_is_that_of_the_whole_official_score_with_patients_drawn_again(
    teams: list[Path],
) -> None:
    tables = [pd.read_csv(PLAIN / f"{name}.csv") for name in ("labels", "boxes", "predictions")]
    patients = tables[1]["PatientID"].unique()
    rows = [
        {patient: np.flatnonzero(table["PatientID"] == patient) for patient in patients} for table in tables
    ]
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(300):
        again = rng.choice(patients, len(patients))
        copies = []
        for table, of in zip(tables, rows, strict=True):
            copy = np.repeat(np.arange(len(again)), [len(of[patient]) for patient in again]).astype(str)
            part = table.iloc[np.concatenate([of[patient] for patient in again])].reset_index(drop=True)
            copies.append(part.assign(StudyUID=part["StudyUID"] + "-" + copy))
        drawn.append(score_dbtex(*copies)[MEAN])
    first = board(teams, 2000).iloc[0]
    # 300 draws place an end of the interval to about a tenth of its width.
    width = first[f"{MEAN}_high"] - first[f"{MEAN}_low"]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert first[f"{MEAN}_low"] == pytest.approx(low, abs=0.15 * width)
    assert first[f"{MEAN}_high"] == pytest.approx(high, abs=0.15 * width)


def test_the_same_seed_gives_the_same_board_and_another_seed_other_intervals(teams: list[Path]) -> None:
    table, again, other = board(teams), board(teams), board(teams, seed=1)
    assert table.equals(again)
    assert not table[f"{MEAN}_low"].equals(other[f"{MEAN}_low"])
    assert table[MEAN].equals(other[MEAN])


def test_a_team_without_predictions_scores_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("PatientID,StudyUID,View,X,Width,Y,Height,Z,Depth,Score\n")
    row = board([empty]).iloc[0]
    assert (row[MEAN], row[f"{MEAN}_high"], row["predictions"]) == (0, 0, 0)


def test_without_lesions_there_is_no_score(teams: list[Path], tmp_path: Path) -> None:
    none = tmp_path / "boxes.csv"
    none.write_text((PLAIN / "boxes.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(UsageError, match=r"boxes\.csv: no boxes"):
        score_submissions([PLAIN / "labels.csv"], [none], teams)


def test_boxes_of_another_split_are_an_error(teams: list[Path], tmp_path: Path) -> None:
    part = tmp_path / "labels.csv"
    part.write_text("\n".join((PLAIN / "labels.csv").read_text().splitlines()[:20]))
    with pytest.raises(UsageError, match="has boxes, but"):
        score_submissions([part], [PLAIN / "boxes.csv"], teams)


def test_the_summary_says_what_was_scored_and_what_the_intervals_are_worth(teams: list[Path]) -> None:
    title, _, heading, first, *_ = summary(board(teams)).splitlines()
    labels, boxes = pd.read_csv(PLAIN / "labels.csv"), pd.read_csv(PLAIN / "boxes.csv")
    assert title.startswith(f"3 submissions on {len(labels)} volumes, ")
    assert f"{len(boxes)} lesions of {boxes['PatientID'].nunique()} patients" in title
    assert heading.split()[:2] == ["rank", "team"]
    assert first.split()[:3] == ["1", "alpha", "0.596"]
    text = " ".join(summary(board(teams)).split())
    assert "resampled 500 times" in text
    assert "right for these predictions as they stand" in text
    assert "less the first's" not in summary(board(teams[:1]))
