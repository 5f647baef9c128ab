"""Outputs of a task: checked with the board's own schema before a run is finished, then written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from dbtbench.errors import DBTBenchError
from dbtbench.metrics.resampling import patients
from dbtbench.records import Record, explain, outcomes_file, outcomes_files
from dbtbench.runs import Run
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.task import Arm, Evaluation, Task

TOLERANCE = 1e-9
PREDICTIONS = "predictions.csv"


def same_score(found: float | None, said: float | None) -> bool:
    """Test whether two values of a score are the same up to rounding; None and NaN stand for undefined."""
    undefined = [value is None or math.isnan(value) for value in (found, said)]
    if found is None or said is None or any(undefined):
        return all(undefined)
    return math.isclose(found, said, rel_tol=0, abs_tol=TOLERANCE)


@contextmanager
def name_task(who: str) -> Iterator[None]:
    """Name a task, its arm and seed in every error of what they gave."""
    try:
        yield
    except DBTBenchError as error:
        raise DBTBenchError(f"task {who}: {error}", error.hint) from error


def check_evaluation(task: Task[Any], evaluation: Evaluation, arm: Arm, run: Run) -> dict[str, Any]:
    """Check what a task returned, before its run is finished.

    Returns:
        `scores`, `metrics` and `counts` of the run's record.

    Raises:
        DBTBenchError: naming what is wrong.
    """
    results = describe_evaluation(task, evaluation)
    results["counts"] |= arm.counts
    check_record(run.describe(**results))
    check_outcomes(task, evaluation)
    return results


def describe_evaluation(task: Task[Any], evaluation: Evaluation) -> dict[str, Any]:
    """Make what a record says of an evaluation: scores in the order of declaration, metrics and counts.

    Raises:
        DBTBenchError: when it is none, a declared metric has no score, or a score is not declared.
    """
    if not isinstance(evaluation, Evaluation):
        raise DBTBenchError(f"it returned {type(evaluation).__name__}", "return an `Evaluation`")
    for what, value, kind, form in (
        ("scores", evaluation.scores, Mapping, "{metric: number}"),
        ("counts", evaluation.counts, Mapping, "{name: number}"),
        ("outcomes", evaluation.outcomes, Mapping, '{"outcomes": table}'),
        ("standings", evaluation.standings, Mapping, "{metric: Standing}"),
        ("predictions", evaluation.predictions, pd.DataFrame | None, "a DataFrame, or None"),
    ):
        if not isinstance(value, kind):
            raise DBTBenchError(f"its {what} are a {type(value).__name__}", f"give {what} as {form}")
    metrics = {metric.name: metric for metric in task.metrics}
    missing = [name for name in metrics if name not in evaluation.scores]
    unknown = [name for name in evaluation.scores if name not in metrics]
    if missing or unknown:
        raise DBTBenchError(
            f"no score {missing[0]!r}, which its metrics declare"
            if missing
            else f"the score {unknown[0]!r} is not among its declared metrics",
            "return one number for each of `metrics`; NaN where one is not defined",
        )
    standings = {name: standing.describe() for name, standing in evaluation.standings.items()}
    return {
        "scores": {name: _plain(evaluation.scores[name]) for name in metrics},
        **({"standings": standings} if standings else {}),
        "metrics": {name: metric.describe() for name, metric in metrics.items()},
        "counts": {name: _plain(value) for name, value in evaluation.counts.items()},
    }


def check_record(record: Mapping[str, Any]) -> None:
    """Check a record with the schema that the board reads it with.

    Raises:
        DBTBenchError: naming what is wrong.
    """
    try:
        Record.model_validate(dict(record))
    except ValidationError as error:
        raise DBTBenchError(
            explain(error), "scores are finite numbers or NaN, counts whole numbers, names short and plain"
        ) from error


def check_outcomes(task: Task[Any], evaluation: Evaluation) -> None:
    """Check that the tables are as declared, and that each metric of one is the score.

    Raises:
        DBTBenchError: naming the table or the metric.
    """
    declared = {metric.outcomes.name: metric.outcomes for metric in task.metrics if metric.outcomes}
    tables = {}
    for name in evaluation.outcomes.keys() | declared.keys():
        if name not in evaluation.outcomes or name not in declared:
            said = "is not declared" if name in evaluation.outcomes else "is declared and not returned"
            raise DBTBenchError(f"the table {name!r} {said}", "return the tables of `metrics` as `outcomes`")
        with TemporaryDirectory() as folder:  # as its file will be read
            file = Path(folder) / f"{name}.csv"
            write_text(file, csv_text(evaluation.outcomes[name]))
            try:
                tables[name] = declared[name].read(file)
            except ValueError as error:
                raise DBTBenchError(
                    f"its outcomes: {error}", "see `Outcomes` in dbtbench/metric.py"
                ) from error
    for metric in task.metrics:
        if metric.outcomes is None or metric.resample is None:
            continue
        table = tables[metric.outcomes.name]
        found = float(metric.resample(table, np.ones((1, len(patients(table)))))[0])
        if not same_score(found, evaluation.scores[metric.name]):
            raise DBTBenchError(
                f"its outcomes give {metric.name} {found!r}, its score is {evaluation.scores[metric.name]!r}",
                "`resample` with every weight 1 must give the score, from the table as its CSV file has it",
            )


def write_tables(folder: Path, evaluation: Evaluation) -> None:
    """Write predictions, outcomes and scores.csv into a run's folder; tables of old are removed."""
    record = folder / "run.json"
    if evaluation.predictions is not None:
        write_text(folder / PREDICTIONS, csv_text(evaluation.predictions))
    for name, table in evaluation.outcomes.items():
        write_text(outcomes_file(record, name), csv_text(table))
    for name in outcomes_files(record).keys() - evaluation.outcomes.keys():
        outcomes_file(record, name).unlink()
    rows = [(name, repr(_plain(score, math.nan))) for name, score in evaluation.scores.items()]
    write_text(folder / "scores.csv", csv_text(pd.DataFrame(rows, columns=["metric", "value"])))


def has_tables(folder: Path, evaluation: Evaluation) -> bool:
    """Test whether a run's folder holds these outcomes and no others."""
    found = {
        name: file.read_text(encoding="utf-8") for name, file in outcomes_files(folder / "run.json").items()
    }
    return found == {name: csv_text(table) for name, table in evaluation.outcomes.items()}


def _plain(value: Any, undefined: Any = None) -> Any:
    """Turn a number of NumPy into one of Python and NaN into `undefined`; leave anything else as it is."""
    value = value.item() if isinstance(value, np.generic) else value
    return undefined if value is None or (isinstance(value, float) and math.isnan(value)) else value
