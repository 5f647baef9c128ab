"""AFROC areas must be the areas under the curves drawn point by point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.metrics.afroc import score_afroc

KEY = ["StudyUID", "View"]
VOLUMES = ("A", "B", "C")
PLACES = (0, 1000, 2000)


def boxes_at(found: list[tuple[str, int]]) -> pd.DataFrame:
    table = pd.DataFrame(found, columns=["StudyUID", "X"]).assign(View="lcc", Y=0, Width=40, Height=40)
    return table.assign(Slice=20, VolumeSlices=40.0)


def predictions_at(marks: list[tuple[str, int, float]]) -> pd.DataFrame:
    table = pd.DataFrame(marks, columns=["StudyUID", "X", "Score"]).assign(
        View="lcc", Y=0, Width=40, Height=40
    )
    return table.assign(Z=20, Depth=0)


LABELS = pd.DataFrame({"StudyUID": VOLUMES, "View": "lcc"})


def areas_drawn(boxes: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
    """Marks at the place of a box hit it, all others are false; areas by trapezoids."""
    places = list(zip(boxes["StudyUID"], boxes["X"], strict=True))
    marks = list(zip(predictions["StudyUID"], predictions["X"], predictions["Score"], strict=True))
    rating = {box: max((s for *at, s in marks if tuple(at) == box), default=-np.inf) for box in places}
    highest = {
        v: max((s for w, x, s in marks if w == v and (w, x) not in rating), default=-np.inf) for v in VOLUMES
    }
    count = {volume: sum(box[0] == volume for box in rating) for volume in VOLUMES}
    weight = {box: 1 / count[box[0]] / sum(n > 0 for n in count.values()) for box in rating}
    points = [(0.0, 0.0, 0.0)]
    for threshold in sorted({s for *_, s in marks}, reverse=True):
        fpf = np.mean([highest[volume] >= threshold for volume in VOLUMES])
        llf = np.mean([rating[box] >= threshold for box in places])
        points.append(
            (float(fpf), float(llf), sum(weight[box] for box in rating if rating[box] >= threshold))
        )
    fpf, llf, weighted = np.array([*points, (1.0, 1.0, 1.0)]).T
    return {"afroc_auc": float(np.trapezoid(llf, fpf)), "wafroc_auc": float(np.trapezoid(weighted, fpf))}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(VOLUMES), st.sampled_from(PLACES)), min_size=1, max_size=6, unique=True
    ),
    st.lists(
        st.tuples(st.sampled_from(VOLUMES), st.sampled_from((*PLACES, 500)), st.sampled_from((0.1, 0.5, 0.9)))
    ),
)
def test_areas_are_those_under_the_curves(found: list[Any], marks: list[Any]) -> None:
    boxes, predictions = boxes_at(found), predictions_at(marks)
    assert score_afroc(LABELS, boxes, predictions) == pytest.approx(
        areas_drawn(boxes, predictions), abs=1e-12
    )


def test_lesions_of_one_volume_share_its_weight() -> None:
    boxes = boxes_at([("A", 0), ("A", 1000), ("A", 2000), ("B", 0)])
    predictions = predictions_at([("B", 0, 0.9), ("C", 500, 0.5)])
    # Three lesions without a mark: below volume C's false positive, and level with A and B, which have none.
    assert score_afroc(LABELS, boxes, predictions) == pytest.approx(
        {"afroc_auc": (1 + 3 * 1 / 3) / 4, "wafroc_auc": (1 + 1 / 3) / 2}
    )


def test_marking_nothing_is_worth_a_half() -> None:
    scores = score_afroc(LABELS, boxes_at([("A", 0)]), predictions_at([]))
    assert scores == {"afroc_auc": 0.5, "wafroc_auc": 0.5}


def test_predictions_on_unknown_volumes_do_not_count() -> None:
    boxes, marks = boxes_at([("A", 0)]), [("A", 0, 0.5), ("B", 500, 0.9)]
    with_unknown = predictions_at([*marks, ("Z", 500, 0.99)])
    assert score_afroc(LABELS, boxes, with_unknown) == score_afroc(LABELS, boxes, predictions_at(marks))


def test_without_boxes_or_volumes_there_is_no_area() -> None:
    assert np.isnan(list(score_afroc(LABELS, boxes_at([]), predictions_at([])).values())).all()
    assert np.isnan(
        list(score_afroc(LABELS.iloc[:0], boxes_at([("A", 0)]), predictions_at([])).values())
    ).all()
