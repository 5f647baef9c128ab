"""The boards for the page: rows, numbers as text, and where their bars and marks lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.leaderboard.board import labels_of
from dbtbench.leaderboard.comparison import ENOUGH_SEEDS
from dbtbench.leaderboard.roles import Roles
from dbtbench.leaderboard.variance import LEVEL
from dbtbench.metric import ARROWS, number
from dbtbench.records import Result
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.task import ALONE, ARMS_OF_REAL, BASELINE, FINETUNE, REFERENCES, ArmName

DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "target": "nearest to real is best",
}
KINDS = {
    "real": "real data only",
    "augmentation": "augmentation",
    "control": "control",
    "reference": "nothing trained",
}


def describe_board(material: Material, board: BoardRuns) -> dict[str, Any]:
    """Describe one board: what it is of, its columns, and a row for each arm."""
    rows = label_rows(material.table[material.table["board"] == board.name])
    primary = rows[rows["primary"] == 1]
    record = board.first.record
    headline = rows[rows["headline"] > 0].sort_values("headline").drop_duplicates("metric")
    scale = find_scale(primary, board, record.primary)
    lines = [
        {"name": row["label"], "at": place(row["value"], scale), "value": format_value(row["value"])}
        for _, row in primary.iterrows()
        if row["label"] in (BASELINE, *REFERENCES)
    ]
    return {
        "name": board.name,
        "task": record.task,
        "dataset": record.data.name,
        "phantom": record.data.phantom is not None,
        "primary": record.primary,
        "columns": [_describe_metric(row) for _, row in headline.iterrows()],
        "scale": [format_value(end) for end in scale],
        "lines": lines,
        "floor": bool(primary["floor"].notna().any()),
        "tested": bool(primary["difference_low"].notna().any()),
        "rows": [
            _describe_row(row, rows[rows["label"] == row["label"]], headline["metric"], board, scale)
            for _, row in primary.iterrows()
        ],
    }


def label_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of one board their arms' labels, as the column `label`."""
    keys = list(zip(rows["arm"], rows["synthetic_fingerprint"].astype(object).fillna(""), strict=True))
    labels = labels_of(dict.fromkeys(keys))
    return rows.assign(label=[labels[key] for key in keys])


def kind_of(arm: str) -> str:
    """Say what an arm is for: one of `KINDS`. Several trainings together are what each of them is."""
    name = ArmName.parse(arm.partition(" (")[0])
    if name.source in REFERENCES:
        return "reference"
    if name.source in ARMS_OF_REAL:
        return "real"
    return "control" if name.control and name.control not in (ALONE, FINETUNE) else "augmentation"


def judge_row(row: Mapping[str, Any]) -> str:
    """Say in a word or three what a test of the primary metric, or its place on the floor, gave."""
    if row["arm"] == BASELINE:
        return "baseline"
    if kind_of(str(row["arm"])) == "reference":
        return "reference"
    if not pd.isna(row["difference_low"]):
        if min(row["seeds"], row["baseline_seeds"]) < ENOUGH_SEEDS:
            return "too few seeds"
        p = row["p"] if pd.isna(row["p_holm"]) else row["p_holm"]
        if pd.isna(p) or p > LEVEL:
            return "not distinguishable"
        return "better" if row["better"] > 0 else "worse"
    if not pd.isna(row["floor_percentile"]):
        return "within real data" if 2.5 <= row["floor_percentile"] <= 97.5 else "outside real data"
    return "not tested"


def format_value(value: Any) -> str:
    """Format a number for a table: three decimals, or two significant digits where it is small."""
    value = math.nan if value is None else float(value)
    if not math.isfinite(value):
        return "–"
    return number(value) if 0 < abs(value) < 0.01 else f"{value:.3f}"


def format_difference(value: Any, low: Any = math.nan, high: Any = math.nan) -> str:
    """Format a difference, with its interval where there is one."""
    if value is None or not math.isfinite(float(value)):
        return "–"
    ends = f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{value:+.3f}{ends}"


def find_scale(primary: pd.DataFrame, board: BoardRuns, metric: str) -> tuple[float, float]:
    """Find the ends of the axis that an arm's bar, its seeds and the reference lines lie on."""
    ends = [primary["value"], primary["value_low"], primary["value_high"]]
    ends += [primary["floor_low"], primary["floor_high"]]
    ends += [primary["baseline"] + primary[f"difference_{end}"] for end in ("low", "high")]
    scores = [run.record.scores.get(metric) for run in board.results]
    every = pd.concat([*ends, pd.Series(scores, dtype=float)]).dropna()
    if every.empty:
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    margin = 0.04 * (high - low) or 0.5
    return (min(0.0, low) if low >= 0 and low < 0.5 * high else low - margin), high + margin


def place(value: Any, scale: tuple[float, float]) -> float | None:
    """Give the place of a value on the axis in percent; None where there is none."""
    if value is None or not math.isfinite(float(value)):
        return None
    low, high = scale
    return round(float(np.clip(100 * (float(value) - low) / (high - low), 0, 100)), 2)


def _describe_metric(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["metric"],
        "title": row["title"],
        "unit": row["unit"],
        "arrow": ARROWS[row["direction"]],
        "direction": DIRECTIONS[row["direction"]],
    }


def _describe_row(
    row: Mapping[str, Any],
    metrics: pd.DataFrame,
    columns: Sequence[str],
    board: BoardRuns,
    scale: tuple[float, float],
) -> dict[str, Any]:
    values = metrics.set_index("metric")["value"]
    low, high = _find_interval(row, values)
    runs = _runs_of(str(row["label"]), board)
    scores = [run.record.scores.get(str(row["metric"])) for run in runs]
    difference, outcome = row["difference"], judge_row(row)
    p = row["p"] if pd.isna(row["p_holm"]) else row["p_holm"]
    p = math.nan if outcome == "too few seeds" else p
    shown = [values.get(name, math.nan) for name in columns]
    return {
        "label": row["label"],
        "kind": kind_of(str(row["arm"])),
        "outcome": outcome,
        "seeds": int(row["seeds"]),
        "derived": bool(row["derived"] == 1),
        "learned": bool(row["learned"] == 1),
        "values": [{"text": format_value(v), "sort": None if pd.isna(v) else float(v)} for v in shown],
        "bar": {
            "at": place(row["value"], scale),
            "low": place(low, scale),
            "high": place(high, scale),
            "seeds": [place(score, scale) for score in scores if score is not None],
            "floor": [place(row["floor_low"], scale), place(row["floor_high"], scale)],
            "text": _describe_bar(row, low, high),
        },
        "difference": {
            "text": format_difference(difference, row["difference_low"], row["difference_high"]),
            "sort": None if pd.isna(difference) else float(difference),
        },
        "p": {"text": _format_p(p), "sort": None if pd.isna(p) else float(p)},
        "verdict": row["verdict"],
        "runs": [{"hash": run.record.hash, "seed": run.record.seed} for run in runs],
    }


def _runs_of(label: str, board: BoardRuns) -> list[Result]:
    """Find the runs of an arm; of several trainings together, those of each of them."""
    if label in board.runs:
        return [board.runs[label][seed] for seed in sorted(board.runs[label])]
    records = {name: next(iter(runs.values())).record for name, runs in board.runs.items()}
    members = Roles.of(records).trainings.get(label, ())
    return [run for member, _ in members for run in _runs_of(member, board)]


def _find_interval(row: Mapping[str, Any], values: pd.Series) -> tuple[float, float]:
    """Find the ends of the bar: the value's own interval, or the one of its difference from the baseline."""
    if not pd.isna(row["value_low"]):
        return float(row["value_low"]), float(row["value_high"])
    if not pd.isna(row["difference_low"]):
        baseline = float(row["baseline"])
        return baseline + float(row["difference_low"]), baseline + float(row["difference_high"])
    ends = [values.get(f"{row['metric']}_{end}", math.nan) for end in ("low", "high")]
    return float(ends[0]), float(ends[1])


def _describe_bar(row: Mapping[str, Any], low: float, high: float) -> str:
    said = f"{format_value(row['value'])}"
    if math.isfinite(low):
        said += f", interval {format_value(low)} to {format_value(high)}"
    if not pd.isna(row["floor_low"]):
        said += f", real data {format_value(row['floor_low'])} to {format_value(row['floor_high'])}"
    return said


def _format_p(p: Any) -> str:
    if pd.isna(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
