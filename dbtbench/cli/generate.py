"""`dbtbench generate`: train a generator and draw a synthetic data set."""

from __future__ import annotations

import json as json_
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dbtbench.cli.options import (
    DataOption,
    FreshOption,
    JsonOption,
    RecipeOption,
    SetOption,
    WorkspaceOption,
    checked_name,
    complete_generator,
    overrides,
)
from dbtbench.errors import UsageError

if TYPE_CHECKING:
    from dbtbench.pipeline.request import GenerationRequest
    from dbtbench.pipeline.sweep import Sweep
    from dbtbench.workspace import Workspace


def generate(
    name: Annotated[
        str,
        typer.Argument(help="Generator; see `dbtbench list generators`.", autocompletion=complete_generator),
    ],
    data: DataOption = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="GPUs to train and draw on, data-parallel; one by default."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, help="CPU processes to train and draw on instead, data-parallel (gloo)."
        ),
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            "--max-restarts", min=0, help="How often a failed process is started again, to continue."
        ),
    ] = 0,
    recipe: RecipeOption = "default",
    set_: SetOption = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="KEY=V1,V2,…",
            help="Try these values of a setting and end in a table of realism scores; repeated, "
            "every combination.",
        ),
    ] = None,
    called: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the synthetic data set, for --aug; by default generator, data and a hash."
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Volumes to draw; as many as the training split by default.")
    ] = None,
    positives: Annotated[
        float, typer.Option("--positives", help="Share of drawn volumes with lesions.")
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is asked for and drawn.")] = 0,
    places: Annotated[
        Literal["known", "anywhere"],
        typer.Option(
            "--places",
            metavar="known|anywhere",
            help="Lesions where training lesions are, or anywhere in the breast, of sizes like theirs.",
        ),
    ] = "known",
    keep: Annotated[
        float | None,
        typer.Option(
            "--keep",
            metavar="SHARE",
            help="Draw more, and keep this share: lesions that a detector finds, but not too easily.",
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option("--detector", help="Recipe of the task detection by which --keep trains its detector."),
    ] = "default",
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Train a generator and draw a synthetic data set.

    It is trained on the training split, once for each recipe and data set.

    Example: dbtbench generate ddpm --gpus 4
    """
    from dbtbench.pipeline.catalogue import check_synthetic_name, choose_dataset
    from dbtbench.pipeline.generate import check_processes, configure
    from dbtbench.pipeline.keeping import Filter
    from dbtbench.pipeline.request import GenerationRequest
    from dbtbench.pipeline.sweep import Sweep, parse
    from dbtbench.runtime import distributed, launching
    from dbtbench.workspace import Workspace

    count = _count(gpus, processes)
    if keep is not None and count > 1:
        raise UsageError(
            "--keep filters on one process",
            "train on several first, by the same command without --keep; then repeat it with --keep on one",
        )
    work = Workspace.find(workspace)
    if not sweep:  # a wrong setting is reported before a data set is made; a sweep may complete it
        configure(name, recipe, overrides(set_))
    dataset = choose_dataset(work, data)
    kept = None if keep is None else Filter(keep, detector)
    request = GenerationRequest(name, dataset, recipe, overrides(set_), n, seed, positives, kept, places)
    asked = Sweep(request, parse(sweep)) if sweep else request
    for generator in asked.check():  # what cannot be done is refused before anything starts
        check_processes(generator, name, count)
    if called is not None:
        if sweep:
            raise UsageError("--name and --sweep are both given", "a sweep names what it draws by itself")
        check_synthetic_name(work.datasets / checked_name(called))
    if (count > 1 or max_restarts) and not distributed.is_launched():
        launching.launch(count, sys.argv[1:], max_restarts=max_restarts)
    else:
        _generate(work, asked, fresh, called, json)


def _generate(
    work: Workspace, asked: GenerationRequest | Sweep, fresh: bool, called: str | None, json: bool
) -> None:
    """Do it in this process, together with the others if there are several; the first one prints."""
    from dbtbench.pipeline.request import GenerationRequest
    from dbtbench.runtime import distributed, launching

    with launching.worker():
        leader = distributed.rank() == 0
        if isinstance(asked, GenerationRequest):
            request, arm = asked, called or asked.generator
            made = asked.run(work, fresh, name=called)
            result: dict[str, Any] = {
                **{"name": made.name, "path": str(made.path), "fingerprint": made.fingerprint},
                **{"volumes": len(made), "lesions": len(made.boxes)},
                **({"keep": made.meta["source"]["keep"]} if "keep" in made.meta["source"] else {}),
            }
            text = f"{made.name}: {len(made)} volumes, {len(made.boxes)} lesions, in {made.path}"
        else:
            request, arm = asked.request, "ARM"
            table = asked.run(work, fresh)
            if leader:
                file = asked.write(work, table)
                result = {"sweep": json_.loads(table.to_json(orient="records")), "file": str(file)}
                text = (
                    "realism at each setting; `real` is the real training split\n\n"
                    f"{asked.summary(table)}\n\nall scores: {file}"
                )
        if leader and json:
            typer.echo(json_.dumps(result, indent=1))
        elif leader:
            typer.echo(text)
            typer.echo(f"next: dbtbench evaluate --task detection --aug {arm} --data {request.data.name}")


def _count(gpus: int | None, processes: int | None) -> int:
    """Count the processes asked for; check that the GPUs are there, or hide them.

    Raises:
        MissingError: when fewer GPUs are visible than asked for.
        UsageError: when GPUs and CPU processes are asked for, or a launcher started another number of them.
    """
    from dbtbench.runtime import distributed, launching

    if gpus is not None and processes is not None:
        raise UsageError("--gpus and --processes are both given", "--processes is for the CPU; leave one out")
    for option, count in (("--gpus", gpus), ("--processes", processes)):
        if count and count > 1:
            launching.check_count(option, count)
    if processes is not None:
        distributed.check_gpus(0)
    elif gpus is not None and not distributed.is_launched():
        distributed.check_gpus(gpus)
    return processes or gpus or 1
