"""The statistics of a study: values by hand, and by simulation how often intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from dbtbench.study import scoring
from dbtbench.study.scoring import Estimate

STUDIES = 400
READERS, CASES = 6, 40
BETWEEN_READERS, BETWEEN_CASES = 0.4, 0.6
"""Standard deviations of readers' skill and cases' difficulty, in those of an answer's noise."""
POINTS = (0.4, 1.2)
"""Operating points: mean d of the noise's standard deviation between real and synthetic."""


def covers(estimate: Callable[[np.random.Generator], Estimate], truth: float) -> float:
    rng = np.random.default_rng(7)
    drawn = [estimate(rng) for _ in range(STUDIES)]
    return float(np.mean([each.low <= truth <= each.high for each in drawn]))


def draw_choices(rng: np.random.Generator, point: float) -> NDArray[np.float64]:
    skill = rng.normal(0, BETWEEN_READERS, (READERS, 1)) + rng.normal(0, BETWEEN_CASES, CASES)
    return (rng.standard_normal((READERS, CASES)) < point + skill).astype(float)


def accuracy_of(point: float) -> float:
    return float(scipy.stats.norm.cdf(point / math.sqrt(1 + BETWEEN_READERS**2 + BETWEEN_CASES**2)))


def alone(score: float) -> Estimate:
    return scoring.estimate_accuracy(round(score * CASES), CASES)


def draw_ratings(
    rng: np.random.Generator, point: float, between: float = BETWEEN_READERS
) -> NDArray[np.float64]:
    """Draw ratings (readers, cases), the first half of the cases real, in five steps."""
    real = np.arange(CASES) < CASES // 2
    skill = point + rng.normal(0, between, (READERS, 1))
    latent = rng.standard_normal((READERS, CASES)) + rng.normal(0, BETWEEN_CASES, CASES) + skill * real
    return np.digitize(latent, [-1, 0, 1, 2]).astype(float)


def area_of(point: float, between: float = BETWEEN_READERS) -> float:
    """Give the area of a mean reader by two long rows of ratings."""
    rng = np.random.default_rng(1)
    spread = math.sqrt(1 + BETWEEN_CASES**2)
    n = 200_000
    real = np.digitize(rng.normal(0, spread, n) + rng.normal(point, between, n), [-1, 0, 1, 2])
    synthetic = np.digitize(rng.normal(0, spread, n), [-1, 0, 1, 2])
    return float(np.heaviside(real - synthetic, 0.5).mean())


def pseudovalues(ratings: NDArray[np.float64]) -> NDArray[np.float64]:
    half = CASES // 2
    return np.array([scoring.jackknife_area(scoring.compare_pairs(r[:half], r[half:])) for r in ratings])


@pytest.mark.parametrize("point", POINTS)
def test_the_interval_over_readers_holds_the_accuracy_as_often_as_it_says(point: float) -> None:
    share = covers(lambda rng: scoring.average_readers(draw_choices(rng, point), alone), accuracy_of(point))
    assert 0.9 <= share <= 0.985


@pytest.mark.parametrize("point", POINTS)
def test_answers_that_are_taken_for_independent_are_seen(point: float) -> None:
    """The planted fault: all answers of all readers as one sample."""

    def pool(rng: np.random.Generator) -> Estimate:
        choices = draw_choices(rng, point)
        return scoring.estimate_accuracy(int(choices.sum()), choices.size)

    assert covers(pool, accuracy_of(point)) < 0.85


@pytest.mark.parametrize("point", POINTS)
def test_the_interval_over_readers_holds_the_area_as_often_as_it_says(point: float) -> None:
    def estimate(rng: np.random.Generator) -> Estimate:
        return scoring.average_readers(pseudovalues(draw_ratings(rng, point)), alone)

    assert 0.9 <= covers(estimate, area_of(point)) <= 0.985


@pytest.mark.parametrize("point", POINTS)
def test_an_interval_of_readers_only_is_seen(point: float) -> None:
    """The planted fault: a t interval over readers, as if the cases were all that there are."""

    def estimate(rng: np.random.Generator) -> Estimate:
        areas = pseudovalues(draw_ratings(rng, point)).mean(axis=1)
        width = scipy.stats.t.ppf(0.975, READERS - 1) * areas.std(ddof=1) / math.sqrt(READERS)
        return Estimate(areas.mean(), areas.mean() - width, areas.mean() + width)

    assert covers(estimate, area_of(point)) < 0.9


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("cases", "least", "most"), [(CASES, 0.92, 0.99), (4 * CASES, 0.0, 0.8)])
def test_one_readers_interval_holds_the_area_as_often_as_it_says(
    point: float, cases: int, least: float, most: float
) -> None:
    """The planted fault: as if there were four times as many cases."""
    half = CASES // 2

    def estimate(rng: np.random.Generator) -> Estimate:
        ratings = draw_ratings(rng, point, between=0)[0]
        area = float(scoring.compare_pairs(ratings[:half], ratings[half:]).mean())
        return scoring.estimate_auc(area, cases // 2, cases // 2)

    assert least <= covers(estimate, area_of(point, between=0)) <= most


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    ratings, real = rng.integers(1, 6, 30), np.arange(30) < 13
    pairs = scoring.compare_pairs(ratings[real], ratings[~real])
    assert pairs.mean() == pytest.approx(roc_auc_score(real, ratings))
    left_out = [
        30 * pairs.mean() - 29 * roc_auc_score(np.delete(real, k), np.delete(ratings, k)) for k in range(30)
    ]
    assert scoring.jackknife_area(pairs) == pytest.approx(left_out)


def test_d_prime_is_the_textbooks_and_finite_at_the_ends() -> None:
    assert scoring.to_d_prime(0.5, 20) == 0
    assert scoring.to_d_prime(0.76, 1000) == pytest.approx(1.0, abs=0.005)  # one standard deviation: 76 %
    assert scoring.to_d_prime(1, 20) == scoring.to_d_prime(0.975, 20)
    assert scoring.to_d_prime(0, 20) == pytest.approx(-scoring.to_d_prime(1, 20))


@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 40))
def test_an_interval_of_an_area_holds_it_and_stays_in_range(
    hundredths: int, real: int, synthetic: int
) -> None:
    area = hundredths / 100
    estimate = scoring.estimate_auc(area, real, synthetic)
    assert 0 <= estimate.low <= area <= estimate.high <= 1
    assert estimate.high - estimate.low > 0


def test_readers_who_are_all_right_have_an_interval() -> None:
    estimate = scoring.average_readers(np.ones((3, 20)), lambda score: scoring.estimate_accuracy(20, 20))
    assert estimate.high == 1
    assert 0.8 < estimate.low < 0.9


def test_scores_of_two_readers_count_the_cases_that_both_answered() -> None:
    truth = pd.Series({"a": "left", "b": "right", "c": "left", "d": "right"})
    rows = [("R1", case, truth[case], 2.0) for case in truth.index]
    rows += [("R2", "a", "left", 3.0), ("R2", "b", "left", 5.0), ("R2", "c", "left", 4.0)]
    answers = pd.DataFrame(rows, columns=["reader", "case", "answer", "seconds"])
    scores = scoring.score_study("2afc", truth, answers)
    assert [(r["reader"], r["cases"], r["accuracy"]["value"]) for r in scores["readers"]] == [
        ("R1", 4, 1.0),
        ("R2", 3, 2 / 3),
    ]
    assert scores["readers"][1]["median_seconds"] == 4
    assert scores["over_readers"]["cases"] == 3
    assert scores["over_readers"]["accuracy"]["value"] == pytest.approx(5 / 6)
    assert "mean of 2 readers" in scoring.as_text(scores)


def test_ratings_have_an_area_and_one_reader_stands_alone() -> None:
    truth = pd.Series({"a": "real", "b": "real", "c": "synthetic", "d": "synthetic"})
    rows = [("R1", "a", "5", 1), ("R1", "b", "3", 1), ("R1", "c", "3", 1), ("R1", "d", "1", 1)]
    scores = scoring.score_study(
        "rating", truth, pd.DataFrame(rows, columns=["reader", "case", "answer", "seconds"])
    )
    assert scores["readers"][0]["auc"]["value"] == 3.5 / 4
    assert "d_prime" not in scores["readers"][0]
    assert scores["over_readers"] is None
