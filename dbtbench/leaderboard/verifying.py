"""Scoring a run again from its own predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbtbench import plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.data.schema import read_table
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.board import check_runs, same
from dbtbench.leaderboard.records import Record, read_result
from dbtbench.pipeline import catalogue
from dbtbench.task import Task
from dbtbench.workspace import Workspace


@dataclass(frozen=True)
class Verification:
    """What was found to be as a run's record says.

    Attributes:
        run: the run in words.
        scores: metrics that its predictions give again.
        unchecked: metrics that cannot be computed again without the run's volumes or network.
        outcomes: whether its outcomes give the primary metric.
    """

    run: str
    scores: list[str]
    unchecked: list[str]
    outcomes: bool

    def __str__(self) -> str:
        checked = [", ".join(self.scores)] if self.scores else []
        checked += ["the primary metric from its outcomes"] if self.outcomes else []
        if not checked:
            return f"{self.run}: only its hash and its data set could be checked, it keeps no predictions"
        rest = f"; not checked: {', '.join(self.unchecked)}" if self.unchecked else ""
        return f"verified: {self.run}: {'; '.join(checked)}{rest}"


def verify(workspace: Workspace, run: str) -> Verification:
    """Compute a run's scores again, from its predictions and the data set.

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
    real = _dataset(workspace, record)
    check_runs([result])
    found = _scores(folder, record, real)
    for metric, said in record.scores.items():
        if metric in found and not same(found[metric], said):
            raise StaleError(
                f"{result}: its predictions give {metric} {found[metric]!r}, its record says {said!r}",
                "one of the two was changed; evaluate again with --fresh",
            )
    scores = [metric for metric in record.scores if metric in found]
    unchecked = [metric for metric in record.scores if metric not in found]
    return Verification(str(result), scores, unchecked, result.outcomes is not None)


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


def _dataset(workspace: Workspace, record: Record) -> DBTDataset:
    """The real data set of a run, which may have been given another name since."""
    named = [data for data in catalogue.datasets(workspace) if data.fingerprint == record.data.fingerprint]
    if not named:
        raise MissingError(
            f"the data set of run {record.hash}, {record.data.name} with the fingerprint "
            f"{record.data.fingerprint[:12]}, is not in {workspace.datasets}",
            "name the workspace that has it with --workspace",
        )
    for data in named:
        if data.split_hash == record.data.split_hash:
            return data
    raise StaleError(
        f"the split of {named[0].name} is {named[0].split_hash[:12]} now, run {record.hash} was tested on "
        f"{record.data.split_hash[:12]}",
        "evaluate again",
    )


def _scores(folder: Path, record: Record, real: DBTDataset) -> dict[str, float]:
    """What the run's task makes of its predictions; nothing where there are none."""
    cls: type[Task[Any]] = plugins.load(plugins.get("tasks", record.task))
    if cls.version != record.version:
        raise StaleError(
            f"run {record.hash} is of version {record.version} of {record.task}, this is {cls.version}",
            "evaluate again",
        )
    file = folder / "predictions.csv"
    if not file.is_file():
        return {}
    try:
        predictions = read_table(file, KEY, dict.fromkeys(KEY, str))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    return cls(cls.recipe_class.model_validate(record.recipe)).score(real, predictions)
