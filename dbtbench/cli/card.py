"""`dbtbench card`: a data set or a generator as a page to publish with it."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption, complete_card


def card(
    name: Annotated[
        str, typer.Argument(help="Data set of the workspace, or generator.", autocompletion=complete_card)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.md", help="The card to write.")] = Path(
        "card.md"
    ),
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Published results to read scores from, instead of the workspace."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write a card: Markdown with the front matter of the Hugging Face hub and of Zenodo.

    It says what a data set or a generator is made from, and what was measured of it by seven criteria, and
    what was not. Licence and citation are left to you.

    Example: dbtbench card ddpm-duke-1a2b3c4d --out card.md
    """
    from dbtbench import plugins
    from dbtbench.data.dataset import DBTDataset
    from dbtbench.errors import MissingError
    from dbtbench.report import gather
    from dbtbench.report.card import write_data_card, write_generator_card
    from dbtbench.report.facts import describe_facts
    from dbtbench.runtime.files import write_text
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    is_data = name in work.dataset_names()
    if not is_data and name not in plugins.find("generators"):
        raise MissingError(f"no data set and no generator named {name!r}", "see `dbtbench list`")
    try:
        material = gather(None if results else work, results)
    except MissingError:
        if results is not None:
            raise
        material = None
    if is_data:
        text = write_data_card(DBTDataset.open(work.dataset_path(name)), material)
    else:
        from dbtbench.cli.show import describe_generator
        from dbtbench.pipeline.trainings import describe_fits

        facts = [] if material is None else describe_facts(material)
        drawn = [fact for fact in facts if fact["generator"] == name]
        text = write_generator_card(name, describe_generator(name), describe_fits(work, name), drawn)
    write_text(out, text)
    typer.echo(json_.dumps({"card": str(out), "of": name}, indent=1) if json else f"written: {out}")
