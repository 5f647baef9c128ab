"""Classification scores, and their resampling, must be scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dbtbench.errors import UsageError
from dbtbench.metrics.classification import auroc, classification_scores
from dbtbench.metrics.resampling import patients

PATIENTS = ("P1", "P10", "P2")
Volumes = list[tuple[str, bool, int]]

volumes = st.lists(
    st.tuples(st.sampled_from(PATIENTS), st.booleans(), st.integers(0, 4)), min_size=1, max_size=16
)
weights = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(volumes, weights)
def test_resampling_is_the_same_as_weighting_volumes(rows: Volumes, drawn: list[list[int]]) -> None:
    outcomes = pd.DataFrame(rows, columns=["PatientID", "positive", "Score"])
    names = patients(outcomes)
    found = auroc(outcomes, np.array(drawn)[:, : len(names)])
    for value, row in zip(found, drawn, strict=True):
        weight = outcomes["PatientID"].map(dict(zip(names, row[: len(names)], strict=True)))
        there = outcomes[weight > 0]
        if there["positive"].nunique() < 2:
            assert np.isnan(value)
        else:
            expected = roc_auc_score(there["positive"], there["Score"], sample_weight=weight[weight > 0])
            assert value == pytest.approx(expected, abs=1e-12)


def test_many_replicates_are_scored_as_few_are() -> None:
    rng = np.random.default_rng(0)
    names = [f"P{n % 300}" for n in range(3000)]
    outcomes = pd.DataFrame(
        {"PatientID": names, "positive": rng.random(3000) < 0.1, "Score": rng.random(3000)}
    )
    drawn = rng.multinomial(300, [1 / 300] * 300, size=2000)
    assert np.array_equal(auroc(outcomes, drawn)[-3:], auroc(outcomes, drawn[-3:]))


def test_drawing_everybody_once_gives_the_plain_score() -> None:
    outcomes = pd.DataFrame(
        {"PatientID": ["a", "b", "c", "c"], "positive": [1, 0, 1, 0], "Score": [3, 1, 2, 2]}
    )
    assert (
        auroc(outcomes, [[1, 1, 1]])[0]
        == classification_scores(outcomes["positive"], outcomes["Score"])["auroc"]
    )


def test_scores_of_an_example() -> None:
    scores = classification_scores([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1])
    assert scores == pytest.approx(
        {"auroc": (1 + 1 + 0.5 + 1) / 4, "average_precision": 0.5 * 1 + 0.5 * 2 / 3}
    )


@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_one_kind_of_volume_has_no_scores(positive: list[int]) -> None:
    assert np.isnan(list(classification_scores(positive, [0.1, 0.2]).values())).all()


def test_nothing_but_one_finite_score_a_volume_will_do() -> None:
    with pytest.raises(UsageError, match="finite"):
        classification_scores([0, 1], [0.1, float("nan")])
    with pytest.raises(UsageError, match=r"\(2,\) truths and \(3,\) scores"):
        classification_scores([0, 1], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ([[1, 1, 1]], "for 2 patients"),
        ([1, 1], "for 2 patients"),
        ([[1, -1]], "0 or more"),
        ([[1, 0.5]], "whole numbers"),
    ],
)
def test_weights_are_whole_numbers_one_a_patient(drawn: Any, words: str) -> None:
    outcomes = pd.DataFrame({"PatientID": ["a", "b"], "positive": [1, 0], "Score": [1, 0]})
    with pytest.raises(UsageError, match=words):
        auroc(outcomes, drawn)
