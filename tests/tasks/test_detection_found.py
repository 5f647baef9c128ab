"""Which lesions are found at one operating point, so that a board can say how many can tell anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import KEY
from dbtbench.tasks.detection.metrics import METRICS

FIND = {metric.name: metric.find for metric in METRICS if metric.find}


def table_of(rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    full = [(patient, "S", "lcc", box, score) for patient, box, score in rows]
    return pd.DataFrame(full, columns=[*KEY, "box", "Score"])


@pytest.mark.parametrize(("metric", "found"), [("mean_sensitivity_low", 1), ("mean_sensitivity_positive", 3)])
def test_a_lesion_counts_when_it_is_above_all_false_positives_but_those_allowed(
    metric: str, found: int
) -> None:
    # Two volumes: one false positive is allowed at 1/2, four at 2.
    false = [("a", -1, 0.9), ("a", -1, 0.7), ("b", -1, 0.6), ("b", -1, 0.5), ("b", -1, 0.4)]
    lesions = [("a", 0, 0.8), ("a", 0, 0.1), ("a", 1, 0.7), ("b", 0, 0.45), ("b", 1, 0.3), ("b", 2, np.nan)]
    find = FIND[metric]
    assert find is not None
    said = find(table_of(false + lesions))
    assert int(said.sum()) == found
    assert said.index.tolist() == [
        ("a", "S", "lcc", 0),
        ("a", "S", "lcc", 1),
        *[("b", "S", "lcc", n) for n in range(3)],
    ]


def test_without_false_positives_every_lesion_that_has_a_score_is_found() -> None:
    find = FIND["mean_sensitivity_low"]
    assert find is not None
    assert find(table_of([("a", 0, 0.1), ("b", 0, np.nan)])).tolist() == [True, False]


@given(st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=1, max_size=6), st.lists(st.integers(0, 9)))
def test_a_lesion_is_found_when_few_enough_false_positives_score_as_much(
    lesions: list[int | None], false: list[int]
) -> None:
    rows = [(f"p{n}", 0, np.nan if score is None else score) for n, score in enumerate(lesions)]
    table = table_of(rows + [("p0", -1, score) for score in false])
    for name, points in (("mean_sensitivity_low", 0.5), ("mean_sensitivity_positive", 2)):
        find = FIND[name]
        assert find is not None
        assert find(table).tolist() == [
            score is not None and sum(other >= score for other in false) <= points * len(lesions)
            for score in lesions
        ]
