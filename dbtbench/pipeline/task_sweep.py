"""A sweep of a task: arms are run at every combination of some settings, and scored on the validation split.

So that a task's settings are chosen without its test split, which the board is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench import plugins, recipe
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, MissingError, UsageError
from dbtbench.pipeline.arms import make_arm
from dbtbench.pipeline.evaluate import Job, check_augmentations, check_references, count_seeds, run_all
from dbtbench.pipeline.sweep import format_setting
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import digest, read_json, short_digest, write_text
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import log
from dbtbench.task import BASELINE, Arm, Task
from dbtbench.workspace import Workspace


@dataclass(frozen=True)
class TaskSweep:
    """A task's settings that are to be compared on the validation split.

    Attributes:
        task: the task's name.
        data: the real data set; its test split is left out.
        grid: the swept settings: texts of their values by key (`sweep.parse`).
        recipe: which of the task's recipes.
        settings: `key: text` settings over the recipe, the same everywhere.
        arms: run next to `real`.
        seeds: how many seeds, from 0; the task's own number when None.
    """

    task: str
    data: DBTDataset
    grid: Mapping[str, Sequence[str]]
    recipe: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    arms: Sequence[str] = ()
    seeds: int | None = None

    def configure(self) -> list[Task[Any]]:
        """Configure the task for all combinations, the last key changing fastest.

        Raises:
            MissingError: for an unknown task.
            UsageError: for an unknown key, a wrong value, a key that is fixed and swept, or two combinations
                that are the same.
        """
        for key in self.grid:
            if key in self.settings:
                raise UsageError(f"{key} is given by both --set and --sweep", "leave one of the two out")
        cls: type[Task[Any]] = plugins.load(plugins.get("tasks", self.task))
        tasks: list[Task[Any]] = []
        for values in product(*self.grid.values()):
            swept = dict(zip(self.grid, values, strict=True))
            settings = {**self.settings, **swept}
            task = cls(recipe.resolve(cls.recipe_class, recipe.folder_of(cls), self.recipe, settings))
            if any(task.recipe == other.recipe for other in tasks):
                raise UsageError(f"the sweep has {self._name(task)} twice", "name each value once")
            tasks.append(task)
        return tasks

    def run(self, workspace: Workspace, fresh: bool = False, pool: Pool | None = None) -> pd.DataFrame:
        """Run every arm with every seed at every combination; what a killed call did is found again.

        A training that diverges leaves a row without scores, and the sweep goes on.

        Args:
            workspace: where data sets are; the runs are kept in its `sweeps`, where no board looks.
            fresh: run again even what was done.
            pool: the workers.

        Returns:
            One row for each combination and arm: `arm`, the swept settings, `seeds`, the mean of every metric
            over seeds, and `sd` of the primary one.

        Raises:
            MissingError: when the data set has no validation split, or an arm cannot be had.
            UsageError: see `configure`.
        """
        tasks = self.configure()
        seeds = tasks[0].seeds if self.seeds is None else self.seeds
        check_augmentations(workspace, self.arms, self.data)
        validation = _hide_test(self.data)
        names = dict.fromkeys([BASELINE, *self.arms])
        arms = [_score_on_validation(make_arm(workspace, name, validation)) for name in names]
        check_references(self.task, tasks[0], arms)
        rows = []
        for number, task in enumerate(tasks, 1):
            log.info(f"sweep {number}/{len(tasks)}: {self._name(task)}")
            for arm in arms:
                jobs = [
                    Job(workspace.root / "sweeps" / self.task, self.task, task, arm, seed)
                    for seed in range(count_seeds(arm, seeds))
                ]
                row = {"arm": arm.name, **self._select_swept(task), "seeds": len(jobs)}
                try:
                    run_all(jobs, pool or Pool(), fresh)
                except DivergedError as error:
                    log.info(f"{error}; the sweep goes on")
                    rows.append(row)
                else:
                    rows.append(row | _average(task, jobs))
        return pd.DataFrame(rows)

    def write(self, workspace: Workspace, table: pd.DataFrame) -> Path:
        """Write the table to `sweeps/TASK-HASH.csv`; the same sweep has the same hash."""
        tasks = self.configure()
        identity = {
            **{"task": self.task, "version": tasks[0].version, "data": self.data.identity},
            **{"recipes": [task.recipe.model_dump(mode="json") for task in tasks]},
            **{"arms": [*self.arms], "seeds": self.seeds},
        }
        path = workspace.root / "sweeps" / f"{self.task}-{short_digest(identity)}.csv"
        write_text(path, csv_text(table))
        return path

    def summary(self, table: pd.DataFrame) -> str:
        """Format the table for a terminal: arms, swept settings and headline metrics, primary first."""
        task = self.configure()[0]
        headline = sorted(
            (metric for metric in task.metrics if metric.headline), key=lambda m: m.name != task.primary
        )
        shown = {metric.name: metric.heading for metric in headline}
        rows = table.reindex(columns=["arm", *self.grid, "seeds", *shown])
        rows = rows.astype(dict.fromkeys(shown, float))
        rows[[*self.grid]] = rows[[*self.grid]].map(format_setting)
        text: str = rows.rename(columns=shown).to_string(index=False, float_format="%.3f", na_rep="")
        return text

    def _select_swept(self, task: Task[Any]) -> dict[str, Any]:
        """Select the swept settings of one combination, as its recipe read them."""
        settings = task.recipe.model_dump(mode="json")
        return {key: settings[key] for key in self.grid}

    def _name(self, task: Task[Any]) -> str:
        return " ".join(f"{key}={format_setting(value)}" for key, value in self._select_swept(task).items())


def _hide_test(data: DBTDataset) -> DBTDataset:
    """Leave the test split out, and put the validation split in its place.

    Raises:
        MissingError: when there is none.
    """
    if not len(data.select("validation")):
        raise MissingError(
            f"{data.name} has no validation split to choose settings on",
            "import a collection with more patients: a tenth of them are for validation",
        )
    kept = data.take(data.cases["split"] != "test")
    return replace(kept, cases=kept.cases.replace({"split": {"validation": "test"}}))


def _score_on_validation(arm: Arm) -> Arm:
    """Give the arm's real data a split hash of their own: such runs are of no board of the test split."""
    split = {**arm.real.meta["split"], "hash": digest([arm.real.split_hash, "validation"])}
    return replace(arm, real=replace(arm.real, meta={**arm.real.meta, "split": split}))


def _average(task: Task[Any], jobs: Sequence[Job]) -> dict[str, float]:
    """Average the scores over the seeds of an arm."""
    scores = pd.DataFrame([read_json(job.run.path / "run.json")["scores"] for job in jobs], dtype=float)
    return {**scores.mean().to_dict(), "sd": float(scores[task.primary].std())}
