"""Evaluation: a task is run for each arm and seed, and every run leaves a record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbtbench import plugins, recipe
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.leakage import check_leakage
from dbtbench.data.schema import read_chosen, read_declaration
from dbtbench.errors import DBTBenchError, HeldError, UsageError
from dbtbench.pipeline.arms import default_arms, make_arm
from dbtbench.pipeline.generate import find_augmentation
from dbtbench.pipeline.groups import write_groups
from dbtbench.pipeline.outputs import check_evaluation, name_task, write_tables
from dbtbench.runs import Run, open_run
from dbtbench.runtime.files import hold
from dbtbench.runtime.pool import Pool, one_thread, worker_number
from dbtbench.runtime.progress import log, progress
from dbtbench.task import BASELINE, BLOB, Arm, ArmName, Task
from dbtbench.workspace import Workspace

POLL_SECONDS = 1.0
"""Time between two looks at a run that another process works on."""


def evaluate(
    workspace: Workspace,
    task_name: str,
    data: DBTDataset,
    augmentations: Sequence[str] = (),
    seeds: int | None = None,
    recipe_name: str = "default",
    overrides: Mapping[str, str] | None = None,
    fresh: bool = False,
    arms: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> list[Path]:
    """Run a task for every arm, with the same seeds.

    Arms and seeds are independent of each other; what a run scores does not depend on the pool.

    Args:
        workspace: where runs and data sets are kept.
        task_name: the task.
        data: the real data set.
        augmentations: generators, or names of synthetic data sets.
        seeds: how many seeds, from 0; the task's own number when None. `real`, which every other arm is
            compared with, gets twice as many if they are several, and a filter one.
        recipe_name: which of the task's recipes.
        overrides: `key: text` settings over the recipe.
        fresh: throw away first what was done; nothing when another process works on one of the runs.
        arms: the arms to run next to `real`; the task's own, for these augmentations, when None.
        pool: the workers; on a cluster they must see the workspace under the same name.

    Returns:
        The finished runs' folders: arms in order, seeds within an arm.

    Raises:
        DBTBenchError: when a run's process died twice; the others are done. Also when the task
            declares no metrics, raises something, or returns what no board takes: that run is not finished.
        MissingError: for an unknown task, an augmentation that was not drawn or an arm that cannot be had.
        StaleError: when an augmentation's generator saw another split, or it holds real volumes that it must
            not hold (`dbtbench.data.leakage`).
        UsageError: for a wrong recipe, setting or arm.
    """
    cls: type[Task[Any]] = plugins.load(plugins.get("tasks", task_name))
    if not getattr(cls, "metrics", ()):
        raise DBTBenchError(
            f"task {task_name} declares no metrics",
            "give its class `metrics`: a tuple of dbtbench.metric.Metric",
        )
    task = cls(recipe.resolve(cls.recipe_class, recipe.folder_of(cls), recipe_name, overrides))
    seeds = cls.seeds if seeds is None else seeds
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are too few", "use --seeds 5 or more")
    check_augmentations(workspace, [*augmentations, *(arms or ())], data)
    if arms is None:
        chosen = default_arms(workspace, cls.arms, augmentations, data)
    else:
        names = dict.fromkeys([BASELINE, *augmentations, *arms])
        chosen = [make_arm(workspace, name, data) for name in names]
    check_references(task_name, task, chosen)
    jobs = [
        Job(workspace.evaluations / task_name, task_name, task, arm, n)
        for arm in chosen
        for n in range(count_seeds(arm, seeds))
    ]
    run_all(jobs, pool or Pool(), fresh)
    return [job.run.path for job in jobs]


def count_seeds(arm: Arm, seeds: int) -> int:
    """Count the seeds of an arm where so many are asked for: a filter has one, `real` twice as many."""
    if arm.reference == BLOB:
        return 1
    return 2 * seeds if arm.name == BASELINE and seeds > 1 else seeds


def check_references(task_name: str, task: Task[Any], arms: Sequence[Arm]) -> None:
    """Refuse a reference arm that the task cannot score.

    Raises:
        UsageError: naming it.
    """
    for arm in arms:
        if arm.reference and arm.reference not in task.references:
            known = ", ".join(task.references)
            raise UsageError(
                f"{task_name} has no arm {arm.name}",
                f"its reference arms: {known}" if known else "leave it out",
            )


def check_augmentations(workspace: Workspace, names: Sequence[str], data: DBTDataset) -> None:
    """Look for real volumes in the synthetic data sets of these arms, once in each."""
    for source in dict.fromkeys(source for name in names for source in ArmName.parse(name).sources):
        check_leakage(find_augmentation(workspace, source, data), data)


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    folder: Path
    task_name: str
    task: Task[Any]
    arm: Arm
    seed: int

    def __str__(self) -> str:
        return f"{self.task_name} {self.arm.name} seed {self.seed}"

    @property
    def run(self) -> Run:
        """The run that holds its results."""
        return Run.of(self.folder, self.identity)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the scores depend on."""
        return identify(self.task_name, self.task, self.arm, self.seed)


def identify(task_name: str, task: Task[Any], arm: Arm, seed: int) -> dict[str, Any]:
    """Describe everything that the scores of a task depend on: the identity of a run."""
    return {
        "task": task_name,
        "version": task.version,
        "primary": task.primary,
        "recipe": task.recipe.model_dump(mode="json"),
        "data": arm.real.identity,
        "arm": arm.name,
        "augmentation": _describe_augmentation(arm),
        "seed": seed,
    }


def _describe_augmentation(arm: Arm) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Describe the synthetic data set for a record; a list of several."""
    described = [_describe_synthetic(dataset) for dataset in arm.synthetic]
    return described if len(described) > 1 else next(iter(described), None)


def _describe_synthetic(dataset: DBTDataset) -> dict[str, Any]:
    source = dataset.meta["source"]
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        **{key: source[key] for key in ("generator", "version", "run", "recipe")},
        "volumes": len(dataset),
        **({"keep": source["keep"]["share"]} if "keep" in source else {}),
    }


def _read_declaration(arm: Arm, name: str) -> bool | None:
    """Read whether the maker of any synthetic volume declared this; None where one did not say."""
    said = {read_declaration(dataset.meta["source"], name) for dataset in arm.synthetic}
    return True if True in said else None if None in said else False


def _read_chosen(arm: Arm) -> list[str]:
    """Read which settings the makers of synthetic volumes chose themselves."""
    return sorted({name for dataset in arm.synthetic for name in read_chosen(dataset.meta["source"])})


def _throw_away(runs: Sequence[Run]) -> None:
    """Throw away what earlier calls left; nothing when another process works on one of the runs.

    That process may be another job of the same array, with --fresh too: it has thrown away what was
    there, and what is finished was made since.
    """
    with ExitStack() as held:
        try:
            # In one order, so that one of two commands gets them all.
            for run in sorted(runs, key=lambda run: run.path):
                held.enter_context(hold(run.path))
        except HeldError as error:
            log.info(f"{error}: what is finished stays, despite --fresh")
            return
        for run in runs:
            shutil.rmtree(run.path, ignore_errors=True)


def run_all(jobs: Sequence[Job], pool: Pool, fresh: bool) -> None:
    """Run what is not done, or all of it when `fresh`; a process that dies costs its own run only.

    Runs that other processes work on are left to them, and waited for at the end; one whose process dies is
    taken over.

    Raises:
        DBTBenchError: at the end, naming the runs whose process died twice.
        UsageError: when a cluster's workers have threads: random numbers and log are the process's own.
    """
    if pool.threaded:
        raise UsageError(
            "runs cannot share a process, and the cluster's workers have several threads",
            "start them with `dask worker tcp://HOST:PORT --nthreads 1 --nworkers N`",
        )
    if fresh:
        _throw_away([job.run for job in jobs])
    todo = []
    for job in jobs:
        if job.run.finished:
            log.info(f"{job}: already done")
        else:
            todo.append(job)
    if pool.here:
        while todo:
            log.info(f"{todo[0]}: {todo[0].run.path}")
            todo = [job for job in todo if not _evaluate(job)]
            _wait_for_any(todo)
        return
    died = []
    with progress(jobs[0].task_name, len(jobs), "runs", done=len(jobs) - len(todo)) as advance:
        while todo:
            taken = []
            for job, done in pool.run(_evaluate_quietly, todo):
                if done is False:
                    taken.append(job)
                    continue
                advance(1, str(job))
                if done is None:
                    died.append(str(job))
            todo = taken
            _wait_for_any(todo)
    if died:
        raise DBTBenchError(
            f"the process of {', '.join(died)} died", "is there enough memory? Use fewer --jobs"
        )


def _wait_for_any(taken: Sequence[Job]) -> None:
    """Wait until one of the runs that other processes work on is finished, or given up by a dead process."""
    if taken:
        log.info(f"{len(taken)} runs are being worked on by other processes: waiting for them")
    while taken and not any(job.run.finished or _is_free(job) for job in taken):
        time.sleep(POLL_SECONDS)


def _is_free(job: Job) -> bool:
    """Test whether no process works on a run."""
    try:
        with hold(job.run.path):
            return True
    except HeldError:
        return False


def _evaluate(job: Job) -> bool:
    """Do one run, unless another process does; False then."""
    try:
        with open_run(job.folder, job.identity) as run:
            _evaluate_in(run, job)
    except HeldError as error:
        log.info(f"{job}: {error}")
        return False
    return True


def _evaluate_quietly(job: Job) -> bool:
    """Do one run next to others: it reports to `log.txt`, and takes the next GPU if there is any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(worker_number() % torch.cuda.device_count())
    try:
        # Only who holds the run writes to its log: another process may be throwing the folder away.
        with open_run(job.folder, job.identity) as run:
            if not run.finished:
                with (run.path / "log.txt").open("a", encoding="utf-8") as file, redirect_stderr(file):
                    _evaluate_in(run, job)
    except HeldError:
        return False
    return True


def _evaluate_in(run: Run, job: Job) -> None:
    """Do one run, on one thread, so that its numbers do not depend on the number of cores."""
    if run.finished:
        return
    who = f"{job.task_name}, arm {job.arm.name}, seed {job.seed}"
    with one_thread():
        with plugins.blame("tasks", who):
            evaluation = job.task.evaluate(job.arm, job.seed, run)
        with plugins.blame("tasks", who), name_task(who):
            results = check_evaluation(job.task, evaluation, job.arm, run)
        write_tables(run.path, evaluation)
        write_groups(run.path, job.task, evaluation.outcomes, job.arm.real)
        if job.arm.synthetic:
            results |= {name: _read_declaration(job.arm, name) for name in ("derived", "learned")}
            if chosen := _read_chosen(job.arm):
                results["chosen"] = chosen
        run.finish(**results)
