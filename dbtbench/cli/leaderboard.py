"""`dbtbench leaderboard`: publish the board, or check that it is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption


def leaderboard(
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder of the board; WORKSPACE/results by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 4 when the board is out of date.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Publish or check the leaderboard.

    leaderboard.csv is built from the finished evaluation runs.

    Example: dbtbench leaderboard --results results --check
    """
    from dbtbench import leaderboard as board
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    folder = results or work.root / "results"
    table = (board.check if check else board.publish)(work, folder)
    if json:
        typer.echo(table.to_json(orient="records", indent=1))
        return
    typer.echo(board.summary(table))
    typer.echo(f"{'up to date' if check else 'written'}: {folder / 'leaderboard.csv'}")
