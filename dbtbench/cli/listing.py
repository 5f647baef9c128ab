"""`dbtbench list`: what there is."""

from __future__ import annotations

import json as json_
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
    from dbtbench.runtime.files import read_json
    from dbtbench.workspace import Workspace

    work = Workspace.find(workspace)
    if kind in plugins.KINDS:
        return [{"name": p.name, "summary": p.summary or p.origin} for p in plugins.find(kind).values()]
    if kind == "datasets":
        metas = [read_json(work.datasets / name / "dataset.json") for name in work.dataset_names()]
        return [
            {
                "name": m["name"],
                "kind": m["source"]["kind"],
                "volumes": m["cases"],
                "grid": "×".join(map(str, m["grid"])),
            }
            for m in metas
        ]
    records = [(path, read_json(path)) for path in sorted(work.root.glob("*/*/*/run.json"))]
    return [
        {
            "run": path.parent.name,
            "of": path.parent.parent.name,
            "arm": r.get("arm", ""),
            "seed": r.get("seed", ""),
        }
        for path, r in records
    ]
