"""`dbtbench picture`: real and synthetic volumes next to each other."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import DataOption, JsonOption, WorkspaceOption


def picture(
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="The picture to write: .png, .jpg, .pdf or .svg.")
    ],
    aug: Annotated[
        list[str], typer.Option("--aug", help="Generator or synthetic data set; may be repeated.")
    ],
    data: DataOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Draw real test volumes and synthetic ones, all at one scale, and their histograms.

    Example: dbtbench picture comparison.png --aug ddpm --aug classic
    """
    from dbtbench.figures.canvas import check_suffix
    from dbtbench.figures.comparison import draw_comparison
    from dbtbench.pipeline.catalogue import choose_dataset
    from dbtbench.pipeline.generate import find_augmentation
    from dbtbench.workspace import Workspace

    check_suffix(out)
    work = Workspace.find(workspace)
    real = choose_dataset(work, data)
    sets = {name: find_augmentation(work, name, real) for name in aug}
    first = "phantom" if "phantom" in real.meta else "real"
    draw_comparison({first: real.select("test"), **sets}, out)
    if json:
        drawn = {name: dataset.name for name, dataset in sets.items()}
        typer.echo(json_.dumps({"picture": str(out), "real": real.name, "synthetic": drawn}, indent=1))
        return
    typer.echo(f"written: {out}")
