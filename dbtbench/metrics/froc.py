"""The official DBTex score: free-response operating characteristic (FROC) of boxes in BCS-DBT columns.

An own implementation of the published rule that gives the same numbers, in one pass over sorted scores.
Source: Konz N et al. A competition, benchmark, code, and data for using artificial intelligence to detect
lesions in digital breast tomosynthesis. JAMA Network Open 6(2):e230524, 2023, and the evaluation code that
the DBTex challenge published (github.com/mazurowski-lab/duke-dbt-data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dbtbench.data.columns import KEY
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.metrics.resampling import Floats, patient_numbers, resample

MINIMUM_DISTANCE = 100.0
MATCH_MM = 10.0
"""The same in mm, for data that say how large their pixels are."""
FPS_ALL = 2.0
FPS_POSITIVE = (1.0, 2.0, 3.0, 4.0)
FPS_LOW = (0.125, 0.25, 0.5, 1.0)
"""Operating points at which guesses find next to nothing: the lower ones of the LUNA16 challenge's seven."""

VIEW_KEY = ["StudyUID", "View"]
BOX_NUMBERS = ["Slice", "X", "Y", "Width", "Height", "VolumeSlices"]
PREDICTION_NUMBERS = ["X", "Width", "Y", "Height", "Z", "Depth", "Score"]

Integers = NDArray[np.int64]
Curve = dict[str, NDArray[Any]]


def score_dbtex(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: pd.DataFrame,
    minimum_distance: ArrayLike = MINIMUM_DISTANCE,
) -> dict[str, float]:
    """Score predictions by the DBTex rule.

    A prediction hits a box when its centre is within max(half the box's diagonal, `minimum_distance`) of the
    box's centre in the plane and within a quarter of the volume's slices of its slice. Hitting several boxes,
    it counts for the nearest. The best hit on a box is a true positive, further hits are nothing, and
    predictions that hit no box are false positives. Sensitivities are interpolated linearly between the
    operating points.

    >>> import pandas as pd
    >>> view = {"StudyUID": ["S1"], "View": ["lcc"]}
    >>> box = {"Slice": 20, "X": 100, "Y": 300, "Width": 80, "Height": 60, "VolumeSlices": 60}
    >>> found = {"X": 110, "Width": 70, "Y": 290, "Height": 70, "Z": 18, "Depth": 5, "Score": 0.9}
    >>> scores = score_dbtex(pd.DataFrame(view), pd.DataFrame(view | box), pd.DataFrame(view | found))
    >>> scores["mean_sensitivity_positive"]
    1.0

    Args:
        labels: one row a volume: StudyUID, View.
        boxes: one row a lesion: StudyUID, View and `BOX_NUMBERS`, in pixels and slices.
        predictions: one row a predicted box: StudyUID, View and `PREDICTION_NUMBERS`; X and Y are its
            upper-left corner and Z its first slice.
        minimum_distance: one number, or one for each box, in pixels. 100 px belongs to the 2457 × 1890 pixels
            of the challenge (about 10 mm); volumes with other pixels need 10 mm in theirs.

    Returns:
        `sensitivity_at_2_fps_all` at 2 false positives a volume over all volumes;
        `sensitivity_at_{1,2,3,4}_fps_positive` over the volumes with boxes, and their mean
        `mean_sensitivity_positive`, the challenge's ranking. NaN where there are no boxes or no such volumes.

    Raises:
        UsageError: when a table lacks a column or a column holds something other than numbers.
    """
    every, positive = _curves(labels, boxes, predictions, minimum_distance)
    scores = {"sensitivity_at_2_fps_all": _sensitivity(every, FPS_ALL)}
    at = [_sensitivity(positive, fps) for fps in FPS_POSITIVE]
    scores |= {f"sensitivity_at_{fps:.0f}_fps_positive": s for fps, s in zip(FPS_POSITIVE, at, strict=True)}
    return scores | {"mean_sensitivity_positive": float(np.mean(at))}


def froc_curve(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: pd.DataFrame,
    minimum_distance: ArrayLike = MINIMUM_DISTANCE,
    positive_only: bool = False,
) -> pd.DataFrame:
    """Compute the curve that `score_dbtex` reads its sensitivities from, with the thresholds behind it.

    Args:
        labels: as for `score_dbtex`.
        boxes: as for `score_dbtex`.
        predictions: as for `score_dbtex`.
        minimum_distance: as for `score_dbtex`.
        positive_only: count only volumes with boxes, and only their false positives.

    Returns:
        One row a threshold, from the highest: `threshold` (predictions with Score ≥ threshold are kept),
        `fps` (false positives a volume), `sensitivity`, and the counts `tp`, `fp`, `fn`. The thresholds are
        the scores of all hits, the highest score + 1 and the lowest − 1; NaN when there are no predictions.

    Raises:
        UsageError: as `score_dbtex`.
    """
    return pd.DataFrame(_curves(labels, boxes, predictions, minimum_distance)[positive_only])


def match_boxes(
    boxes: pd.DataFrame, predictions: pd.DataFrame, minimum_distance: ArrayLike = MINIMUM_DISTANCE
) -> Integers:
    """Find the box that each prediction hits.

    Args:
        boxes: as for `score_dbtex`.
        predictions: as for `score_dbtex`.
        minimum_distance: as for `score_dbtex`.

    Returns:
        For each prediction the row of its box in `boxes`, counted from 0, or −1 for none.

    Raises:
        UsageError: as `score_dbtex`.
    """
    truth, predicted = _numbers("boxes", boxes), _numbers("predictions", predictions)
    box_view, predicted_view = number_views(boxes, predictions)
    return _match(truth, predicted, box_view, predicted_view, _distances(minimum_distance, len(boxes)))


def outcomes(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: pd.DataFrame,
    minimum_distance: ArrayLike = MINIMUM_DISTANCE,
) -> pd.DataFrame:
    """Collect all that `mean_sensitivity_positive` depends on, by patient, so that it can be resampled.

    Args:
        labels: as for `score_dbtex`, and PatientID.
        boxes: as for `score_dbtex`.
        predictions: as for `score_dbtex`.
        minimum_distance: as for `score_dbtex`.

    Returns:
        PatientID, StudyUID, View, `box`, `Score`, of the volumes with boxes. One row for each prediction that
        hits a box (`box` is its number in its volume, from 0), one without Score for each box that nothing
        hits, and one for each false positive (`box` is −1). Hits after a box's best find nothing more, but
        the official rule has an operating point at each of their scores.

    Raises:
        UsageError: as `score_dbtex`, and when a volume with boxes has no row in the labels, or several.
    """
    _require("labels", labels, KEY)
    hit = match_boxes(boxes, predictions, minimum_distance)
    label_view, box_view, predicted_view = number_views(labels, boxes, predictions)
    for box in np.flatnonzero((label_view == box_view[:, None]).sum(axis=1) != 1)[:1]:
        raise UsageError(
            f"volume {' '.join(boxes[VIEW_KEY].iloc[box].astype(str))} has boxes, but not one row of labels",
            "give each volume exactly one row in the labels table",
        )
    number = np.append(pd.Series(box_view).groupby(box_view).cumcount().to_numpy(np.int64), -1)
    missed = np.setdiff1d(np.arange(len(boxes)), hit)
    kept = np.isin(predicted_view, box_view)
    order = np.argsort(label_view)
    view = np.concatenate([box_view[missed], predicted_view[kept]])
    table = labels[KEY].astype(str).iloc[order[np.searchsorted(label_view, view, sorter=order)]]
    table["box"] = number[np.concatenate([missed, hit[kept]])]
    scores = predictions["Score"].to_numpy(np.float64)[kept]
    table["Score"] = np.concatenate([np.full(len(missed), np.nan), scores])
    return table.sort_values([*KEY, "box", "Score"], ignore_index=True)


def mean_sensitivity(
    outcomes: pd.DataFrame, weights: ArrayLike, points: Sequence[float] = FPS_POSITIVE
) -> Floats:
    """Resample a mean sensitivity on volumes with boxes, at the points of the ranking or others.

    Args:
        outcomes: from the function `outcomes`.
        weights: (R, P) whole numbers ≥ 0: how often each of `resampling.patients(outcomes)` is drawn.
        points: numbers of false positives a volume, all above 0, at which it is read and averaged.

    Returns:
        (R,) float64: at the points of the ranking `mean_sensitivity_positive` as `score_dbtex` gives it for a
        test set that holds each patient that many times; NaN where it holds none.

    Raises:
        UsageError: when the weights are not such numbers.
    """
    return np.asarray(sensitivities(outcomes, weights, points).mean(axis=1))


def sensitivities(outcomes: pd.DataFrame, weights: ArrayLike, points: Sequence[float]) -> Floats:
    """Resample the curve on volumes with boxes: its sensitivity at each of K points.

    Args:
        outcomes: from the function `outcomes`.
        weights: (R, P), as for `mean_sensitivity`.
        points: numbers of false positives a volume, all above 0.

    Returns:
        (R, K) float64; NaN where a replicate holds no patient.

    Raises:
        UsageError: when the weights are not such numbers.
    """
    hits, tp, fp, sizes = _by_patient(outcomes)

    def score(drawn: Floats) -> Floats:
        volumes, boxes = (drawn @ sizes).T[:, :, None]
        there = drawn @ hits > 0
        there[:, [0, -1]] = True
        with np.errstate(invalid="ignore"):
            fps, sensitivity = drawn @ fp / volumes, drawn @ tp / boxes
        return np.stack([_interpolate(at, fps, sensitivity, there) for at in points], axis=1)

    return resample(weights, len(sizes), hits.shape[1], score)


def _by_patient(outcomes: pd.DataFrame) -> tuple[Floats, Floats, Floats, Floats]:
    """Compute each patient's part of the positive curve.

    Returns:
        (P, T) number of hits at each threshold, and of boxes found and false positives at or above it, where
        the thresholds are a value above all scores, each hit's score downwards, and a value below all scores;
        (P, 2) number of volumes and of boxes.
    """
    patient, box = patient_numbers(outcomes), outcomes["box"].to_numpy(np.int64)
    scores = outcomes["Score"].to_numpy(np.float64)
    n = int(patient.max(initial=-1)) + 1
    hit = (box >= 0) & np.isfinite(scores)
    downwards = np.concatenate([[-np.inf], np.unique(-scores[hit]), [np.inf]])

    def count(rows: NDArray[Any]) -> Floats:
        table = np.zeros((n, len(downwards)))
        np.add.at(table, (patient[rows], np.searchsorted(downwards, -scores[rows])), 1)
        return table

    volume = outcomes.groupby(KEY, sort=False).ngroup().to_numpy()
    order = np.lexsort((-scores, box, volume))
    new_volume, new_box = np.diff(np.stack([volume, box])[:, order], axis=1, prepend=-2) != 0
    of_boxes = order[(new_volume | new_box) & (box[order] >= 0)]
    rows = order[new_volume], of_boxes
    sizes = np.stack([np.bincount(patient[row], minlength=n) for row in rows], axis=1).astype(np.float64)
    found = count(of_boxes[hit[of_boxes]]).cumsum(axis=1)
    return count(np.flatnonzero(hit)), found, count(np.flatnonzero(box < 0)).cumsum(axis=1), sizes


def _interpolate(at: float, fps: Floats, sensitivity: Floats, there: NDArray[np.bool_]) -> Floats:
    """`np.interp(at, fps, sensitivity)` in every row, of the operating points that are there.

    Args:
        at: above 0, where every row begins.
        fps: (R, T), never falling along a row.
        sensitivity: (R, T).
        there: (R, T); the first and the last are.
    """
    rows = np.arange(len(fps))
    beyond = there & (fps > at)
    right = np.where(beyond.any(axis=1), beyond.argmax(axis=1), -1)
    left = fps.shape[1] - 1 - (there & ~beyond)[:, ::-1].argmax(axis=1)
    x, y = fps[rows, left], sensitivity[rows, left]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (sensitivity[rows, right] - y) / (fps[rows, right] - x)
    return np.asarray(np.where(right < 0, y, slope * (at - x) + y))


def match_distances(dataset: DBTDataset) -> Floats:
    """Give the distance from each box's centre within which a detection hits it, at least.

    DBTex accepts 100 pixels, about 10 mm. Data with other pixels accept 10 mm; data that do not say their
    pixel size are taken to have DBTex's.

    Returns:
        Native pixels, one number a row of `dataset.boxes`.
    """
    pixel_mm = dataset.boxes["case"].map(dataset.cases.set_index("case")["pixel_mm"])
    distances: Floats = (MATCH_MM / pixel_mm).fillna(MINIMUM_DISTANCE).to_numpy(np.float64)
    return distances


def _curves(
    labels: pd.DataFrame, boxes: pd.DataFrame, predictions: pd.DataFrame, minimum_distance: ArrayLike
) -> tuple[Curve, Curve]:
    """Compute the curve over all volumes and the one over volumes with boxes."""
    _require("labels", labels, VIEW_KEY)
    truth, predicted = _numbers("boxes", boxes), _numbers("predictions", predictions)
    label_view, box_view, predicted_view = number_views(labels, boxes, predictions)
    hit = _match(truth, predicted, box_view, predicted_view, _distances(minimum_distance, len(boxes)))
    scores = predicted["Score"]
    false = hit < 0
    with_boxes = int(np.isin(label_view, box_view).sum())
    return (
        _curve(scores, hit, scores[false], len(labels), len(boxes)),
        _curve(scores, hit, scores[false & np.isin(predicted_view, box_view)], with_boxes, len(boxes)),
    )


def _match(
    truth: dict[str, Floats],
    predicted: dict[str, Floats],
    box_view: Integers,
    predicted_view: Integers,
    minimum_distance: Floats,
) -> Integers:
    radius = np.maximum(np.sqrt(truth["Width"] ** 2 + truth["Height"] ** 2) / 2, minimum_distance)
    box, prediction = _pairs(box_view, predicted_view)
    dx, dy = (
        (predicted[axis] + predicted[size] / 2)[prediction] - (truth[axis] + truth[size] / 2)[box]
        for axis, size in (("X", "Width"), ("Y", "Height"))
    )
    dz = (predicted["Z"] + predicted["Depth"] / 2)[prediction] - truth["Slice"][box]
    # The number of slices is read from a view's first box, also where its others disagree.
    _, first, number = np.unique(box_view, return_index=True, return_inverse=True)
    reach = (truth["VolumeSlices"][first] / 4)[number]
    near = (np.sqrt(dx**2 + dy**2) <= radius[box]) & (np.abs(dz) <= reach[box])
    # "Nearest" mixes pixels with slices, unscaled: the official rule.
    distance = np.sqrt(dx**2 + dy**2 + dz**2)[near]
    box, prediction = box[near], prediction[near]
    order = np.lexsort((box, distance, prediction))
    hitting, nearest = np.unique(prediction[order], return_index=True)
    hit = np.full(len(predicted_view), -1, np.int64)
    hit[hitting] = box[order][nearest]
    return hit


def _pairs(box_view: Integers, predicted_view: Integers) -> tuple[Integers, Integers]:
    """Pair the rows of every box and prediction that share a view."""
    order = np.argsort(box_view, kind="stable")
    start, end = (np.searchsorted(box_view[order], predicted_view, side) for side in ("left", "right"))
    count = end - start
    prediction = np.repeat(np.arange(len(predicted_view)), count)
    within = np.arange(len(prediction)) - np.repeat(np.cumsum(count) - count, count)
    return order[start[prediction] + within], prediction


def _curve(scores: Floats, hit: Integers, false_scores: Floats, volumes: int, boxes: int) -> Curve:
    """Compute one whole curve: where the official loop stops early, interpolation looks no further either."""
    true = hit >= 0
    best = np.full(boxes, -np.inf)
    np.maximum.at(best, hit[true], scores[true])
    ends = [scores.max() + 1, scores.min() - 1] if scores.size else [np.nan]
    thresholds = np.unique(np.concatenate([scores[true], ends]))[::-1]
    tp, fp = (
        len(found) - np.searchsorted(np.sort(found), thresholds)
        for found in (best[best > -np.inf], false_scores)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = {"fps": fp / np.float64(volumes), "sensitivity": tp / np.float64(boxes)}
    return {"threshold": thresholds, **rates, "tp": tp, "fp": fp, "fn": boxes - tp}


def _sensitivity(curve: Curve, fps: float) -> float:
    if not np.isfinite(curve["fps"]).all():
        return float("nan")
    return float(np.interp(fps, curve["fps"], curve["sensitivity"]))


def number_views(*tables: pd.DataFrame) -> list[Integers]:
    """Number the views of several tables: rows have the same number when study and view are the same."""
    keys = pd.concat([table[VIEW_KEY].astype(str) for table in tables])
    numbers = keys.groupby(VIEW_KEY, sort=False, dropna=False).ngroup().to_numpy(np.int64)
    return np.split(numbers, np.cumsum([len(table) for table in tables])[:-1])


def _distances(minimum_distance: ArrayLike, boxes: int) -> Floats:
    given = np.asarray(minimum_distance, np.float64)
    if given.shape not in ((), (boxes,)):
        raise UsageError(
            f"minimum_distance has shape {given.shape} for {boxes} boxes", "one number, or one a box"
        )
    return np.broadcast_to(given, boxes)


def _numbers(name: str, table: pd.DataFrame) -> dict[str, Floats]:
    """Read the numeric columns of a table as arrays."""
    columns = BOX_NUMBERS if name == "boxes" else PREDICTION_NUMBERS
    _require(name, table, [*VIEW_KEY, *columns])
    numbers = {}
    for column in columns:
        try:
            numbers[column] = table[column].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(f"column {column!r} of the {name} table must hold numbers: {error}") from error
    if name == "predictions" and not np.isfinite(numbers["Score"]).all():
        raise UsageError("column 'Score' of the predictions table must hold finite numbers")
    return numbers


def _require(name: str, table: pd.DataFrame, columns: list[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        hint = (
            "the first version of the BCS-DBT tables lacks it; use v2" if missing == ["VolumeSlices"] else ""
        )
        raise UsageError(f"the {name} table has no column {', '.join(map(repr, missing))}", hint)
