"""Scoring again: every metric of finished runs, from what they kept, without training."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dbtbench import plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.data.schema import read_table
from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError
from dbtbench.pipeline import catalogue, groups
from dbtbench.pipeline.arms import make_arm
from dbtbench.pipeline.outputs import (
    PREDICTIONS,
    check_outcomes,
    check_record,
    describe_evaluation,
    has_tables,
    name_task,
    same_score,
    write_tables,
)
from dbtbench.records import TABLE, Record, read_record
from dbtbench.runs import add_digest, compare_files, digest_files, open_run, provenance
from dbtbench.runtime.files import read_json, write_json
from dbtbench.runtime.pool import one_thread
from dbtbench.runtime.progress import log, progress
from dbtbench.task import Arm, ArmName, Evaluation, Task
from dbtbench.workspace import Workspace

DERIVED = rf"scores\.csv|{TABLE}\.csv"
"""Files that `write_tables` makes from an evaluation."""


def rescore(workspace: Workspace, task_name: str) -> list[Path]:
    """Score all finished runs of a task again, so that metrics that were added or changed join them.

    A run that scores as before keeps its bytes. Of any other, scores, outcomes, metrics and counts are
    replaced; its identity, and with it its board, and what is said of its training stay.

    Args:
        workspace: where runs and data sets are.
        task_name: the task.

    Returns:
        Folders of the runs that are up to date now.

    Raises:
        DBTBenchError: at the end, naming the runs that could not be scored.
        MissingError: for an unknown task, or when it has no finished run.
    """
    plugins.get("tasks", task_name)
    runs = sorted(path.parent for path in (workspace.evaluations / task_name).glob("*/run.json"))
    if not runs:
        raise MissingError(
            f"no finished run of {task_name} in {workspace.evaluations}",
            f"run `dbtbench evaluate --task {task_name}`",
        )
    done, failed = [], []
    with progress(f"{task_name}: score again", len(runs), "runs") as advance:
        for run in runs:
            try:
                _rescore_one(workspace, run)
                done.append(run)
            except DBTBenchError as error:
                log.info(f"{run}: {error}" + (f" ({error.hint})" if error.hint else ""))
                failed.append(run.name)
            advance()
    if failed:
        raise DBTBenchError(
            f"{len(failed)} of {len(runs)} runs could not be scored again: {', '.join(failed)}",
            "the lines above say why; the others are done",
        )
    return done


def make_task(record: Record) -> Task[Any]:
    """Make the task of a run, with the run's recipe.

    Raises:
        MissingError: when it is not installed.
        StaleError: when it is of another version than the run.
    """
    cls: type[Task[Any]] = plugins.load(plugins.get("tasks", record.task))
    if cls.version != record.version:
        raise StaleError(
            f"run {record.hash} is of version {record.version} of {record.task}, this is {cls.version}",
            "evaluate again",
        )
    return cls(cls.recipe_class.model_validate(record.recipe))


def score_again(workspace: Workspace, folder: Path, record: Record, task: Task[Any]) -> Evaluation:
    """Score a run from its predictions, or from its data sets where it has none.

    Args:
        workspace: where the data sets are.
        folder: the run's.
        record: its record.
        task: its task, from `make_task`.

    Raises:
        DBTBenchError: when the task raises something.
        MissingError: when a data set is not there, or the task keeps nothing to score.
        StaleError: when a split has changed since.
        UsageError: when the predictions cannot be read.
    """
    real = find_real(workspace, record)
    file, predictions = folder / PREDICTIONS, None
    if file.is_file():
        try:
            predictions = read_table(file, KEY, dict.fromkeys(KEY, str))
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        arm = Arm(record.arm, real, real.take(np.zeros(len(real), bool)))
    else:
        arm = _find_arm(workspace, record, real)
    with plugins.blame("tasks", f"{record.task}, arm {record.arm}, seed {record.seed}"):
        return task.score(arm, record.seed, predictions)


def find_real(workspace: Workspace, record: Record) -> DBTDataset:
    """Find the real data set of a run, which may have been given another name since.

    Raises:
        MissingError: when it is not there.
        StaleError: when its split has changed.
    """
    named = _find(workspace, record, record.data.name, record.data.fingerprint)
    for data in named:
        if data.split_hash == record.data.split_hash:
            return data
    raise StaleError(
        f"the split of {named[0].name} is {named[0].split_hash[:12]} now, run {record.hash} was tested on "
        f"{record.data.split_hash[:12]}",
        "evaluate again",
    )


def _find_arm(workspace: Workspace, record: Record, real: DBTDataset) -> Arm:
    """Make the arm of a run, whose synthetic data set may have been given another name since."""
    if not record.augmentations:
        return make_arm(workspace, record.arm, real)
    drawn = [_find(workspace, record, made.name, made.fingerprint)[0] for made in record.augmentations]
    asked = replace(ArmName.parse(record.arm), source="+".join(dataset.path.name for dataset in drawn))
    return replace(make_arm(workspace, str(asked), real), name=record.arm)


def _find(workspace: Workspace, record: Record, name: str, fingerprint: str) -> list[DBTDataset]:
    """Find the data sets of a fingerprint.

    Raises:
        MissingError: when there is none.
    """
    described = catalogue.describe_datasets(workspace).items()
    found = [DBTDataset.open(path) for path, meta in described if meta["fingerprint"] == fingerprint]
    if not found:
        raise MissingError(
            f"the data set of run {record.hash}, {name} with the fingerprint {fingerprint[:12]}, "
            f"is not in {workspace.datasets}",
            "name the workspace that has it with --workspace",
        )
    return found


def _same_standings(one: Any, other: Any) -> bool:
    """Test whether the standings of two evaluations are the same up to rounding."""
    one, other = one or {}, other or {}
    return one.keys() == other.keys() and all(
        same_score(one[name][field], value) for name in one for field, value in other[name].items()
    )


def _rescore_one(workspace: Workspace, folder: Path) -> None:
    """Score one run again and write what changed; its record comes last."""
    file = folder / "run.json"
    record, old = read_record(file), read_json(file)
    who = f"{record.task}, arm {record.arm}, seed {record.seed}"
    with one_thread(), open_run(folder.parent, record.identity) as run:
        # Outcomes and scores.csv are made from these; a call that was killed may have written them already.
        predictions = {name: said for name, said in (record.files or {}).items() if name == PREDICTIONS}
        for name in compare_files(folder, predictions):
            raise StaleError(
                f"{folder / name} is missing, and run.json names it", "evaluate again with --fresh"
            )
        task = make_task(record)
        evaluation = score_again(workspace, folder, record, task)
        with plugins.blame("tasks", who), name_task(who):
            new = describe_evaluation(task, evaluation)
            check_outcomes(task, evaluation)
            kept = {name: said for name, said in record.scores.items() if name in new["scores"]}
            new["scores"] |= {name: v for name, v in kept.items() if same_score(new["scores"][name], v)}
            new["counts"] = record.counts | new["counts"]
            if _same_standings(old.get("standings"), new.get("standings")):
                new.pop("standings", None)
            if all(old.get(name) == new[name] for name in new) and has_tables(folder, evaluation):
                return
            renewed = {**old, **new, "rescored": provenance()}
            check_record(renewed)
        write_tables(run.path, replace(evaluation, scores=new["scores"], predictions=None))
        groups.write_groups(run.path, task, evaluation.outcomes, find_real(workspace, record))
        # What was not written just now keeps the digest that it was finished with.
        written = re.compile(rf"{DERIVED}|{groups.FILE}" if evaluation.outcomes else DERIVED)
        old_files = {name: said for name, said in (record.files or {}).items() if not written.fullmatch(name)}
        write_json(file, add_digest({**renewed, "files": digest_files(run.path) | old_files}))
