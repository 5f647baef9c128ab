"""`dbtbench evaluate`: does an augmentation help, and is it any good?"""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from dbtbench.cli.options import (
    DataOption,
    FreshOption,
    JsonOption,
    RecipeOption,
    SetOption,
    WorkspaceOption,
    complete_task,
    overrides,
)
from dbtbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from dbtbench.pipeline.task_sweep import TaskSweep


def evaluate(
    task: Annotated[
        str,
        typer.Option(
            "--task", help="detection, realism, …; see `dbtbench list tasks`.", autocompletion=complete_task
        ),
    ],
    aug: Annotated[
        list[str] | None, typer.Option("--aug", help="Generator or synthetic data set; may be repeated.")
    ] = None,
    data: DataOption = None,
    arms: Annotated[
        list[str] | None,
        typer.Option(
            "--arms",
            help="Arm to run next to `real` and --aug instead of the task's own: NAME[+NAME][:RATIO], "
            "the same with :shuffled-boxes, :normals-only, :finetune or :synthetic-only, more-real[:SHARE], "
            "chance, blob, untrained; may be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", help="How many seeds, twice as many for `real`; the task's own number when not named."
        ),
    ] = None,
    recipe: RecipeOption = "default",
    set_: SetOption = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="KEY=V1,V2,…",
            help="Try these values of a setting on the validation split, for `real`, --aug and --arms, and "
            "end in a table; repeated, every combination.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", help="Runs at a time; by default one for each core or GPU."),
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="tcp://HOST:PORT", help="Use a Dask cluster's workers.")
    ] = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
    rescore: Annotated[
        bool,
        typer.Option("--rescore", help="Train nothing: compute every metric of the finished runs again."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say whether an augmentation helps a task.

    The task is run on real data alone, with each augmentation and with controls. Killed at any moment, the
    same command continues.

    Example: dbtbench evaluate --task detection --aug ddpm --aug classic
    """
    from dbtbench.leaderboard import rank, summary
    from dbtbench.pipeline.catalogue import choose_dataset
    from dbtbench.pipeline.evaluate import evaluate
    from dbtbench.pipeline.groups import describe_worst
    from dbtbench.pipeline.rescore import rescore as score_again
    from dbtbench.pipeline.sweep import parse
    from dbtbench.pipeline.task_sweep import TaskSweep
    from dbtbench.runtime.files import read_json
    from dbtbench.runtime.pool import Pool, cores_or_gpus
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    if rescore:
        if fresh or any((aug, data, arms, seeds, set_, sweep)) or recipe != "default":
            raise UsageError(
                "--rescore takes all finished runs of the task as they are", "leave the other options out"
            )
        runs = score_again(work, task)
    else:
        dataset = choose_dataset(work, data)
        with Pool(cores_or_gpus() if jobs is None else jobs, dask) as pool:
            if sweep:
                others = [*(aug or []), *(arms or [])]
                asked = TaskSweep(task, dataset, parse(sweep), recipe, overrides(set_), others, seeds)
                table = asked.run(work, fresh, pool)
                _show_sweep(asked, table, asked.write(work, table), json)
                return
            runs = evaluate(work, task, dataset, aug or [], seeds, recipe, overrides(set_), fresh, arms, pool)
    if json:
        typer.echo(json_.dumps([read_json(run / "run.json") for run in runs], indent=1))
        return
    typer.echo(summary(rank(runs)))
    if worst := describe_worst(runs):
        typer.echo(worst)
    typer.echo(f"runs: {runs[0].parent}")
    typer.echo("next: dbtbench leaderboard")


def _show_sweep(asked: TaskSweep, table: pd.DataFrame, file: Path, json: bool) -> None:
    """Print a sweep's table."""
    if json:
        rows = json_.loads(table.to_json(orient="records"))
        typer.echo(json_.dumps({"sweep": rows, "file": str(file)}, indent=1))
        return
    typer.echo(f"means over seeds on the validation split of {asked.data.name}\n\n{asked.summary(table)}\n")
    typer.echo(f"all scores: {file}")
    typer.echo(f"next: dbtbench evaluate --task {asked.task} --data {asked.data.name} --set KEY=VALUE")
