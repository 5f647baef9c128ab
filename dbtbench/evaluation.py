"""A task is run for real data alone and with each augmentation, and every run leaves a record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbtbench import plugins, recipe
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.files import atomic_path, write_text
from dbtbench.generation import find_augmentation
from dbtbench.progress import say
from dbtbench.runs import Run, open_run
from dbtbench.task import BASELINE, Arm, Evaluation, Task
from dbtbench.workspace import Workspace


def evaluate(
    workspace: Workspace,
    task_name: str,
    data: DBTDataset,
    augmentations: Sequence[str] = (),
    seeds: int | None = None,
    recipe_name: str = "default",
    overrides: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> list[Path]:
    """Run a task for real data alone and for each augmentation, with the same seeds.

    Args:
        workspace: where runs and data sets are kept.
        task_name: the task.
        data: the real data set.
        augmentations: generators, or names of synthetic data sets.
        seeds: how many seeds, from 0; the task's own number when None.
        recipe_name: which of the task's recipes.
        overrides: `key: text` settings over the recipe.
        fresh: run again even what was done.

    Returns:
        The finished runs' folders: arms in order, seeds within an arm.

    Raises:
        MissingError: for an unknown task or an augmentation that was not drawn.
        UsageError: for a wrong recipe or setting.
    """
    cls: type[Task[Any]] = plugins.load(plugins.get("tasks", task_name))
    task = cls(recipe.resolve(cls.recipe_class, recipe.folder_of(cls), recipe_name, overrides))
    seeds = cls.seeds if seeds is None else seeds
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are too few", "use --seeds 3 or more")
    arms = [Arm(BASELINE, data)]
    arms += [
        Arm(name, data, find_augmentation(workspace, name, data))
        for name in augmentations
        if name != BASELINE
    ]
    folder = workspace.evaluations / task_name
    return [_evaluate_one(folder, task_name, task, arm, seed, fresh) for arm in arms for seed in range(seeds)]


def _evaluate_one(folder: Path, name: str, task: Task[Any], arm: Arm, seed: int, fresh: bool) -> Path:
    with open_run(folder, _identity(name, task, arm, seed), fresh) as run:
        if run.finished:
            say(f"{name} {arm.name} seed {seed}: already done")
            return run.path
        say(f"{name} {arm.name} seed {seed}: {run.path}")
        evaluation = task.evaluate(arm, seed, run)
        _write(evaluation, run)
    return run.path


def _identity(name: str, task: Task[Any], arm: Arm, seed: int) -> dict[str, Any]:
    """Everything the scores of one arm and seed depend on."""
    identity: dict[str, Any] = {
        "task": name,
        "version": task.version,
        "primary": task.primary,
        "recipe": task.recipe.model_dump(mode="json"),
        "data": arm.real.identity,
        "arm": arm.name,
        "augmentation": None,
        "seed": seed,
    }
    if arm.synthetic is not None:
        source = arm.synthetic.meta["source"]
        identity["augmentation"] = {
            "name": arm.synthetic.name,
            "fingerprint": arm.synthetic.fingerprint,
            "generator": source["generator"],
            "version": source["version"],
            "run": source["run"],
            "recipe": source["recipe"],
            "volumes": len(arm.synthetic),
        }
    return identity


def _write(evaluation: Evaluation, run: Run) -> None:
    """Write predictions and scores, then the record, which makes the run finished."""
    if evaluation.predictions is not None:
        with atomic_path(run.path / "predictions.csv") as temporary:
            evaluation.predictions.to_csv(temporary, index=False, lineterminator="\n")
    lines = ["metric,value", *(f"{metric},{value!r}" for metric, value in evaluation.scores.items())]
    write_text(run.path / "scores.csv", "\n".join(lines) + "\n")
    scores = {
        metric: None if math.isnan(value) else float(value) for metric, value in evaluation.scores.items()
    }
    run.finish(scores=scores, counts=evaluation.counts)
