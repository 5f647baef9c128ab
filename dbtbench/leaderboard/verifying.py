"""Verification: a run is scored again from what it kept, and compared with its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.errors import MissingError, StaleError
from dbtbench.leaderboard.board import check_runs
from dbtbench.pipeline.outputs import TOLERANCE, same_score
from dbtbench.pipeline.rescore import find_real, make_task, score_again
from dbtbench.records import Result, check_kept, outcomes_file, read_result
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace

RECORD = "its record says"
HINT = "one of the two was changed; evaluate again with --fresh"


@dataclass(frozen=True)
class Verification:
    """A run's record found right, and how much of it could be checked.

    Attributes:
        run: the run in words.
        scores: metrics that what it kept gives again: its predictions, or its data sets.
        unchecked: metrics that cannot be computed again from what is there.
        outcomes: metrics that its outcomes give.
        files: files that match their digests; empty for a run of an earlier version, which has none.
    """

    run: str
    scores: list[str]
    unchecked: list[str]
    outcomes: list[str]
    files: list[str]

    def __str__(self) -> str:
        checked = [", ".join(self.scores)] if self.scores else []
        checked += [f"{', '.join(self.outcomes)} from its outcomes"] if self.outcomes else []
        checked += [f"{len(self.files)} files have their digests"] if self.files else []
        if not checked:
            return f"{self.run}: only its hash and its data set could be checked, it keeps nothing else"
        rest = [f"not checked: {', '.join(self.unchecked)}"] if self.unchecked else []
        rest += [] if self.files else ["it is of an earlier version, which kept no digests of its files"]
        return f"verified: {self.run}: {'; '.join([*checked, *rest])}"


def verify(workspace: Workspace, run: str) -> Verification:
    """Compare a run's files with their digests, and compute again what its record says.

    Outcomes and counts come from its predictions and the data set, scores from both; where it has no
    predictions, all of them come from its data sets.

    Args:
        workspace: where the data set is, and the run where it is named by its hash.
        run: a run's folder, or its hash.

    Raises:
        MissingError: when there is no such run, or its data set or task is not there.
        StaleError: when a file does not match its digest or is missing, naming it; when a score, a count or
            a table is another one, naming the first; when data set, split or task have changed since.
        UsageError: when the record is not as it should be.
    """
    folder = _folder(workspace, run)
    result = read_result(folder)
    record = result.record
    if folder.resolve().name != record.hash:
        raise StaleError(
            f"{folder} is named by another hash than its record's, {record.hash}", "it was changed"
        )
    check_kept(folder, record)
    check_runs([result])
    found = _score(workspace, folder, result)
    for metric, said in record.scores.items():
        if metric in found and not same_score(found[metric], said):
            raise StaleError(
                f"{result}: what it kept gives {metric} {found[metric]!r}, {RECORD} {said!r}", HINT
            )
    scores = [metric for metric in record.scores if metric in found]
    unchecked = [metric for metric in record.scores if metric not in found]
    outcomes = [metric for metric in record.scores if result.outcomes_of(metric) is not None]
    return Verification(str(result), scores, unchecked, outcomes, list(record.files or {}))


def _folder(workspace: Workspace, run: str) -> Path:
    if (Path(run) / "run.json").is_file():
        return Path(run)
    # A hash is compared with names that are there; nothing that was typed becomes a pattern or a path.
    found = [path.parent for path in workspace.evaluations.glob("*/*/run.json") if path.parent.name == run]
    if not found:
        raise MissingError(
            f"no finished run {run} in {workspace.evaluations}",
            "name a run's folder, or its hash of 12 digits",
        )
    return found[0]


def _score(workspace: Workspace, folder: Path, result: Result) -> dict[str, float]:
    """Scores by the run's task, of metrics in the record's version; none where the run keeps nothing.

    Raises:
        StaleError: when its predictions or data sets give another count or table than it kept.
    """
    record = result.record
    task = make_task(record)
    find_real(workspace, record)
    try:
        evaluation = score_again(workspace, folder, record, task)
    except MissingError as error:
        log.info(f"{error}")
        return {}
    for name, count in evaluation.counts.items():
        if name in record.counts and record.counts[name] != count:
            raise StaleError(
                f"{result}: what it kept gives the count {name} {count}, {RECORD} {record.counts[name]}", HINT
            )
    versions = {name: declared.version for name, declared in record.metrics.items()}
    same = [metric for metric in task.metrics if versions.get(metric.name) == metric.version]
    for name in {metric.outcomes.name for metric in same if metric.outcomes} & result.outcomes.keys():
        if not _same_table(evaluation.outcomes[name], result.outcomes[name]):
            file = outcomes_file(folder / "run.json", name)
            raise StaleError(f"{file} is not what the run's predictions give", HINT)
    return {metric.name: evaluation.scores[metric.name] for metric in same}


def _same_table(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Test whether two tables hold the same up to rounding."""
    if one.shape != other.shape or list(one.columns) != list(other.columns):
        return False
    words = [name for name in one if name in KEY]
    numbers = [name for name in one if name not in KEY]
    near = np.isclose(
        one[numbers].to_numpy(np.float64),
        other[numbers].to_numpy(np.float64),
        rtol=0,
        atol=TOLERANCE,
        equal_nan=True,
    )
    return bool(near.all() and (one[words].to_numpy(str) == other[words].to_numpy(str)).all())
