"""The rules of tasks, checked by letting one score arms of toy data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline.evaluate import identify
from dbtbench.pipeline.outputs import check_evaluation
from dbtbench.runs import Run
from dbtbench.runtime.pool import one_thread
from dbtbench.task import BASELINE, Arm, Evaluation, Task
from dbtbench.testing.rules import CONTRACT, CheckFailed, RuleBook, Subject, disturb_random_state
from dbtbench.testing.toy import copy_with_changes, make_toy_dataset

SEED = 1
SOURCE = {"kind": "synthetic", "generator": "toy", "version": 1, "run": "0" * 12, "recipe": {}}
"""Source of the toy's synthetic volumes."""


class TaskBench:
    """A task at work on toy data.

    Args:
        task: its name, or its class.
        folder: takes data sets and runs; empty.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.
        name: of a class, in errors.
    """

    def __init__(
        self,
        task: str | type[Task[Any]],
        folder: Path,
        recipe_name: str | None = None,
        settings: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.subject = Subject.find("tasks", task, recipe_name, settings, name)
        self.folder = folder
        self._numbers = count()

    def evaluate(self, arm: Arm) -> Evaluation:
        """Score an arm in a run folder of its own, on one thread as the benchmark does."""
        task, name = self.subject.configure(), self.subject.name
        run = Run(self.folder / "runs" / str(next(self._numbers)), identify(name, task, arm, SEED))
        run.path.mkdir(parents=True)
        with plugins.blame("tasks", name):
            with one_thread():
                evaluation: Evaluation = task.evaluate(arm, SEED, run)
            check_evaluation(task, evaluation, arm, run)
        return evaluation

    @cached_property
    def data(self) -> DBTDataset:
        """The toy data set."""
        return make_toy_dataset(self.folder / "toy")

    @cached_property
    def arm(self) -> Arm:
        """Real training data, and synthetic ones next to them."""
        drawn = make_toy_dataset(self.folder / "drawn", seed=1).select("train")
        synthetic = replace(drawn, meta={**drawn.meta, "source": SOURCE})
        return Arm("toy", self.data, self.data.select("train"), (synthetic,))

    @cached_property
    def evaluation(self) -> Evaluation:
        """The evaluation that all rules share."""
        return self.evaluate(self.arm)


def check_contract(bench: TaskBench) -> None:
    """Check what the class declares, and the evaluation that it gives."""
    bench.subject.check_declarations()
    assert bench.evaluation.scores


def check_repeatable(bench: TaskBench) -> None:
    """Check that the same arm and seed give the same result, whatever the global random numbers are."""
    first = bench.evaluation
    disturb_random_state()
    _compare(
        first,
        bench.evaluate(bench.arm),
        "the same arm and seed",
        "draw every random number from a generator seeded with `seed`",
    )


def check_arm(bench: TaskBench) -> None:
    """Check that arms differ by their data only."""
    _compare(
        bench.evaluation,
        bench.evaluate(replace(bench.arm, name="another")),
        "the same data in an arm of another name",
        "let nothing depend on arm.name",
    )


def check_test_split(bench: TaskBench) -> str | None:
    """Check that a test patient's predictions depend on no other test patient."""
    expected = bench.evaluation.predictions
    if expected is None or "PatientID" not in expected:
        return "it has no predictions by patient, so that training on the test split cannot be observed"
    changed = bench.data.select("test").cases["PatientID"].iloc[0]
    data = copy_with_changes(bench.data, bench.folder / "changed" / "toy", {changed})
    found = bench.evaluate(replace(bench.arm, real=data, train=data.select("train"))).predictions
    if found is None or not _rows_of_others(expected, changed).equals(_rows_of_others(found, changed)):
        raise CheckFailed(
            "its predictions change when the volumes and boxes of another test patient do",
            "train on arm.sources only, and predict each volume by itself",
        )
    return None


def check_real_arm(bench: TaskBench) -> None:
    """Check that an arm without synthetic volumes can be scored."""
    bench.evaluate(Arm(BASELINE, bench.data, bench.data.select("train")))


RULES = RuleBook[TaskBench](
    {
        CONTRACT: check_contract,
        "repeatable": check_repeatable,
        "arm": check_arm,
        "test-split": check_test_split,
        "real-arm": check_real_arm,
    }
)


def check_task(
    task: str | type[Task[Any]],
    folder: str | Path,
    recipe_name: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Check a task by every rule.

    Args:
        task: its name, or its class.
        folder: takes data sets and runs; empty.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.

    Raises:
        CheckFailed: for the first rule that it breaks.
    """
    RULES.check_all(TaskBench(task, Path(folder), recipe_name, settings))


def _compare(one: Evaluation, other: Evaluation, what: str, hint: str) -> None:
    """Compare scores and tables.

    Raises:
        CheckFailed: when they differ.
    """
    for name, value in one.scores.items():
        found = other.scores.get(name)
        if found != value and not (found is not None and math.isnan(found) and math.isnan(value)):
            raise CheckFailed(f"{what}: {name} is {value} once and {found} then", hint)
    if set(one.scores) != set(other.scores) or dict(one.counts) != dict(other.counts):
        raise CheckFailed(f"{what}: the scores' names or the counts differ", hint)
    tables, others = ({"predictions": e.predictions, **e.outcomes} for e in (one, other))
    for name, table in tables.items():
        if not _same_table(table, others.get(name)):
            raise CheckFailed(f"{what}: the {name} differ", hint)


def _same_table(one: pd.DataFrame | None, other: pd.DataFrame | None) -> bool:
    return one is other if one is None or other is None else one.equals(other)


def _rows_of_others(predictions: pd.DataFrame, patient: str) -> pd.DataFrame:
    return predictions[predictions["PatientID"] != patient].reset_index(drop=True)
