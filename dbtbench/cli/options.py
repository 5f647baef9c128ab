"""Options that several verbs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from dbtbench.errors import UsageError


def complete_generator(incomplete: str) -> list[str]:
    """Complete a generator's name in the shell."""
    return _complete("generators", incomplete)


def complete_task(incomplete: str) -> list[str]:
    """Complete a task's name in the shell."""
    return _complete("tasks", incomplete)


def complete_plugin(incomplete: str) -> list[str]:
    """Complete the name of a generator or task in the shell."""
    return _complete("generators", incomplete) + _complete("tasks", incomplete)


def complete_data(incomplete: str) -> list[str]:
    """Complete a data set's name in the shell, for the workspace that is meant without `--workspace`."""
    from dbtbench.workspace import Workspace

    return [name for name in Workspace.find().dataset_names() if name.startswith(incomplete)]


def complete_card(incomplete: str) -> list[str]:
    """Complete the name of a data set or generator in the shell."""
    return complete_data(incomplete) + _complete("generators", incomplete)


def _complete(kind: str, incomplete: str) -> list[str]:
    from dbtbench import plugins

    return [name for name in plugins.find(kind) if name.startswith(incomplete)]


WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", help="Folder of all work; else dbtbench.toml, DBTBENCH_WORKSPACE, ./dbtbench-work."
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set; needed only when there are several. See `dbtbench list`.",
        autocompletion=complete_data,
    ),
]
RecipeOption = Annotated[str, typer.Option("--recipe", help="Named settings; see `dbtbench show NAME`.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated."),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing what is there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def overrides(pairs: list[str] | None) -> dict[str, str]:
    """`--set key=value` pairs as a mapping.

    Raises:
        UsageError: when one has no `=`.
    """
    for pair in pairs or []:
        if "=" not in pair:
            raise UsageError(f"--set {pair} has no value", "write --set key=value")
    return dict(pair.split("=", 1) for pair in pairs or [])


def checked_name(name: str) -> str:
    """A data set's name that is one folder's name, and one word of an arm's.

    Raises:
        UsageError: when it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"{name!r} cannot be a data set's name", "use letters, digits, - and _")
    return name
