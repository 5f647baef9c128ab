"""Means, their variance, and the t-tests of what is linear in them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from dbtbench.leaderboard.variance import Estimate, Moments, draw_patients
from dbtbench.metrics.resampling import Floats

REPLICATES = 4000


def constant(*values: float) -> Floats:
    """Scores of runs that no resampling of patients changes."""
    return np.repeat(np.array(values)[:, None], 1 + REPLICATES, axis=1)


def test_patients_are_drawn_once_and_the_first_row_is_the_data_themselves() -> None:
    weights = draw_patients(7, 50, 1)
    assert weights.shape == (51, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    assert draw_patients(7, 50, 1) is weights
    assert not np.array_equal(draw_patients(7, 50, 2), weights)
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 2


def test_with_one_patient_more_or_less_it_is_welchs_test() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.6, 0.1, 5), rng.normal(0.5, 0.03, 9)
    found = Moments.measure({"a": constant(*one), "b": constant(*other)}, 50).difference("a", "b")
    welch = ttest_ind(one, other, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval()))


def test_the_variance_of_patients_is_that_of_the_mean_over_patients() -> None:
    hits = np.random.default_rng(0).random(80) < 0.6
    weights = draw_patients(80, REPLICATES, 0)
    row = weights @ hits / 80
    moments = Moments.measure({"a": np.stack([row, row]), "b": constant(0.5, 0.5)}, 80)
    variance = hits.var(ddof=1) / 80
    assert moments.of_patients[0, 0] == pytest.approx(variance, rel=0.08)
    found = moments.difference("a", "b")
    assert found.high - found.value == pytest.approx(t.isf(0.025, 79) * np.sqrt(variance), rel=0.04)


def test_what_a_run_alone_does_with_patients_is_counted_once() -> None:
    """It shows between seeds on the data themselves, and must not be added again."""
    rng = np.random.default_rng(0)
    runs = 0.5 + 0.1 * rng.standard_normal((6, 1 + REPLICATES))
    moments = Moments.measure({"a": runs, "b": constant(0.5, 0.5)}, 100)
    assert runs.mean(axis=0).var() > 20 * abs(moments.of_patients[0, 0])
    assert moments.of_seeds[0] == pytest.approx(runs[:, 0].var(ddof=1) / 6)


def test_patients_that_are_hard_for_both_arms_cancel() -> None:
    shared = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(1 + REPLICATES)
    shifts = np.array([[0.01], [0.0], [-0.01]])
    moments = Moments.measure({"a": 0.2 + shared + shifts, "b": shared + shifts}, 60)
    found = moments.difference("a", "b")
    assert found.value == pytest.approx(0.2)
    assert found.high - found.low == pytest.approx(2 * t.isf(0.025, 4) * np.sqrt(2 / 3) * 0.01)


class TestTrainings:
    RUNS = constant(0.50, 0.52, 0.54, 0.70, 0.72, 0.74)

    def test_the_means_of_several_trainings_are_what_varies(self) -> None:
        moments = Moments.measure({"a": self.RUNS}, 50, {"a": [0, 0, 0, 1, 1, 1]})
        assert moments.of_seeds[0] == pytest.approx(np.var([0.52, 0.72], ddof=1) / 2)
        assert moments.df[0] == 1
        alone = Moments.measure({"a": self.RUNS}, 50)
        assert alone.df[0] == 5
        assert alone.of_seeds[0] < moments.of_seeds[0] / 3

    def test_two_that_are_alike_by_chance_vary_as_much_as_their_seeds(self) -> None:
        runs = constant(0.50, 0.60, 0.55, 0.65, 0.45, 0.55)
        alike = Moments.measure({"a": runs[[0, 3, 1, 2]]}, 50, {"a": [0, 0, 1, 1]})
        within = np.mean([np.var([0.50, 0.65], ddof=1) / 2, np.var([0.60, 0.55], ddof=1) / 2]) / 2
        assert alike.of_seeds[0] == pytest.approx(within)
        assert alike.df[0] == 1


class TestDegenerate:
    def test_one_seed_has_a_difference_and_no_interval(self) -> None:
        found = Moments.measure({"a": constant(0.7), "b": constant(0.5, 0.6)}, 50).difference("a", "b")
        assert found.value == pytest.approx(0.15)
        assert np.isnan([found.low, found.high, found.p]).all()

    def test_it_hides_the_interval_of_no_other_arm(self) -> None:
        scores = {"one": constant(0.7), "a": constant(0.6, 0.7), "b": constant(0.5, 0.6)}
        assert np.isfinite(Moments.measure(scores, 50).difference("a", "b").p)

    def test_where_nothing_varies_equal_is_equal_and_else_nothing_is_tested(self) -> None:
        moments = Moments.measure({arm: constant(v, v) for arm, v in (("a", 0.7), ("b", 0.5), ("c", 0.5))}, 9)
        assert moments.difference("c", "b") == Estimate(0, 0, 0, 1)
        apart = moments.difference("a", "b")
        assert (apart.low, apart.value, apart.high) == pytest.approx((0.2, 0.2, 0.2))
        assert np.isnan(apart.p)

    def test_an_undefined_arm_is_left_out_and_so_are_undefined_replicates(self) -> None:
        rng = np.random.default_rng(0)
        a, b = (0.5 + 0.1 * rng.standard_normal((5, 1 + REPLICATES)) for _ in range(2))
        whole = Moments.measure({"a": a, "b": b}, 50).difference("a", "b")
        undefined = constant(*[np.nan] * 5)
        a[2, 1 : 1 + REPLICATES // 2] = np.nan
        moments = Moments.measure({"a": a, "b": b, "c": undefined}, 50)
        assert moments.arms == ("a", "b")
        half = moments.difference("a", "b")
        assert half.value == whole.value
        assert half.p == pytest.approx(whole.p, rel=0.05)
        assert np.isnan(moments.difference("c", "a").value)

    def test_a_metric_that_no_replicate_defines_has_no_interval(self) -> None:
        a = constant(0.5, 0.6)
        a[:, 1:] = np.nan
        found = Moments.measure({"a": a, "b": constant(0.4, 0.5)}, 50).difference("a", "b")
        assert found.value == pytest.approx(0.1)
        assert np.isnan([found.low, found.p]).all()
