"""`dbtbench leaderboard`: publish the board, check it, verify a run, add somebody else's runs."""

from __future__ import annotations

import dataclasses
import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption
from dbtbench.errors import UsageError

ResultsOption = Annotated[
    Path | None, typer.Option("--results", help="Folder of the board; WORKSPACE/results by default.")
]

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def leaderboard(
    context: typer.Context,
    results: ResultsOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 4 when the board is out of date.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Publish or check the leaderboard.

    leaderboard.csv, and what stands between the markers <!-- board --> and <!-- /board --> of README.md, is
    built from the finished evaluation runs.

    Example: dbtbench leaderboard --results results --check
    """
    if context.invoked_subcommand:
        if check:
            raise UsageError(
                f"--check and {context.invoked_subcommand} are two things", "ask for one of them"
            )
        return
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


def _given(context: typer.Context, name: str, value: Any) -> Any:
    """An option that may stand before the command's name or after it."""
    return value or (context.parent.params[name] if context.parent else None)


@app.command("verify")
def verify(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its hash in the workspace.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Compute a run's scores again from its predictions.

    Exit code 4 when its record says something else.

    Example: dbtbench leaderboard verify 33cf1e981518
    """
    from dbtbench import leaderboard as board
    from dbtbench.workspace import Workspace

    verified = board.verify(Workspace.find(_given(context, "workspace", workspace)), run)
    as_json = _given(context, "json", json)
    typer.echo(json_.dumps(dataclasses.asdict(verified), indent=1) if as_json else str(verified))


@app.command("add")
def add(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Run folders, run.json files, or files of a results/runs folder."
        ),
    ],
    results: ResultsOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Add somebody else's runs to the board, all or none.

    Their records are checked; those that may not be compared with any run on the board are refused (exit 4).

    Example: dbtbench leaderboard add their/results/runs --results results
    """
    from dbtbench import leaderboard as board
    from dbtbench.workspace import Workspace

    work = Workspace.find(_given(context, "workspace", workspace))
    folder = _given(context, "results", results) or work.root / "results"
    table = board.add(folder, files)
    if _given(context, "json", json):
        typer.echo(table.to_json(orient="records", indent=1))
        return
    typer.echo(board.summary(table))
    typer.echo(f"written: {folder / 'leaderboard.csv'}")
