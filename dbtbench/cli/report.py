"""`dbtbench report`: the board, what lies behind it and the volumes, as one HTML file."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption
from dbtbench.errors import UsageError


def report(
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Published results instead of a workspace: a page without volumes."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write a page to open, send and put on the web.

    Verdict, board, FROC curves, volumes side by side, realism, privacy and provenance in one file that needs
    no network.

    Example: dbtbench report --out report.html
    """
    from dbtbench.report import gather, write_report
    from dbtbench.workspace import Workspace

    if results is not None and workspace is not None:
        raise UsageError("--results and --workspace are both given", "name one of them")
    material = gather(None if results else Workspace.find(workspace), results)
    size = write_report(material, out)
    if json:
        boards = [board.name for board in material.boards]
        typer.echo(json_.dumps({"page": str(out), "bytes": size, "boards": boards}, indent=1))
        return
    typer.echo(f"written: {out} ({size / 1e6:.1f} MB)")
