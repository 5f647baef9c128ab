"""FROC curves of arms, with bands over patients, and their gains by group of test volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.columns import KEY
from dbtbench.data.groups import GROUPS, describe_groups
from dbtbench.leaderboard.variance import draw_patients
from dbtbench.metric import Metric
from dbtbench.metrics.froc import sensitivities
from dbtbench.metrics.resampling import Floats, patients
from dbtbench.records import Result
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.report.tables import format_difference, format_value, kind_of, place
from dbtbench.task import BASELINE

REPLICATES = 200
POINTS = tuple(2.0 ** (step / 4) for step in range(-16, 13))
"""False positives a volume: sixteenths to eight, four steps an octave."""
OPERATING_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
HITS = {"box", "Score"}
"""Columns of an outcomes table that a curve can be computed from."""
FEWEST = 10
"""Patients that a group needs."""


def describe_curves(board: BoardRuns) -> dict[str, Any] | None:
    """Compute the mean curve over seeds of each arm, and its 95 % band over patients.

    Returns:
        `points` (K), `arms` with `label`, `kind`, `value`, `low` and `high` (K each), and `operating`, the
        values at the operating points as text; None where no run kept outcomes of lesions.
    """
    arms = []
    for label, runs in board.runs.items():
        tables = [table for seed in sorted(runs) if (table := _find_hits(runs[seed])) is not None]
        if len(tables) < len(runs):
            continue
        weights = draw_patients(len(patients(tables[0])), REPLICATES, 0)
        curve = np.mean([sensitivities(table, weights, POINTS) for table in tables], axis=0)
        low, high = np.nanpercentile(curve[1:], (2.5, 97.5), axis=0)
        at = [POINTS.index(point) for point in OPERATING_POINTS]
        arms.append(
            {
                "label": label,
                "kind": kind_of(label.split(" ")[0]),
                "seeds": len(tables),
                "value": _round(curve[0]),
                "low": _round(low),
                "high": _round(high),
                "operating": [
                    {
                        "value": format_value(curve[0, k]),
                        "low": format_value(low[k]),
                        "high": format_value(high[k]),
                    }
                    for k in at
                ],
            }
        )
    if not arms:
        return None
    return {"board": board.name, "points": _round(POINTS), "operating": list(OPERATING_POINTS), "arms": arms}


def describe_gains(material: Material, board: BoardRuns) -> dict[str, Any] | None:
    """Compute by how much each arm is better than the baseline in each group of test volumes.

    Returns:
        `metric` (its heading), `arms`, the axis and `rows`, one for each arm and group: `arm`, `column`,
        `group`, `patients`, `gain`, `low`, `high` and their `bar`; intervals are over patients, means over
        seeds. None where the data set is not there, or nothing can be resampled.
    """
    result = board.first
    metric = result.metrics[result.record.primary]
    dataset = material.dataset_of(result)
    if dataset is None or metric.resample is None or BASELINE not in board.runs:
        return None
    groups = describe_groups(dataset.select("test")).set_index(KEY)
    own = {
        label: tables
        for label, runs in board.runs.items()
        if kind_of(label.split(" ")[0]) != "reference" and len(tables := _outcomes(metric, runs)) == len(runs)
    }
    if BASELINE not in own or len(own) < 2:
        return None
    rows = []
    for column in (name for name in GROUPS if name in groups):
        of = groups[column].reindex(pd.MultiIndex.from_frame(own[BASELINE][0][KEY].astype(str)))
        for group in sorted({name for name in of if isinstance(name, str) and name}):
            rows += _compare_group(metric, own, groups[column], column, group)
    return _scale_gains(board.name, metric, rows) if rows else None


def _scale_gains(board: str, metric: Metric, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lay all bars of a board on one axis with 0 on it."""
    ends = [row[end] for row in rows for end in ("low", "high")]
    scale = min(0.0, *ends) - 0.01, max(0.0, *ends) + 0.01
    for row in rows:
        row["bar"] = [place(row[end], scale) for end in ("gain", "low", "high")]
    return {
        "board": board,
        "metric": metric.heading,
        "arms": list(dict.fromkeys(row["arm"] for row in rows)),
        "scale": [format_difference(end) for end in scale],
        "zero": place(0.0, scale),
        "rows": rows,
    }


def _compare_group(
    metric: Metric, own: Mapping[str, list[pd.DataFrame]], of: pd.Series, column: str, group: str
) -> list[dict[str, Any]]:
    """Compare each arm with the baseline in one group; nothing where it has too few patients."""
    scores: dict[str, Floats] = {}
    count = 0
    for label, tables in own.items():
        drawn = []
        for table in tables:
            inside = of.reindex(pd.MultiIndex.from_frame(table[KEY].astype(str))).to_numpy() == group
            part = table[inside]
            count = len(patients(part))
            if count < FEWEST or inside.all():
                return []
            assert metric.resample is not None
            drawn.append(metric.resample(part, draw_patients(count, REPLICATES, 0)))
        scores[label] = np.mean(drawn, axis=0)
    rows = []
    for label in own:
        if label == BASELINE:
            continue
        gain = metric.better(scores[label] - scores[BASELINE])
        if not np.isfinite(gain[0]):
            continue
        low, high = np.nanpercentile(gain[1:], (2.5, 97.5))
        row = {"arm": label, "column": column.replace("_", " "), "group": group, "patients": count}
        ends = {"gain": float(gain[0]), "low": float(low), "high": float(high)}
        rows.append(row | ends | {"text": format_difference(gain[0], low, high)})
    return rows


def _find_hits(run: Result) -> pd.DataFrame | None:
    """Find the outcomes of a run that a curve can be computed from."""
    return next((table for table in run.outcomes.values() if set(table.columns) >= HITS), None)


def _outcomes(metric: Metric, runs: Mapping[int, Result]) -> list[pd.DataFrame]:
    tables = (runs[seed].outcomes_of(metric.name) for seed in sorted(runs))
    return [table for table in tables if table is not None]


def _round(values: Any) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
