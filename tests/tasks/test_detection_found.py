"""Which lesions are found at which operating point, so that a board can say how many can tell anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import KEY
from dbtbench.metrics import froc
from dbtbench.tasks.detection.metrics import METRICS

FIND = {metric.name: metric.find for metric in METRICS if metric.find}
POINTS = {"mean_sensitivity_low": froc.FPS_LOW, "mean_sensitivity_positive": froc.FPS_POSITIVE}


def find(metric: str, rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    full = [(patient, "S", "lcc", box, score) for patient, box, score in rows]
    said = FIND[metric]
    assert said is not None
    return said(pd.DataFrame(full, columns=[*KEY, "box", "Score"]))


def test_a_lesion_counts_when_it_is_above_all_false_positives_but_those_allowed() -> None:
    # Two volumes: no false positive is allowed at 1/8 and 1/4, one at 1/2, two at 1.
    false = [("a", -1, 0.9), ("a", -1, 0.7), ("b", -1, 0.6), ("b", -1, 0.5), ("b", -1, 0.4)]
    lesions = [("a", 0, 0.8), ("a", 0, 0.1), ("a", 1, 0.7), ("b", 0, 0.65), ("b", 1, 0.95), ("b", 2, np.nan)]
    said = find("mean_sensitivity_low", false + lesions)
    assert said.index.tolist() == [
        *(("a", "S", "lcc", n) for n in (0, 1)),
        *(("b", "S", "lcc", n) for n in range(3)),
    ]
    assert said.sum().tolist() == [1, 1, 2, 4]
    assert said.sum(axis=1).tolist() == [2, 1, 1, 4, 0]


def test_without_false_positives_every_lesion_that_has_a_score_is_found() -> None:
    for metric in FIND:
        assert find(metric, [("a", 0, 0.1), ("b", 0, np.nan)]).to_numpy().tolist() == [
            [True] * 4,
            [False] * 4,
        ]


@given(st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=1, max_size=6), st.lists(st.integers(0, 9)))
def test_a_lesion_is_found_when_few_enough_false_positives_score_as_much(
    lesions: list[int | None], false: list[int]
) -> None:
    rows = [(f"p{n}", 0, np.nan if score is None else score) for n, score in enumerate(lesions)]
    for metric, points in POINTS.items():
        said = find(metric, rows + [("p0", -1, score) for score in false])
        assert said.to_numpy().tolist() == [
            [
                score is not None and sum(other >= score for other in false) <= point * len(lesions)
                for point in points
            ]
            for score in lesions
        ]
