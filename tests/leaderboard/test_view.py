"""The board as a reader sees it: wide on the terminal, short and harmless in README files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.leaderboard.view import markdown
from dbtbench.workspace import Workspace


@pytest.fixture
def board(evaluated: Workspace) -> pd.DataFrame:
    return leaderboard.rank(run.parent for run in evaluated.evaluations.glob("*/*/run.json"))


def test_one_row_an_arm_and_one_column_a_metric_the_primary_first(board: pd.DataFrame) -> None:
    table = leaderboard.wide(board)
    assert table.columns.tolist() == ["mean_sensitivity_positive", "other"]
    assert table.index.tolist() == [("none", 5), ("ddpm", 5), ("more-real", 5), ("oversample", 5)]
    assert table["mean_sensitivity_positive"].round(6).tolist() == [0.48, 0.68, 0.78, 0.48]


def test_the_terminal_shows_the_table_and_under_it_a_verdict_for_each_arm(board: pd.DataFrame) -> None:
    lines = leaderboard.summary(board).splitlines()
    table, verdicts = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert table[-4].split() == ["none", "×5", "0.480", "1.000"]
    assert "*mean_" in table[1]
    assert [verdict.split(":")[0] for verdict in verdicts] == ["ddpm", "more-real", "oversample"]


def test_many_metrics_are_folded_into_blocks_that_fit(board: pd.DataFrame) -> None:
    rows = board[board["metric"] == "other"]
    many = pd.concat([board, *(rows.assign(metric=f"metric_number_{n}_of_many") for n in range(20))])
    text = leaderboard.summary(many)
    assert max(map(len, text.splitlines()[1:-4])) <= 110
    assert text.count("none ×5") >= 2
    shown = [word.removeprefix("*") for word in text.split()]
    assert all(f"number_{n}_of_" in shown for n in range(10))


def test_a_score_that_is_not_defined_is_shown_as_a_dash(board: pd.DataFrame) -> None:
    text = leaderboard.summary(board.assign(value=float("nan")))
    assert "none ×5" in text
    assert "nan" not in text


def test_the_markdown_row_has_gain_interval_p_and_verdict(board: pd.DataFrame) -> None:
    row = next(line for line in markdown(board).splitlines() if line.startswith("| ddpm |"))
    _, arm, seeds, value, gain, p, verdict, _ = row.split(" | ".strip())
    assert [arm.strip(), seeds.strip(), value.strip()] == ["ddpm", "5", "0.680"]
    assert gain.strip().startswith(r"+0.200 \[")
    assert 0 <= float(p) <= 1
    assert verdict.strip().startswith("ddpm: +0.20 mean sensitivity over none")


def test_what_somebody_wrote_cannot_become_markdown_or_html(board: pd.DataFrame) -> None:
    hostile = "a|b <script>x</script> [y](z) `c` <!-- /board -->\n# d"
    text = markdown(board.assign(verdict=hostile, board=hostile))
    assert "<" not in text.replace("&lt;", "")
    assert "\n#" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ddpm |")]
    assert len(rows) == 1
    assert rows[0].replace(r"\|", "").count("|") == 7
    assert "](" not in text.replace(r"\](", "")


def test_the_summary_of_what_is_published_fits_a_page(tmp_path: Path) -> None:
    text = leaderboard.summary(leaderboard.build(Path(__file__).parents[2] / "results"))
    assert "none ×" in text
    assert not any(line != line.rstrip() for line in text.splitlines())
