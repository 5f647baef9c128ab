"""The test of luck must itself not be left to luck: a short version of benchmarks/error_rates.py."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from dbtbench.leaderboard.variance import Moments

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "error_rates.py"
TRIALS = 300
AT_MOST, AT_LEAST = binom.ppf([0.995, 0.005], TRIALS, 0.045) / TRIALS


@pytest.fixture(scope="module")
def simulation() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("seeds", "baseline", "patients", "sd", "common"), [(5, 5, 300, 0.1, 0.9), (10, 20, 60, 0.03, 0.5)]
)
def test_an_augmentation_that_does_nothing_is_called_a_gain_as_rarely_as_said(
    simulation: dict[str, Any], seeds: int, baseline: int, patients: int, sd: float, common: float
) -> None:
    setting = simulation["Setting"](seeds, baseline, patients, sd, common)
    rng = np.random.default_rng(0)
    right, patients_only = [], []
    for _ in range(TRIALS):
        scores, _ = simulation["draw_scores"](rng, setting, {"real": 0.65, "a": 0.65})
        moments = Moments.measure(scores, patients)
        right.append(moments.difference("a", "real").p <= 0.05)
        without_seeds = replace(moments, of_seeds=np.zeros(2))
        patients_only.append(not without_seeds.difference("a", "real").p > 0.05)
    assert AT_LEAST <= np.mean(right) <= AT_MOST
    assert np.mean(patients_only) > AT_MOST, "the simulation could not tell a test that is wrong"


def test_several_trainings_are_no_more_often_lucky_and_ignoring_them_is(simulation: dict[str, Any]) -> None:
    setting = simulation["Setting"](5, 10, 60, 0.04, trainings=3, training_sd=0.06)
    rng = np.random.default_rng(0)
    right: list[bool] = []
    ignoring: list[bool] = []
    for _ in range(TRIALS):
        scores, trainings = simulation["draw_scores"](rng, setting, {"real": 0.65, "a": 0.65})
        joined = np.concatenate([scores[member] for member, _ in trainings["a"]])
        numbers = [number for _, number in trainings["a"] for _ in range(5)]
        for found, of in ((right, {"a": numbers}), (ignoring, {})):
            moments = Moments.measure({"real": scores["real"], "a": joined}, 60, of)
            found.append(moments.difference("a", "real").p <= 0.05)
    assert np.mean(right) <= binom.ppf(0.995, TRIALS, 0.07) / TRIALS < np.mean(ignoring)


def test_a_true_gain_is_found(simulation: dict[str, Any]) -> None:
    setting = simulation["Setting"](10, 20, 150, 0.04)
    small, large = (simulation["measure_power"](setting, gain, 40) for gain in (0.03, 0.1))
    assert small < 0.8 < large


def test_the_equivalent_of_real_data_is_without_bias(simulation: dict[str, Any]) -> None:
    table = simulation["measure_equivalents"](simulation["Setting"](10, 20, 150, 0.04), 60)
    assert abs(table.loc[0, "median"]) < 5
    assert 0.3 < table.loc[0, "positive"] < 0.7
    for truth in (20, 50, 100):
        assert table.loc[truth, "median"] == pytest.approx(truth, rel=0.25)
    assert (table["coverage"] > 0.8).all()
