"""Scores by group of test volumes, for metrics that are resampled; realism has groups of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.columns import KEY
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.groups import GROUPS, describe_groups
from dbtbench.metric import Metric, number
from dbtbench.metrics.resampling import patients
from dbtbench.records import read_record
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.task import BASELINE, Task

FILE = "groups.csv"
WHOLE = "all"
SMALLEST = 10
"""Patients that a group needs: the score of fewer says little."""


def score_groups(task: Task[Any], outcomes: Mapping[str, pd.DataFrame], test: DBTDataset) -> pd.DataFrame:
    """Score each group of the test volumes by itself, and all of them as the group `all`.

    Args:
        task: whose metrics are computed.
        outcomes: the tables of a run, by name.
        test: the test split.

    Returns:
        A row for each metric and group: `metric`, `column` (one of `GROUPS`, or `all`), `group`, `patients`,
        `value`. Groups of fewer than ten patients, and those for which the metric is not defined, are left
        out, and so are columns of which all volumes are in one group.
    """
    described = describe_groups(test).set_index(KEY)
    columns = [column for column in GROUPS if column in described]
    rows = []
    for metric in task.metrics:
        if metric.outcomes is None:
            continue
        table = outcomes[metric.outcomes.name]
        groups = described[columns].reindex(pd.MultiIndex.from_frame(table[KEY].astype(str)))
        parts = [(WHOLE, "", table)]
        for column in columns:
            of = groups[column].to_numpy()
            names = sorted({name for name in of if isinstance(name, str) and name})
            parts += [(column, name, table[of == name]) for name in names if (of != name).any()]
        for column, group, part in parts:
            count = len(patients(part))
            value = _score(metric, part, count)
            if count >= SMALLEST and np.isfinite(value):
                rows.append((metric.name, column, group, count, value))
    return pd.DataFrame(rows, columns=["metric", "column", "group", "patients", "value"])


def write_groups(
    folder: Path, task: Task[Any], outcomes: Mapping[str, pd.DataFrame], data: DBTDataset
) -> None:
    """Write the scores by group into a run's folder; nothing for a task without outcomes."""
    if outcomes:
        write_text(folder / FILE, csv_text(score_groups(task, outcomes, data.select("test"))))


def _score(metric: Metric, table: pd.DataFrame, count: int) -> float:
    assert metric.resample is not None
    return float(metric.resample(table, np.ones((1, count)))[0])


def describe_worst(runs: Sequence[Path]) -> str:
    """Say in which group `real` does worst by the primary metric, on average over its seeds.

    Args:
        runs: folders of finished runs of one task and recipe.

    Returns:
        A sentence; empty where there are no groups, or nothing is better or worse.
    """
    records = {run: read_record(run / "run.json") for run in runs}
    files = {run / FILE: record for run, record in records.items() if record.arm == BASELINE}
    tables = [pd.read_csv(file, keep_default_na=False) for file in files if file.is_file()]
    if not tables or "patients" not in tables[0]:
        return ""
    record = next(iter(files.values()))
    metric = record.metrics[record.primary]
    rows = pd.concat(tables)
    means = rows[rows["metric"] == record.primary].groupby(["column", "group", "patients"], as_index=False)
    found = means["value"].mean()
    whole, parts = found[found["column"] == WHOLE], found[found["column"] != WHOLE]
    if whole.empty or parts.empty or metric.direction == "target":
        return ""
    worst = parts.loc[parts["value"].idxmin() if metric.direction == "higher" else parts["value"].idxmax()]
    return (
        f"{BASELINE} is worst with {worst['column'].replace('_', ' ')} {worst['group']} "
        f"({worst['patients']} patients): {metric.title} {number(worst['value'])} "
        f"for {number(whole['value'].iloc[0])} of all"
    )
