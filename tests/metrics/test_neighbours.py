"""Thresholds, p-values and nearest neighbours against simulation, hypothesis and examples by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.metrics.neighbours import (
    Neighbours,
    authenticity,
    binomial_interval,
    choose_threshold,
    exceedance_p,
    find_neighbours,
)

VALUES = st.lists(st.floats(-1, 1), min_size=1, max_size=300)


@given(VALUES, st.floats(0, 0.9))
def test_no_more_than_the_share_lies_above_the_threshold(values: list[float], share: float) -> None:
    threshold = choose_threshold(values, share)
    assert threshold in values
    assert (np.array(values) > threshold).sum() <= share * len(values)


def test_there_is_no_threshold_without_items() -> None:
    assert np.isnan(choose_threshold([], 0.01))
    assert np.isnan(exceedance_p(0, 10, 0, 0))
    assert np.isnan(exceedance_p(0, 0, 0, 10))


def test_the_exact_interval_has_the_values_of_the_tables() -> None:
    assert binomial_interval(0, 10) == pytest.approx((0, 0.3085), abs=1e-4)
    assert binomial_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert np.isnan(binomial_interval(0, 0)).all()


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_fresh_items_are_called_copies_as_often_as_the_level_says(share: float) -> None:
    rng, m, n = np.random.default_rng(0), 144, 200
    p = []
    for _ in range(2000):
        real, fresh = rng.standard_normal(m), rng.standard_normal(n)
        threshold = choose_threshold(real, share)
        p.append(exceedance_p(int((fresh > threshold).sum()), n, int((real > threshold).sum()), m))
    rejected = np.mean(np.array(p) <= 0.05)
    assert 0.02 < rejected < 0.06  # the number above is whole, so it may be less than 0.05


def test_copies_among_the_items_are_seen() -> None:
    assert exceedance_p(20, 200, 1, 144) < 0.01
    assert exceedance_p(2, 200, 1, 144) > 0.3


def test_the_second_neighbour_is_of_another_patient() -> None:
    table = np.array([[0.9, 0.8, 0.5], [0.2, 0.3, 0.3]])
    found = find_neighbours(lambda row: table[row], 2, ["a", "a", "b"])
    assert found.nearest.tolist() == [0, 1]
    assert found.second.tolist() == [0.5, 0.3]
    assert found.ratio == pytest.approx([0.1 / 0.5, 1.0])


def test_one_patient_has_no_second_neighbour() -> None:
    found = find_neighbours(lambda row: np.array([1.0, 0.5]), 1, ["a", "a"])
    assert found.second.tolist() == [-1]
    assert found.ratio.tolist() == [0]


def test_an_item_is_authentic_when_its_neighbour_has_nearer_ones() -> None:
    train = np.array([[1.0, 0.99, 0.6], [0.99, 1.0, 0.5], [0.6, 0.5, 1.0]])  # 0 and 1 are of one patient
    own = Neighbours(np.array([0, 0]), np.array([0.7, 0.5]), np.array([0.1, 0.1]))
    found = authenticity(own, lambda row: train[row], ["a", "a", "b"])
    assert found.tolist() == [False, True]
