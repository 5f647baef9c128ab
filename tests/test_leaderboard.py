from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.errors import MissingError, StaleError
from dbtbench.files import write_json
from dbtbench.workspace import Workspace


def record(arm: str, seed: int, value: float | None, **changes: Any) -> dict[str, Any]:
    augmentation = (
        None if arm == "none" else {"name": arm, "fingerprint": f"f-{arm}", "generator": arm, "volumes": 9}
    )
    return {
        **{
            "task": "detection",
            "version": 1,
            "primary": "mean",
            "recipe": {"steps": 1},
            "arm": arm,
            "seed": seed,
        },
        **{"data": {"name": "d", "fingerprint": "f", "split_hash": "s"}, "augmentation": augmentation},
        **{"scores": {"mean": value, "other": 1.0}, "counts": {"patients": 2, "volumes": 8, "boxes": 3}},
        **{"seconds": 1.5, "dbtbench": "0", "commit": None, "versions": {"torch": "t", "monai": "m"}},
        **{"device": "CPU", "created": "2026-01-01T00:00:00+00:00"},
        **changes,
    }


def write_runs(work: Workspace, *records: dict[str, Any]) -> None:
    for number, one in enumerate(records):
        write_json(work.evaluations / one["task"] / f"{number:012d}" / "run.json", one)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    work = Workspace(tmp_path)
    write_runs(work, *(record("none", s, v) for s, v in enumerate((0.25, 0.5, 0.75))),
               *(record("ddpm", s, v) for s, v in enumerate((0.5, 0.75))))  # fmt: skip
    return work


def test_values_are_means_over_seeds_and_gains_are_paired(work: Workspace) -> None:
    board = leaderboard.publish(work, work.root / "results").query("metric == 'mean'").set_index("arm")
    assert board.loc["none", ["value", "seeds", "gain"]].tolist() == [0.5, 3, 0.0]
    # ddpm has seeds 0 and 1 only: its baseline is none's mean over these two
    assert board.loc["ddpm", ["value", "seeds", "baseline", "gain"]].tolist() == [0.625, 2, 0.375, 0.25]


def test_the_csv_is_the_same_bytes_whenever_it_is_built(work: Workspace) -> None:
    results = work.root / "results"
    leaderboard.publish(work, results)
    first = (results / "leaderboard.csv").read_bytes()
    leaderboard.publish(work, results)
    assert (results / "leaderboard.csv").read_bytes() == first
    assert pd.read_csv(results / "leaderboard.csv").columns.tolist() == leaderboard.COLUMNS


def test_check_passes_when_up_to_date_and_needs_no_workspace(work: Workspace, tmp_path: Path) -> None:
    results = work.root / "results"
    leaderboard.publish(work, results)
    leaderboard.check(work, results)
    leaderboard.check(Workspace(tmp_path / "elsewhere"), results)


def test_check_sees_an_edited_board(work: Workspace) -> None:
    results = work.root / "results"
    leaderboard.publish(work, results)
    csv = results / "leaderboard.csv"
    csv.write_text(csv.read_text().replace("0.625", "0.925"))
    with pytest.raises(StaleError, match="not what its runs give"):
        leaderboard.check(work, results)


def test_check_sees_a_run_that_was_not_published(work: Workspace) -> None:
    results = work.root / "results"
    leaderboard.publish(work, results)
    write_json(work.evaluations / "detection" / "new" / "run.json", record("ddpm", 2, 0.5))
    with pytest.raises(StaleError, match="new is not on the board"):
        leaderboard.check(work, results)


def test_runs_that_may_not_be_compared_stand_on_different_boards(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    other = {"name": "d", "fingerprint": "f", "split_hash": "another"}
    changes: list[dict[str, Any]] = [{}, {"version": 2}, {"recipe": {"steps": 2}}, {"data": other}]
    write_runs(work, *(record("none", 0, 0.5, **change) for change in changes))
    assert leaderboard.publish(work, tmp_path / "results")["board"].nunique() == 4


def test_without_a_baseline_there_is_no_gain_and_an_undefined_score_stays_empty(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    write_runs(work, record("ddpm", 0, None))
    row = leaderboard.publish(work, tmp_path / "results").query("metric == 'mean'").iloc[0]
    assert row[["value", "gain"]].isna().all()


def test_a_cell_that_a_spreadsheet_would_execute_is_disarmed(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    write_runs(work, record("=cmd()", 0, -0.5))
    leaderboard.publish(work, tmp_path / "results")
    text = (tmp_path / "results" / "leaderboard.csv").read_text()
    assert ",'=cmd()," in text
    assert ",-0.500000," in text


def test_the_published_board_is_what_its_records_give(tmp_path: Path) -> None:
    board = leaderboard.check(Workspace(tmp_path), Path(__file__).parents[1] / "results")
    assert {"detection", "realism"} <= set(board["task"])
    assert {"none", "classic", "ddpm"} <= set(board["arm"])


def test_no_runs_at_all_is_an_error_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        leaderboard.publish(Workspace(tmp_path), tmp_path / "results")
    assert "dbtbench evaluate" in caught.value.hint


def test_the_summary_shows_the_primary_metric_first_and_gains_in_brackets(work: Workspace) -> None:
    text = leaderboard.summary(leaderboard.publish(work, work.root / "results"))
    lines = text.splitlines()
    assert lines[2].split() == ["*", "mean", "0.500", "0.625", "(+0.250)"]
    assert "none ×3" in lines[1]
    assert "ddpm ×2" in lines[1]


def test_two_data_sets_of_one_generator_are_two_columns(work: Workspace) -> None:
    other = {"name": "b", "fingerprint": "another", "generator": "ddpm", "volumes": 9}
    write_json(work.evaluations / "detection" / "b" / "run.json", record("ddpm", 0, 0.1, augmentation=other))
    header = leaderboard.summary(leaderboard.publish(work, work.root / "results")).splitlines()[1]
    assert "ddpm anothe ×1" in header
    assert "ddpm f-ddpm ×2" in header
