"""Declarations of metrics: which way is better, how a difference is said, and what a table must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.dataset import KEY
from dbtbench.metric import Metric, Outcomes, number

TABLE = Outcomes({"n": int, "x": float}, lambda table: table[[*KEY, "n"]], frozenset({"x"}))


@pytest.mark.parametrize(
    ("direction", "up", "down"), [("higher", 0.2, -0.2), ("lower", -0.2, 0.2), ("target", -0.2, -0.2)]
)
def test_better_is_above_zero_and_nothing_is_better_than_a_target(
    direction: str, up: float, down: float
) -> None:
    metric = Metric("m", "m", direction)  # type: ignore[arg-type]
    assert (metric.better(0.2), metric.better(-0.2)) == (up, down)
    assert metric.better(np.array([0.2, -0.2])).tolist() == [up, down]


@pytest.mark.parametrize(
    ("metric", "difference", "words"),
    [
        (Metric("m", "sensitivity", "higher"), 0.2, "+0.20 sensitivity over real"),
        (Metric("m", "sensitivity", "higher"), -0.2, "-0.20 sensitivity over real"),
        (Metric("m", "log loss", "lower", "nats"), 0.2, "log loss 0.20 nats above real (worse)"),
        (Metric("m", "log loss", "lower"), -0.2, "log loss 0.20 below real (better)"),
        (Metric("m", "log loss", "lower"), 0.0, "log loss 0.00 above real"),
        (Metric("m", "W1", "lower", distance=True), 0.194, "0.19 further from real than real data are"),
        (Metric("m", "W1", "lower", distance=True), -0.0023, "0.0023 nearer to real than real data are"),
        (Metric("m", "contrast", "target", "intensity"), -0.05, "contrast 0.05 intensity below real"),
    ],
)
def test_a_difference_in_words_never_calls_worse_a_gain(
    metric: Metric, difference: float, words: str
) -> None:
    assert metric.compare(difference, "real") == words


def test_headings_have_unit_and_direction() -> None:
    assert Metric("m", "W1", "lower", "intensity").heading == "W1 (intensity) ↓"
    assert Metric("m", "AUROC", "higher").heading == "AUROC ↑"
    assert Metric("m", "dip", "target").heading == "dip →real"


def test_small_numbers_keep_two_digits_and_intervals_the_decimals_of_their_value() -> None:
    assert [number(value) for value in (0.0, 0.2, 0.00234, float("nan"))] == ["0.00", "0.20", "0.0023", "nan"]
    assert number(-0.00065, like=0.05) == "-0.00"


def test_a_table_without_resampling_or_the_other_way_round_is_no_declaration() -> None:
    with pytest.raises(ValueError, match="both"):
        Metric("m", "m", "higher", outcomes=TABLE)


def test_the_truth_is_the_same_in_any_order_of_the_rows() -> None:
    rows = [("P", "S", "lcc", 1, 0.5), ("Q", "S", "lcc", 2, 0.1), ("P", "S", "lcc", 1, 0.7)]
    table = pd.DataFrame(rows, columns=[*KEY, "n", "x"])
    assert TABLE.digest_truth(table) == TABLE.digest_truth(table.iloc[[1, 2]].assign(x=0.0))
    assert TABLE.digest_truth(table) != TABLE.digest_truth(table.assign(n=3))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("P,S,lcc,1.5,0.5", "a whole number is needed"),
        ("P,S,lcc,1,inf", "not finite"),
        (",S,lcc,1,0.5", "nothing where text is needed"),
        ("P,S,\x1b[2J,1,0.5", "cannot be printed"),
        ("", "no rows"),
    ],
)
def test_what_a_table_may_not_hold(tmp_path: Path, rows: str, said: str) -> None:
    file = tmp_path / "outcomes.csv"
    file.write_text(f"PatientID,StudyUID,View,n,x\n{rows}\n")
    with pytest.raises(ValueError, match=said):
        TABLE.read(file)
    file.write_text("PatientID,StudyUID,View,n,x\nP,S,lcc,1,\n")
    assert TABLE.read(file)["x"].isna().all()
