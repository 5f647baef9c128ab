"""Verification: a run is scored again from what it kept, and compared with its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbtbench.errors import MissingError, StaleError
from dbtbench.leaderboard.board import check_runs
from dbtbench.pipeline.outputs import same_score
from dbtbench.pipeline.rescore import find_real, make_task, score_again
from dbtbench.records import Record, read_result
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace


@dataclass(frozen=True)
class Verification:
    """A run's record found right, and how much of it could be checked.

    Attributes:
        run: the run in words.
        scores: metrics that what it kept gives again: its predictions, or its data sets.
        unchecked: metrics that cannot be computed again from what is there.
        outcomes: metrics that its outcomes give.
    """

    run: str
    scores: list[str]
    unchecked: list[str]
    outcomes: list[str]

    def __str__(self) -> str:
        checked = [", ".join(self.scores)] if self.scores else []
        checked += [f"{', '.join(self.outcomes)} from its outcomes"] if self.outcomes else []
        if not checked:
            return f"{self.run}: only its hash and its data set could be checked, it keeps nothing else"
        rest = f"; not checked: {', '.join(self.unchecked)}" if self.unchecked else ""
        return f"verified: {self.run}: {'; '.join(checked)}{rest}"


def verify(workspace: Workspace, run: str) -> Verification:
    """Compute a run's scores again, from its predictions and the data set, or from its data sets alone.

    Args:
        workspace: where the data set is, and the run where it is named by its hash.
        run: a run's folder, or its hash.

    Raises:
        MissingError: when there is no such run, or its data set or task is not there.
        StaleError: when a score is another one, naming the first, or the data set, its split or the task has
            changed since.
        UsageError: when the record is not as it should be.
    """
    folder = _folder(workspace, run)
    result = read_result(folder)
    record = result.record
    if folder.resolve().name != record.hash:
        raise StaleError(
            f"{folder} is named by another hash than its record's, {record.hash}", "it was changed"
        )
    check_runs([result])
    found = _score(workspace, folder, record)
    for metric, said in record.scores.items():
        if metric in found and not same_score(found[metric], said):
            raise StaleError(
                f"{result}: what it kept gives {metric} {found[metric]!r}, its record says {said!r}",
                "one of the two was changed; evaluate again with --fresh",
            )
    scores = [metric for metric in record.scores if metric in found]
    unchecked = [metric for metric in record.scores if metric not in found]
    outcomes = [metric for metric in record.scores if result.outcomes_of(metric) is not None]
    return Verification(str(result), scores, unchecked, outcomes)


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


def _score(workspace: Workspace, folder: Path, record: Record) -> dict[str, float]:
    """Scores by the run's task, of metrics in the record's version; none where the run keeps nothing."""
    task = make_task(record)
    find_real(workspace, record)
    try:
        scores = score_again(workspace, folder, record, task).scores
    except MissingError as error:
        log.info(f"{error}")
        return {}
    versions = {name: declared.version for name, declared in record.metrics.items()}
    same = [metric.name for metric in task.metrics if versions.get(metric.name) == metric.version]
    return {name: scores[name] for name in same}
