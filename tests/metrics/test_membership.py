"""Membership inference sees what is there, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.metrics.membership import bootstrap, membership_score, true_positive_rate


def outcomes(gap: float, patients: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (
            f"P{number:03d}",
            int(number < patients // 2),
            rng.standard_normal() + gap * (number < patients // 2),
        )
        for number in range(patients)
        for _ in range(4)
    ]
    return pd.DataFrame(rows, columns=["PatientID", "positive", "Score"])


def test_members_that_stand_apart_are_found() -> None:
    found = bootstrap(outcomes(8.0), 0)
    assert found["auc"][0] == pytest.approx(1, abs=1e-3)
    assert found["tpr"][0] > 0.95
    assert found["auc"][1] > 0.99


def test_members_like_others_are_not() -> None:
    value, low, high = bootstrap(outcomes(0.0), 0)["auc"]
    assert low < 0.5 < high
    assert low < value < high
    assert bootstrap(outcomes(0.0), 0) == bootstrap(outcomes(0.0), 0)


@given(st.lists(st.integers(0, 3), min_size=10, max_size=10), st.integers(0, 5))
@settings(max_examples=50)
def test_a_weight_is_the_patient_repeated(weights: list[int], seed: int) -> None:
    table = outcomes(1.0, patients=10, seed=seed)
    number = table["PatientID"].str[1:].astype(int)
    repeated = table.loc[np.repeat(table.index, np.array(weights)[number])]
    found = true_positive_rate(table, [weights])[0]
    members, others = (repeated.loc[repeated["positive"] == side, "Score"].to_numpy() for side in (1, 0))
    if not len(others) or not len(members):
        assert np.isnan(found)
        return
    limit = np.sort(others)[::-1][int(0.01 * len(others))]
    assert found == pytest.approx((members > limit).mean())


def test_no_non_members_is_not_defined() -> None:
    table = outcomes(1.0).query("positive == 1")
    assert np.isnan(true_positive_rate(table, np.ones((2, 20)))).all()


def test_levels_count_alike_whatever_their_size() -> None:
    losses = np.random.default_rng(0).random((50, 2))
    scaled = membership_score(losses * [1, 1000] + [0, 7])
    assert scaled == pytest.approx(membership_score(losses))
    assert np.corrcoef(scaled, losses.sum(axis=1))[0, 1] < -0.9
    assert np.isfinite(membership_score(np.ones((5, 3)))).all()
