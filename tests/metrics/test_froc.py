"""The DBTex score must give the official numbers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbtbench.errors import UsageError
from dbtbench.metrics.froc import froc_curve, match_boxes, mean_sensitivity, outcomes, score_dbtex
from dbtbench.metrics.resampling import patients

ORACLE = Path(__file__).parents[1] / "oracles" / "dbtex"
OFFICIAL: dict[str, dict[str, float]] = json.loads((ORACLE / "official_outputs.json").read_text())
literally = runpy.run_path(str(Path(__file__).with_name("dbtex_reference.py")))["score_literally"]

STUDIES = ("S0", "S1", "S2")
LABEL = ["StudyUID", "View"]
BOX = [*LABEL, "X", "Y", "Width", "Height", "Slice", "VolumeSlices"]
PREDICTION = [*LABEL, "X", "Y", "Width", "Height", "Z", "Depth", "Score"]

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def table(rows: list[Any], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def same(first: dict[str, float], second: dict[str, float]) -> bool:
    return first.keys() == second.keys() and np.allclose(
        [first[key] for key in first], [second[key] for key in first], rtol=0, atol=1e-12, equal_nan=True
    )


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Coordinates on a coarse grid, so that distances fall on the limits and scores tie."""
    study, view = st.sampled_from(STUDIES), st.sampled_from(("lcc", "rmlo"))
    place, size, z = (
        st.integers(0, 10).map(lambda n: n * 20),
        st.sampled_from((1, 40, 300)),
        st.integers(0, 20),
    )
    labels = draw(st.lists(st.tuples(study, view), max_size=8))
    box = st.tuples(study, view, place, place, size, size, z, st.sampled_from((16.0, 20.0, 40.0)))
    score = st.integers(0, 6).map(lambda n: n / 6)
    prediction = st.tuples(
        st.sampled_from((*STUDIES, "unknown")),
        st.sampled_from(("lcc", "rmlo", "LCC")),
        *(place, place, size, size, z, st.sampled_from((-1, 1, 6)), score),
    )
    boxes, predictions = draw(st.lists(box, max_size=6)), draw(st.lists(prediction, max_size=24))
    return table(labels, LABEL), table(boxes, BOX), table(predictions, PREDICTION)


@pytest.mark.parametrize("case", OFFICIAL)
def test_gives_the_official_numbers(case: str) -> None:
    labels, boxes, predictions = (
        pd.read_csv(ORACLE / case / f"{name}.csv") for name in ("labels", "boxes", "predictions")
    )
    assert same(score_dbtex(labels, boxes, predictions), OFFICIAL[case])
    assert same(literally(labels, boxes, predictions), OFFICIAL[case])


VIEWS = [("S0", "lcc"), ("S1", "lcc")]
TWO_BOXES = [("S0", "lcc", 0, 0, 40, 40, 5, 40.0), ("S0", "lcc", 200, 0, 40, 40, 5, 16.0)]


@settings(max_examples=150, deadline=None)
@given(tables())
@example((table(VIEWS, LABEL), table(TWO_BOXES, BOX), table([], PREDICTION)))
@example((table(VIEWS, LABEL), table([], BOX), table([("S0", "lcc", 0, 0, 1, 1, 0, 1, 0.5)], PREDICTION)))
@example(
    (
        table(VIEWS, LABEL),
        table(TWO_BOXES, BOX),
        table([("S0", "lcc", 100, 0, 40, 40, 15, -1, 1)], PREDICTION),
    )
)
def test_agrees_with_the_rule_read_literally(case: Tables) -> None:
    assert same(score_dbtex(*case), literally(*case))


@settings(max_examples=30, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_predictions_does_not_matter(case: Tables, random: Any) -> None:
    labels, boxes, predictions = case
    order = list(range(len(predictions)))
    random.shuffle(order)
    assert same(score_dbtex(*case), score_dbtex(labels, boxes, predictions.iloc[order]))


@settings(max_examples=30, deadline=None)
@given(tables())
def test_more_false_positives_never_help(case: Tables) -> None:
    labels, boxes, predictions = case
    noise = table(
        [(*view, 5000, 5000, 1, 1, 5, 1, 2.0) for view in labels.itertuples(index=False)], PREDICTION
    )
    before = score_dbtex(*case)
    after = score_dbtex(labels, boxes, pd.concat([predictions, noise], ignore_index=True))
    assert all(not after[key] > before[key] for key in before)


def one_box(**changes: Any) -> pd.DataFrame:
    row = {"StudyUID": "S0", "View": "lcc", "X": 0, "Y": 0, "Width": 40, "Height": 40}
    return pd.DataFrame([{**row, "Slice": 20, "VolumeSlices": 40.0, **changes}])


def prediction_at(x: float, z: float, score: float = 0.5) -> dict[str, Any]:
    row = {"StudyUID": "S0", "View": "lcc", "X": x, "Y": 0, "Width": 40, "Height": 40}
    return {**row, "Z": z, "Depth": 0, "Score": score}


@pytest.mark.parametrize(("x", "z", "hit"), [(100, 20, 0), (100.5, 20, -1), (0, 30, 0), (0, 30.5, -1)])
def test_a_hit_lies_within_100_pixels_and_a_quarter_of_the_slices(x: float, z: float, hit: int) -> None:
    assert match_boxes(one_box(), pd.DataFrame([prediction_at(x, z)])).tolist() == [hit]


def test_the_minimum_distance_can_be_given_for_each_box() -> None:
    boxes = pd.concat([one_box(), one_box(X=1000)], ignore_index=True)
    predictions = pd.DataFrame([prediction_at(35, 20), prediction_at(1035, 20)])
    assert match_boxes(boxes, predictions, 30).tolist() == [-1, -1]
    assert match_boxes(boxes, predictions, [30, 40]).tolist() == [-1, 1]


def test_a_second_hit_on_a_box_is_neither_true_nor_false() -> None:
    predictions = pd.DataFrame(
        [prediction_at(0, 20, 0.9), prediction_at(1, 20, 0.8), prediction_at(900, 20, 0.1)]
    )
    curve = froc_curve(table([("S0", "lcc"), ("S1", "lcc")], LABEL), one_box(), predictions)
    assert curve["threshold"].tolist() == [1.9, 0.9, 0.8, -0.9]
    assert curve["tp"].tolist() == [0, 1, 1, 1]
    assert curve["fp"].tolist() == [0, 0, 0, 1]
    assert curve["fn"].tolist() == [1, 0, 0, 0]
    assert curve["fps"].tolist() == [0, 0, 0, 0.5]
    assert curve["sensitivity"].tolist() == [0, 1, 1, 1]


def test_the_positive_curve_leaves_out_volumes_without_boxes() -> None:
    labels = table([("S0", "lcc"), ("S1", "lcc")], LABEL)
    predictions = pd.DataFrame([prediction_at(900, 20), {**prediction_at(900, 20), "StudyUID": "S1"}])
    assert froc_curve(labels, one_box(), predictions)["fps"].max() == 1
    positive = froc_curve(labels, one_box(), predictions, positive_only=True)
    assert positive["fp"].max() == 1
    assert positive["fps"].max() == 1


def test_without_boxes_there_is_no_sensitivity() -> None:
    scores = score_dbtex(table(VIEWS, LABEL), table([], BOX), pd.DataFrame([prediction_at(0, 20)]))
    assert all(np.isnan(value) for value in scores.values())


@pytest.mark.parametrize(
    ("name", "column"),
    [("labels", "View"), ("boxes", "VolumeSlices"), ("boxes", "Slice"), ("predictions", "Score")],
)
def test_a_missing_column_is_named_with_its_table(name: str, column: str) -> None:
    given = {
        "labels": table(VIEWS, LABEL),
        "boxes": one_box(),
        "predictions": pd.DataFrame([prediction_at(0, 20)]),
    }
    given[name] = given[name].drop(columns=column)
    with pytest.raises(UsageError, match=f"the {name} table has no column '{column}'"):
        score_dbtex(**given)


@pytest.mark.parametrize(("column", "value"), [("Score", float("nan")), ("Score", "high"), ("X", "left")])
def test_a_column_without_numbers_is_named(column: str, value: object) -> None:
    predictions = pd.DataFrame([{**prediction_at(0, 20), column: value}])
    with pytest.raises(UsageError, match=f"column '{column}' of the predictions table"):
        score_dbtex(table(VIEWS, LABEL), one_box(), predictions)


def test_a_wrong_number_of_distances_is_an_error() -> None:
    with pytest.raises(UsageError, match="for 1 boxes"):
        match_boxes(one_box(), pd.DataFrame([prediction_at(0, 20)]), [30, 40])


PRIMARY = "mean_sensitivity_positive"
OWNERS = {"S0": "P10", "S1": "P2", "S2": "P2"}


@st.composite
def cohorts(draw: st.DrawFn) -> Tables:
    """Each volume has one row of labels; of two patients one has two studies; about half of the marks hit."""
    volume = (st.sampled_from(STUDIES), st.sampled_from(("lcc", "rmlo")))
    places = draw(st.lists(st.tuples(*volume, st.sampled_from((0, 1000))), max_size=5, unique=True))
    score = st.integers(0, 20).map(lambda n: n / 20)
    marks = st.tuples(*volume, st.sampled_from((0, 1000, 5000, 5000)), score)
    owned = [(owner, study, view) for study, owner in OWNERS.items() for view in ("lcc", "rmlo")]
    boxes = [(study, view, x, 0, 40, 40, 20, 40.0) for study, view, x in places]
    predictions = [
        (s, v, x, 0, 40, 40, 20, 0, score) for s, v, x, score in draw(st.lists(marks, max_size=30))
    ]
    return table(owned, ["PatientID", *LABEL]), table(boxes, BOX), table(predictions, PREDICTION)


def repeated(case: Tables, times: dict[str, int]) -> Tables:
    """The tables of a test set in which each patient is repeated that many times, under new names."""

    def repeat(rows: pd.DataFrame) -> pd.DataFrame:
        owner = rows["StudyUID"].map(OWNERS)
        copies = [
            rows[owner == patient].assign(StudyUID=lambda part, c=copy: part["StudyUID"] + f"-{c}")
            for patient, n in times.items()
            for copy in range(n)
        ]
        return pd.concat([rows.iloc[:0], *copies], ignore_index=True)

    labels, boxes, predictions = map(repeat, case)
    return labels, boxes, predictions


@settings(max_examples=150, deadline=None)
@given(cohorts(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3))
def test_resampling_gives_the_official_score_of_patients_repeated(
    case: Tables, drawn: list[tuple[int, int]]
) -> None:
    found = outcomes(*case)
    names = patients(found)
    times = [dict(zip(("P10", "P2"), row, strict=True)) for row in drawn]
    expected = [score_dbtex(*repeated(case, row))[PRIMARY] for row in times]
    weights = np.array([[row[name] for name in names] for row in times]).reshape(len(times), len(names))
    assert np.allclose(mean_sensitivity(found, weights), expected, rtol=0, atol=1e-12, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(cohorts())
def test_drawing_everybody_once_gives_exactly_the_official_score(case: Tables) -> None:
    found = outcomes(*case)
    once = mean_sensitivity(found, np.ones((1, len(patients(found)))))
    assert np.array_equal(once, [score_dbtex(*case)[PRIMARY]], equal_nan=True)


@pytest.mark.parametrize("case", OFFICIAL)
def test_outcomes_say_all_that_the_official_score_depends_on(case: str, tmp_path: Path) -> None:
    given = [pd.read_csv(ORACLE / case / f"{name}.csv") for name in ("labels", "boxes", "predictions")]
    outcomes(*given).sample(frac=1, random_state=0).to_csv(tmp_path / "outcomes.csv", index=False)
    kept = pd.read_csv(tmp_path / "outcomes.csv")
    once = mean_sensitivity(kept, np.ones((1, len(patients(kept)))))
    assert once == pytest.approx([OFFICIAL[case][PRIMARY]], abs=1e-12)


def test_outcomes_are_hits_missed_boxes_and_false_positives_of_volumes_with_boxes() -> None:
    labels = table([("A", "S0", "lcc"), ("A", "S1", "lcc")], ["PatientID", *LABEL])
    boxes = pd.concat([one_box(), one_box(X=3000)], ignore_index=True)
    marks = [prediction_at(0, 20, 0.5), prediction_at(1, 20, 0.25), prediction_at(900, 20, 0.75)]
    found = outcomes(labels, boxes, pd.DataFrame([*marks, {**prediction_at(0, 20), "StudyUID": "S1"}]))
    assert list(found) == ["PatientID", *LABEL, "box", "Score"]
    assert found[["PatientID", *LABEL]].drop_duplicates().to_numpy().tolist() == [["A", "S0", "lcc"]]
    assert found["box"].tolist() == [-1, 0, 0, 1]
    assert found["Score"].tolist()[:3] == [0.75, 0.25, 0.5]
    assert np.isnan(found["Score"].iloc[3])


FALSE = [prediction_at(900, 20, score) for score in (0.8, 0.7, 0.6, 0.5, 0.4)]
LATE = [prediction_at(0, 20, 0.9), *FALSE, prediction_at(3000, 20, 0.1)]
"""Of two boxes one is found with fewer than one false positive, the other with more than four."""


@pytest.mark.parametrize("second", [[], [prediction_at(1, 20, 0.45)]])
def test_a_second_hit_is_an_operating_point_in_replicates_too(second: list[dict[str, Any]]) -> None:
    labels = table([("A", "S0", "lcc")], ["PatientID", *LABEL])
    boxes, predictions = pd.concat([one_box(), one_box(X=3000)]), pd.DataFrame([*LATE, *second])
    official = score_dbtex(labels, boxes, predictions)[PRIMARY]
    assert (official == 0.5) == bool(second)
    assert mean_sensitivity(outcomes(labels, boxes, predictions), [[1], [2]]).tolist() == [official] * 2


def test_hits_of_patients_left_out_are_no_operating_points() -> None:
    labels = table([("A", "S0", "lcc"), ("B", "S1", "lcc")], ["PatientID", *LABEL])
    boxes = pd.concat([one_box(), one_box(X=3000), one_box(StudyUID="S1")], ignore_index=True)
    predictions = pd.DataFrame([*LATE, {**prediction_at(0, 20, 0.45), "StudyUID": "S1"}])
    alone = score_dbtex(labels[:1], boxes[:2], predictions[:-1])[PRIMARY]
    assert alone != 0.5
    assert mean_sensitivity(outcomes(labels, boxes, predictions), [[1, 0]]).tolist() == [alone]


@pytest.mark.parametrize("studies", [["S1"], ["S0", "S0"]])
def test_a_volume_with_boxes_needs_one_row_of_labels(studies: list[str]) -> None:
    labels = table([("A", study, "lcc") for study in studies], ["PatientID", *LABEL])
    with pytest.raises(UsageError, match="volume S0 lcc has boxes, but not one row of labels"):
        outcomes(labels, one_box(), pd.DataFrame([prediction_at(0, 20)]))
