"""The learning curve, and what is read off it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.leaderboard.curve import LearningCurve, equivalents
from dbtbench.leaderboard.variance import Moments
from dbtbench.metrics.resampling import Floats

SIZES = {"real": 24, "b": 32, "c": 49, "d": 80, "e": 192}


def law(n: float, exponent: float = 0.8) -> float:
    return float(0.9 - 4 * n**-exponent)


def moments_of(spread: float = 0.0, **scores: float) -> Moments:
    """Arms with five seeds each, spread evenly around their means."""
    offsets = spread * np.linspace(-1, 1, 5)[:, None] * np.ones(11)
    means = {arm: law(n) for arm, n in SIZES.items()} | scores
    return Moments.measure({arm: mean + offsets for arm, mean in means.items()}, 60)


@settings(max_examples=30)
@given(st.floats(0.1, 2.5), st.floats(12.1, 80))
def test_a_power_law_is_found_again(exponent: float, n: float) -> None:
    sizes = np.array(list(SIZES.values()), float)
    scores = np.array([law(size, exponent) for size in sizes])
    curve = LearningCurve.fit(sizes, scores, np.ones(5))
    assert curve.exponent == pytest.approx(exponent, abs=0.026)
    assert curve.invert(law(n, exponent), scores) == pytest.approx(n, rel=0.03)
    assert curve.weights(np.array([n])) @ scores == pytest.approx(law(n, exponent), abs=0.02)


@pytest.mark.parametrize("more", [-10, 0, 20, 50, 150])
def test_an_arm_is_worth_what_the_curve_has_there(more: int) -> None:
    found = equivalents(moments_of(0.001, arm=law(24 + more)), ["arm"], SIZES)["arm"]
    assert found.value == pytest.approx(more, abs=0.5)
    assert found.low < found.value < found.high
    assert found.low == pytest.approx(more, abs=5)


def test_its_interval_has_what_a_t_test_does_not_tell_apart() -> None:
    moments = moments_of(0.03, arm=law(50))
    found = equivalents(moments, ["arm"], SIZES)["arm"]
    sizes = np.array(list(SIZES.values()), float)
    curve = LearningCurve.fit(sizes, moments.means[:5], np.full(5, 5.0))

    def p(n: float) -> float:
        on_curve: Floats = np.append(curve.weights(np.array([24 + n])), 0.0)
        return moments.contrast(moments.select("arm") - on_curve).p

    assert p(found.low) == pytest.approx(0.05, abs=0.001)
    assert p(found.high) == pytest.approx(0.05, abs=0.001)
    assert p(found.value) == pytest.approx(1)


def test_above_the_curves_end_it_is_infinite_and_far_below_it_all_that_there_is() -> None:
    found = equivalents(moments_of(0.001, good=0.95, bad=-40.0), ["good", "bad"], SIZES)
    assert found["good"].value == found["good"].high == np.inf
    assert found["bad"].value == pytest.approx(-24, abs=0.5)
    reaching = equivalents(moments_of(0.05, arm=law(180)), ["arm"], SIZES)["arm"]
    assert 0 < reaching.low < reaching.value < reaching.high == np.inf


def test_four_points_are_too_few_and_a_curve_that_falls_has_nothing_to_read_off() -> None:
    few = {arm: n for arm, n in SIZES.items() if arm != "d"}
    assert equivalents(moments_of(0.01, arm=0.5), ["arm"], few) == {}
    assert equivalents(moments_of(0.01, arm=0.5), ["arm"], few | {"d": 49}) == {}
    falling = moments_of(0.01, arm=0.5, **{arm: 1 - law(n) for arm, n in SIZES.items()})
    assert equivalents(falling, ["arm"], SIZES) == {}
