"""The DBTex rule read out loud, one prediction and one threshold at a time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def score_literally(
    labels: pd.DataFrame, boxes: pd.DataFrame, predictions: pd.DataFrame, minimum_distance: float = 100.0
) -> dict[str, float]:
    boxes = boxes.reset_index(drop=True)
    hits = [nearest_hit(prediction, boxes, minimum_distance) for _, prediction in predictions.iterrows()]
    predictions = predictions.assign(Hit=pd.Series(hits, index=predictions.index, dtype=float))
    scores = predictions["Score"]
    thresholds = [scores.max() + 1, *scores[predictions["Hit"].notna()], scores.min() - 1]
    result = {
        "sensitivity_at_2_fps_all": sensitivities(predictions, thresholds, len(labels), len(boxes), [2])[0]
    }
    positive = sensitivities(
        predictions[in_views_of(predictions, boxes)],
        thresholds,
        len(labels[in_views_of(labels, boxes)]),
        len(boxes),
        [1, 2, 3, 4],
    )
    for fps, sensitivity in zip((1, 2, 3, 4), positive, strict=True):
        result[f"sensitivity_at_{fps}_fps_positive"] = sensitivity
    result["mean_sensitivity_positive"] = float(np.mean(positive))
    return result


def in_views_of(table: pd.DataFrame, boxes: pd.DataFrame) -> NDArray[np.bool_]:
    views = set(zip(boxes["StudyUID"], boxes["View"], strict=True))
    return np.array([view in views for view in zip(table["StudyUID"], table["View"], strict=True)], bool)


def nearest_hit(prediction: pd.Series, boxes: pd.DataFrame, minimum_distance: float) -> float:
    """Row of the nearest box that is hit, NaN for none."""
    view = boxes[(boxes["StudyUID"] == prediction["StudyUID"]) & (boxes["View"] == prediction["View"])]
    nearest, nearest_distance = math.nan, math.inf
    for row, box in view.iterrows():
        dx = prediction["X"] + prediction["Width"] / 2 - (box["X"] + box["Width"] / 2)
        dy = prediction["Y"] + prediction["Height"] / 2 - (box["Y"] + box["Height"] / 2)
        dz = prediction["Z"] + prediction["Depth"] / 2 - box["Slice"]
        radius = max(math.sqrt(box["Width"] ** 2 + box["Height"] ** 2) / 2, minimum_distance)
        if math.sqrt(dx**2 + dy**2) <= radius and abs(dz) <= view["VolumeSlices"].iloc[0] / 4:
            distance = math.sqrt(dx**2 + dy**2 + dz**2)
            if distance < nearest_distance:
                nearest, nearest_distance = row, distance
    return nearest


def sensitivities(
    predictions: pd.DataFrame, thresholds: list[float], volumes: int, boxes: int, at: list[float]
) -> list[float]:
    if not volumes or not boxes:
        return [math.nan for _ in at]
    fps, found = [], []
    for threshold in sorted(thresholds, reverse=True):
        kept = predictions[predictions["Score"] >= threshold]
        found.append(kept["Hit"].nunique() / boxes)
        fps.append(kept["Hit"].isna().sum() / volumes)
        if fps[-1] > max(at):
            break
    return [float(np.interp(x, fps, found)) for x in at]
