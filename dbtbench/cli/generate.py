"""`dbtbench generate`: train a generator and draw a synthetic data set."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dbtbench.cli.options import DataOption, FreshOption, RecipeOption, SetOption, WorkspaceOption, overrides


def generate(
    name: Annotated[str, typer.Argument(help="Generator; see `dbtbench list generators`.")],
    data: DataOption = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="GPUs to train on, data-parallel; all work on one by default."),
    ] = None,
    recipe: RecipeOption = "default",
    set_: SetOption = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Volumes to draw; as many as the training split by default.")
    ] = None,
    positives: Annotated[
        float, typer.Option("--positives", help="Share of drawn volumes with lesions.")
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is asked for and drawn.")] = 0,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
) -> None:
    """Train a generator and draw a synthetic data set.

    It is trained on the training split, once for each recipe and data set.

    Example: dbtbench generate ddpm --gpus 4
    """
    from dbtbench import generation
    from dbtbench.catalogue import choose_dataset
    from dbtbench.training import distributed
    from dbtbench.workspace import Workspace

    if gpus is not None and not distributed.launched():
        distributed.check_gpus(gpus)
    work = Workspace.find(workspace)
    dataset = choose_dataset(work, data)
    generation.plan(name, dataset, n, seed, positives)  # a request that cannot be met is told before training
    if gpus is not None and gpus > 1 and not distributed.launched():
        distributed.launch(gpus, sys.argv[1:])
        return
    with distributed.worker():
        fitted = generation.fit(work, name, dataset, recipe, overrides(set_), fresh)
        leader = distributed.rank() == 0
    if leader:
        made = generation.draw(work, fitted, n, seed, positives, fresh)
        typer.echo(f"{made.name}: {len(made)} volumes, {len(made.boxes)} lesions, in {made.path}")
        typer.echo(f"next: dbtbench evaluate --task detection --aug {name} --data {dataset.name}")
