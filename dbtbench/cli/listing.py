"""`dbtbench list`: what there is."""

from __future__ import annotations

import json as json_
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption
from dbtbench.errors import UsageError

WHAT = ("generators", "tasks", "datasets", "runs")


def list_(
    what: Annotated[
        str | None, typer.Argument(help="generators, tasks, datasets or runs; all when not named.")
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """List generators, tasks, data sets and runs."""
    if what is not None and what not in WHAT:
        raise UsageError(f"nothing to list named {what!r}", f"known: {', '.join(WHAT)}")
    found = {kind: _rows(kind, workspace) for kind in ([what] if what else WHAT)}
    if json:
        typer.echo(json_.dumps(found, indent=1))
        return
    for kind, rows in found.items():
        typer.echo(f"{kind}:")
        for row in rows:
            typer.echo(
                "  "
                + "  ".join(
                    f"{value:<14}" if i == 0 else value for i, value in enumerate(map(_as_cell, row.values()))
                )
            )
        if not rows:
            typer.echo("  none yet")


def _as_cell(value: Any) -> str:
    from dbtbench.runtime.text import one_line

    return one_line(str(value))


def _rows(kind: str, workspace: Path | None) -> list[dict[str, Any]]:
    from dbtbench import plugins
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    if kind in plugins.KINDS:
        return [{"name": p.name, "summary": p.summary or p.origin} for p in plugins.find(kind).values()]
    if kind == "datasets":
        folders = [work.datasets / name for name in work.dataset_names()]
        return [_describe(folder / "dataset.json", _describe_dataset) for folder in folders]
    return [_describe(path, _describe_run) for path in sorted(work.root.glob("*/*/*/run.json"))]


def _describe(path: Path, describe: Callable[[Path, Any], dict[str, Any]]) -> dict[str, Any]:
    """Describe what lies in a folder; a file that is damaged does not keep the others from being listed."""
    from dbtbench.runtime.files import read_json

    try:
        return describe(path.parent, read_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"name": path.parent.name, "problem": f"{path.name} cannot be read"}


def _describe_dataset(folder: Path, meta: Any) -> dict[str, Any]:
    return {
        "name": folder.name,
        "kind": meta["source"]["kind"],
        "volumes": meta["cases"],
        "grid": "×".join(map(str, meta["grid"])),
    }


def _describe_run(folder: Path, record: Any) -> dict[str, Any]:
    return {
        "run": folder.name,
        "of": folder.parent.name,
        "arm": record.get("arm", ""),
        "seed": record.get("seed", ""),
    }
