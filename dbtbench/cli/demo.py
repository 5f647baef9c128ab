"""`dbtbench demo`: the whole path, from DICOM files to a row on the board, in minutes on a laptop."""

from __future__ import annotations

import json as json_

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption

RECIPES = {"classic": "default", "ddpm": "demo"}
DRAWN = 96
"""Volumes that each generator draws; as many as it learned from would take minutes more."""


def demo(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Run the whole path on phantom data, in minutes.

    Phantom → DICOM → data set → ddpm and classic → detection and realism → leaderboard, picture and page.
    What is done is found again.
    """
    from dbtbench import leaderboard
    from dbtbench.figures.comparison import draw_comparison
    from dbtbench.pipeline import default_data, generate
    from dbtbench.pipeline.evaluate import evaluate
    from dbtbench.report import gather, write_report
    from dbtbench.runtime.pool import Pool, cores_or_gpus
    from dbtbench.runtime.progress import log
    from dbtbench.task import REFERENCES
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    log.info("1/5 phantom patients as DICOM files, and their import")
    data = default_data.make(work)
    log.info(f"2/5 generators: fit to the training split, draw {DRAWN} volumes each")
    made = {
        name: generate.draw(work, generate.fit(work, name, data, r), DRAWN) for name, r in RECIPES.items()
    }
    log.info("3/5 a lesion detector, trained without and with them")
    with Pool(cores_or_gpus()) as pool:  # without the controls, and with few seeds: it is to end in minutes
        evaluate(work, "detection", data, [*made], 2, "demo", arms=REFERENCES, pool=pool)
    log.info("4/5 realism of what was drawn")
    evaluate(work, "realism", data, recipe_name="demo", arms=list(made))
    log.info("5/5 leaderboard, picture and page")
    results = work.root / "results"
    board = leaderboard.publish(work, results)
    picture = work.root / "demo.png"
    draw_comparison({"phantom": data.select("test"), **made}, picture)
    page = work.root / "report.html"
    write_report(gather(work), page)
    if json:
        files = {"board": results / "leaderboard.csv", "picture": picture, "page": page, "data": data.path}
        files |= {name: dataset.path for name, dataset in made.items()}
        typer.echo(json_.dumps({name: str(path) for name, path in files.items()}, indent=1))
        return
    typer.echo(leaderboard.summary(board))
    typer.echo(f"data      {data.path}: {len(data)} volumes, {len(data.boxes)} lesions")
    typer.echo(f"drawn     {made['ddpm'].path}: {len(made['ddpm'])} volumes by ddpm")
    typer.echo(f"board     {results / 'leaderboard.csv'}")
    typer.echo("next      with your own data: dbtbench data import bcs-dbt ROOT --name NAME")
    typer.echo(f"picture   {picture}: phantoms, what was drawn after them, and the intensities of both")
    typer.echo(f"open      {page}: verdict, board, curves, and the volumes side by side")
