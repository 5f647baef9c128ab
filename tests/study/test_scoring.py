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


def answer(right: dict[str, list[int]], truth: pd.Series) -> pd.DataFrame:
    """Answers of readers who are right (1) or wrong (0) in each case."""
    other = {"left": "right", "right": "left"}
    rows = [
        (reader, case, truth[case] if hit else other[truth[case]], 1.0)
        for reader, hits in right.items()
        for case, hit in zip(truth.index, hits, strict=False)
    ]
    return pd.DataFrame(rows, columns=["reader", "case", "answer", "seconds"])


def test_each_synthetic_set_has_its_own_score_over_readers() -> None:
    truth = pd.Series({f"c{k}": ("left", "right")[k % 2] for k in range(20)})
    synthetic = pd.Series(["gan1"] * 10 + ["gan2"] * 10, index=truth.index)
    right = {
        "R1": [1] * 9 + [0] + [1, 0] * 5,
        "R2": [1] * 10 + [0, 1] * 5,
        "R3": [1] * 8 + [0] * 2 + [1, 0] * 5,
    }
    answers = answer(right, truth)
    scores = scoring.score_study("2afc", truth, answers, synthetic)
    easy, hard = scores["by_set"]
    assert [each["synthetic"] for each in (easy, hard)] == ["gan1", "gan2"]
    assert [each["cases"] for each in (easy, hard)] == [10, 10]
    assert [each["accuracy"]["value"] for each in (easy, hard)] == pytest.approx([27 / 30, 0.5])
    assert easy["accuracy"]["low"] > 0.5 > hard["accuracy"]["low"]
    assert hard["d_prime"]["value"] == pytest.approx(0, abs=1e-9)
    # Each is what a study of these cases alone gives, and they add up to the whole.
    alone = scoring.score_study("2afc", truth[10:], answers[answers["case"].isin(truth.index[10:])])
    assert alone["over_readers"]["accuracy"] == hard["accuracy"]
    together = (easy["accuracy"]["value"] + hard["accuracy"]["value"]) / 2
    assert scores["over_readers"]["accuracy"]["value"] == pytest.approx(together)
    assert "of gan2" in scoring.as_text(scores)
    one = scoring.score_study("2afc", truth, answer({"R1": [1] * 10 + [0] * 10}, truth), synthetic)
    assert [each["accuracy"]["value"] for each in one["by_set"]] == [1.0, 0.0]
    assert one["by_set"][0]["accuracy"]["low"] == scoring.estimate_accuracy(10, 10).low


def test_a_rating_compares_each_set_with_all_real_volumes() -> None:
    truth = pd.Series({"a": "real", "b": "real", "c": "synthetic", "d": "synthetic", "e": "synthetic"})
    synthetic = pd.Series(["none", "none", "gan1", "gan1", "gan2"], index=truth.index)
    rows = [
        (r, case, str(step), 1.0)
        for r in ("R1", "R2")
        for case, step in zip("abcde", (4, 3, 1, 2, 5), strict=True)
    ]
    answers = pd.DataFrame(rows, columns=["reader", "case", "answer", "seconds"])
    scores = scoring.score_study("rating", truth, answers, synthetic)
    assert [each["cases"] for each in scores["by_set"]] == [4, 3]
    assert scores["by_set"][0]["auc"]["value"] == 1.0
    assert scores["by_set"][1]["auc"] is None  # one synthetic volume has no pseudovalues
    assert "–" in scoring.as_text(scores)


def test_one_set_and_no_common_case_have_no_score_by_set() -> None:
    truth = pd.Series({"a": "left", "b": "right"})
    synthetic = pd.Series(["gan1", "gan1"], index=truth.index)
    assert scoring.score_study("2afc", truth, answer({"R1": [1, 1]}, truth), synthetic)["by_set"] == []
    synthetic = pd.Series(["gan1", "gan2"], index=truth.index)
    apart = pd.DataFrame(
        [("R1", "a", "left", 1.0), ("R2", "b", "left", 1.0)], columns=["reader", "case", "answer", "seconds"]
    )
    assert [each["accuracy"] for each in scoring.score_study("2afc", truth, apart, synthetic)["by_set"]] == [
        None
    ] * 2
