"""`dbtbench study`: a reader study as one page, and its scores."""

from __future__ import annotations

import json as json_
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import DataOption, JsonOption, WorkspaceOption
from dbtbench.errors import UsageError

app = typer.Typer(
    help="Let people tell real volumes from synthetic ones.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)


class Kind(StrEnum):
    """Kinds of studies."""

    CHOICE = "2afc"
    RATING = "rating"


@app.command("make")
def make(
    aug: Annotated[
        list[str], typer.Option("--aug", help="Generator or synthetic data set; may be repeated.")
    ],
    data: DataOption = None,
    kind: Annotated[
        Kind,
        typer.Option("--kind", help="2afc: two volumes, which one is real? rating: one volume, five steps."),
    ] = Kind.CHOICE,
    cases: Annotated[int, typer.Option("--cases", help="Cases that count; an even number.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of cases, sides, order and names.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="The page to write; its key goes beside it.")
    ] = Path("study.html"),
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write the page of a reader study, and its key.

    Readers open the page, answer, and send a CSV file back; it needs no network. The page does not hold the
    key: keep that file to yourself. Real volumes are those of the test split.

    Example: dbtbench study make --aug ddpm --cases 20 --out study.html
    """
    from dbtbench.pipeline.catalogue import choose_dataset
    from dbtbench.pipeline.generate import find_augmentation
    from dbtbench.runtime.csv_text import csv_text
    from dbtbench.runtime.files import write_text
    from dbtbench.study.choosing import choose_cases, make_key
    from dbtbench.study.page import render
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    real = choose_dataset(work, data)
    sets = [find_augmentation(work, name, real) for name in dict.fromkeys(aug)]
    chosen = choose_cases(real, sets, kind.value, cases, seed)
    text = render(real, chosen, kind.value)
    key = out.with_suffix(".key.csv")
    write_text(out, text)
    write_text(key, csv_text(make_key(chosen)))
    if json:
        names = {"real": real.name, "synthetic": [each.name for each in sets]}
        said = {"page": str(out), "key": str(key), "bytes": len(text.encode()), "cases": cases}
        typer.echo(json_.dumps(said | {"kind": kind.value} | names, indent=1))
        return
    typer.echo(f"for readers: {out} ({len(text.encode()) / 1e6:.1f} MB)")
    typer.echo(f"for you:     {key}")
    typer.echo(f"next: dbtbench study score answers*.csv --key {key}")


@app.command("score")
def score(
    answers: Annotated[
        list[Path], typer.Argument(metavar="ANSWERS.csv", help="Files that readers saved; any number.")
    ],
    key: Annotated[Path, typer.Option("--key", help="The key that was written beside the page.")],
    json: JsonOption = False,
) -> None:
    """Score what readers answered.

    Accuracy and d′ of choices, AUC of ratings, with 95 % intervals: for each reader, for the mean over
    readers and cases, and where there are several synthetic data sets for each of them.

    Example: dbtbench study score answers*.csv --key study.key.csv
    """
    from dbtbench.study.answers import read_answers, read_key
    from dbtbench.study.scoring import as_text, score_study

    if key.resolve() in {path.resolve() for path in answers}:
        raise UsageError(f"{key} is the key and no answers", "name the files that readers saved")
    kind, truth, synthetic = read_key(key)
    scores = score_study(kind, truth, read_answers(answers, kind, truth), synthetic)
    typer.echo(json_.dumps(scores, indent=1, allow_nan=False) if json else as_text(scores))
