"""`dbtbench score`: the official DBTex scores of prediction files, without images."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import JsonOption
from dbtbench.errors import UsageError


def score(
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="PREDICTIONS.csv", help="Predictions, one file per team."),
    ],
    labels: Annotated[list[Path], typer.Option("--labels", help="Table of volumes; may be repeated.")],
    boxes: Annotated[list[Path], typer.Option("--boxes", help="Table of lesions; may be repeated.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the board to this CSV file.")] = None,
    replicates: Annotated[
        int, typer.Option("--replicates", min=1, help="How often patients are resampled for the intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score and rank DBTex prediction files.

    The official scores, with intervals and paired differences for these submissions as they stand.
    A team is named after its file.

    Example: dbtbench score --labels labels.csv --boxes boxes.csv teams/*.csv --out board.csv
    """
    from dbtbench.runtime.csv_text import csv_text
    from dbtbench.runtime.files import write_text
    from dbtbench.submissions.ranking import score_submissions, summary

    if out is not None and (
        out.is_dir() or out.resolve() in {p.resolve() for p in (*predictions, *labels, *boxes)}
    ):
        raise UsageError(
            f"--out {out} is {'a folder' if out.is_dir() else 'one of the files to read'}", "name a new file"
        )
    board = score_submissions(labels, boxes, predictions, replicates, seed)
    if out is not None:
        write_text(out, csv_text(board))
    if json:
        rows = board.astype(object).where(board.notna(), None).to_dict("records")
        typer.echo(json_.dumps(rows, indent=1, allow_nan=False))
        return
    typer.echo(summary(board))
    if out is not None:
        typer.echo(f"written: {out}")
