"""The board as a reader sees it: wide on the terminal, short and harmless in README files."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError

from dbtbench import leaderboard, plugins
from dbtbench.leaderboard.view import markdown
from dbtbench.metric import Metric, Standing
from dbtbench.records import Record
from dbtbench.runtime.text import printable
from dbtbench.workspace import Workspace


@pytest.fixture
def board(evaluated: Workspace) -> pd.DataFrame:
    return leaderboard.rank(run.parent for run in evaluated.evaluations.glob("*/*/run.json"))


def test_one_row_an_arm_and_one_column_a_metric_the_primary_first(board: pd.DataFrame) -> None:
    table = leaderboard.wide(board)
    assert table.columns.tolist() == ["mean_sensitivity_positive", "other"]
    assert table.index.tolist() == [("real", 5), ("ddpm", 5), ("more-real", 5), ("oversample", 5)]
    assert table["mean_sensitivity_positive"].round(6).tolist() == [0.48, 0.68, 0.78, 0.48]


def test_the_terminal_shows_the_table_and_under_it_a_verdict_for_each_arm(board: pd.DataFrame) -> None:
    lines = leaderboard.summary(board).splitlines()
    table, verdicts = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert table[0].endswith("(means over seeds; * mean sensitivity decides)")
    assert [line.strip() for line in table[1:4]] == ["*mean", "sensitivity", "↑"]
    assert table[-5].split() == ["real", "×5", "0.480"]
    assert table[-1] == "1 more metric is in the CSV"
    assert verdicts[0] == (
        "test lesions found always, sometimes and never: real 40, 20, 40 %; more-real 70, 20, 10 %"
    )
    assert [verdict.split(":")[0] for verdict in verdicts[1:]] == ["ddpm", "more-real", "oversample"]


def test_only_headline_metrics_are_shown_with_unit_and_direction(
    tmp_path: Path, make_record: Callable[..., Any], write_run: Callable[..., Path]
) -> None:
    metrics = (
        Metric("far", "distance", "lower", "mm", headline=True),
        Metric("near", "noise", "target"),
        Metric("sharp", "sharpness", "target", headline=True),
    )
    scores = {"mean_sensitivity_positive": 0.5, "far": 2.0, "near": 3.0, "sharp": 4.0}
    record = make_record(scores=scores)
    record["metrics"] |= {metric.name: metric.describe() for metric in metrics}
    text = leaderboard.summary(leaderboard.rank([write_run(tmp_path, record)]))
    assert text.splitlines()[-2].split() == ["real", "×1", "0.500", "2.000", "4.000"]
    heading = " ".join(text.split("decides)")[1].split("real ×1")[0].split())
    assert "distance" in heading
    assert "(mm) ↓" in heading
    assert "→real" in heading
    assert "noise" not in text


def test_a_score_is_shown_with_its_interval_and_its_place_among_real_data(
    tmp_path: Path, make_record: Callable[..., Any], write_run: Callable[..., Path]
) -> None:
    near = Metric("near", "roughness", "target", headline=True)
    standing = Standing(low=0.011, high=0.013, floor=0.02, floor_low=0.01, floor_high=0.03, percentile=4.5)
    record = make_record(scores={"mean_sensitivity_positive": 0.5, "near": 0.012})
    record["metrics"] |= {"near": near.describe()}
    record["standings"] = {"near": standing.describe()}
    board = leaderboard.rank([write_run(tmp_path, record)])
    row = board.set_index("metric").loc["near"]
    assert row[["value_low", "value_high", "floor", "floor_percentile"]].tolist() == [0.011, 0.013, 0.02, 4.5]
    assert (row["floor_low"], row["floor_high"]) == (0.01, 0.03)
    assert row["excess"] == pytest.approx(-0.008)
    assert board.set_index("metric").loc["mean_sensitivity_positive", "floor_percentile"] != 4.5
    text = leaderboard.summary(board)
    assert "0.0120 [0.0110, 0.0130] P4" in text
    assert "P: percentile among scores of real data" in text
    primary = board.assign(primary=(board["metric"] == "near").astype(int))
    assert r"0.0120 \[0.0110, 0.0130\] P4" in markdown(primary)


@pytest.mark.parametrize(
    ("standings", "message"),
    [
        ({"near": {"percentile": 4.0}}, "standings of near"),
        ({"mean_sensitivity_positive": {"percentile": 101.0}}, "percentile"),
        ({"mean_sensitivity_positive": {"low": float("inf")}}, "low"),
    ],
)
def test_a_standing_that_cannot_be_is_refused(
    make_record: Callable[..., Any], standings: dict[str, dict[str, float]], message: str
) -> None:
    whole = Standing(0.4, 0.6, 0.5, 0.3, 0.7, 50.0).describe()
    record = make_record() | {"standings": {name: whole | other for name, other in standings.items()}}
    with pytest.raises(ValidationError, match=message):
        Record.model_validate(record)


def test_a_task_shows_at_most_five_metrics_and_its_primary_one_among_them() -> None:
    for name in plugins.find("tasks"):
        metrics = plugins.load(plugins.get("tasks", name)).metrics
        shown = [metric.name for metric in metrics if metric.headline]
        assert len(shown) <= 5
        assert metrics[0].name in shown


def test_many_metrics_are_folded_into_blocks_that_fit(board: pd.DataFrame) -> None:
    rows = board[board["metric"] == "other"].assign(headline=2)
    titles = {f"metric_{n}": f"metric number {n} of many" for n in range(20)}
    many = pd.concat([board, *(rows.assign(metric=name, title=title) for name, title in titles.items())])
    text = leaderboard.summary(many)
    assert max(map(len, text.splitlines()[1:-4])) <= 110
    assert text.count("real ×5") >= 2
    assert text.count("number") == 20


def test_a_score_that_is_not_defined_is_shown_as_a_dash(board: pd.DataFrame) -> None:
    text = leaderboard.summary(board.assign(value=float("nan")))
    assert "real ×5" in text
    assert "nan" not in text


def test_the_markdown_row_has_gain_interval_p_and_verdict(board: pd.DataFrame) -> None:
    row = next(line for line in markdown(board).splitlines() if line.startswith("| ddpm |"))
    _, arm, seeds, value, gain, p, verdict, verified, _ = row.split(" | ".strip())
    assert [arm.strip(), seeds.strip(), value.strip()] == ["ddpm", "5", "0.680"]
    assert gain.strip().startswith(r"+0.200 \[")
    assert 0 <= float(p) <= 1
    assert verdict.strip().startswith("ddpm: +0.20 mean sensitivity over real")
    assert verified.strip() == "by its outcomes"
    assert "| no |" in markdown(board.assign(verified="no"))


HOSTILE = [
    "a|b \\| c",
    "<script>x</script> <img src=x onerror=y> <!-- /board -->",
    "&lt;b&gt; &#60;",
    "[y](z) ![y](z) [y][z] <https://x.org> [z]: /u",
    "https://x.org/a HTTP://x.org www.x.org",
    "`c` ``d`` $e$ $$f$$",
    "*a* **b** _c_ __d__ ~~e~~ \\*f",
    "a\n# b\n\n- c\n```\nd\n> e\n| f | g |",
    "a\r\n<div>\r\n\u2028# b\x85# c\x0b# d",
    "\x1b[31mred\x1b]0;t\x07 \u202ebidi\u200b",
    "# a",
    "- a",
    "1. a",
]
SHOWN = {"paragraph", "inline", "table", "thead", "tbody", "tr", "th", "td", "strong", "text"}


def test_what_somebody_wrote_cannot_become_markdown_or_html(board: pd.DataFrame) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for hostile, column in product(HOSTILE, ("board", "verdict", "title", "arm")):
        rows = board["arm"] == "ddpm" if column == "arm" else board["arm"] != ""
        text = markdown(board.assign(**{column: board[column].mask(rows, hostile)}))
        assert printable(text) == text
        assert not re.search(r"<|[^\\]:/|www\.|(?<!\\)\$", text), hostile
        tokens = parser.parse(text)
        within = [child for token in tokens for child in token.children or []]
        assert {re.sub("_(open|close)$", "", token.type) for token in tokens + within} <= SHOWN, hostile
        assert sum(token.type == "tr_open" for token in tokens) == 5
        assert sum(token.type in ("td_open", "th_open") for token in tokens) == 35, hostile
        shown = ["".join(child.content for child in token.children or []) for token in tokens]
        assert any(printable(" ".join(hostile.split())) in cell for cell in shown), (hostile, shown)


def test_the_summary_of_what_is_published_fits_a_page(tmp_path: Path) -> None:
    text = leaderboard.summary(leaderboard.build(Path(__file__).parents[2] / "results"))
    assert "real ×" in text
    assert not any(line != line.rstrip() for line in text.splitlines())
