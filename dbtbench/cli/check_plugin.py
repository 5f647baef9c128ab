"""`dbtbench check-plugin`: let a generator or task show on toy data that it keeps the rules."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dbtbench.cli.options import JsonOption, SetOption, overrides

if TYPE_CHECKING:
    from dbtbench.plugins import Plugin


def check_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.py", help="Generator or task, or a file with one.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Named settings; smoke where there are such, else default."),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check a generator or task by the rules of the benchmark.

    It works on toy data, in a folder that is removed again; exit 1 when it breaks a rule.

    Example: dbtbench check-plugin my_generator.py
    """
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    plugin, cls = _find(name)
    with TemporaryDirectory(prefix="dbtbench-check-") as folder:
        verdicts = []
        if not json:
            typer.echo(f"{plugin.kind[:-1]} {plugin.name} ({plugin.origin})")
        for verdict in _judge(plugin, cls, Path(folder), recipe, overrides(set_)):
            verdicts.append(verdict)
            if not json:
                typer.echo(f"{verdict.state:<11} {verdict.rule:<14} {verdict.message}".rstrip())
                if verdict.hint:
                    typer.echo(f"{'':<27}hint: {verdict.hint}")
    ok = all(verdict.state == "ok" for verdict in verdicts)
    if json:
        card = {"name": plugin.name, "kind": plugin.kind, "origin": plugin.origin, "ok": ok}
        typer.echo(json_.dumps({**card, "rules": [asdict(v) for v in verdicts]}, indent=1))
    if not ok:
        raise typer.Exit(1)


def _find(name: str) -> tuple[Plugin, Any]:
    """A plug-in by name, or from a file that is not installed, with its class."""
    from dbtbench import plugins

    if name.endswith(".py"):
        return plugins.load_file(Path(name))
    kind = "tasks" if name in plugins.find("tasks") else "generators"
    plugin = plugins.get(kind, name)
    return plugin, plugins.load(plugin)


def _judge(plugin: Plugin, cls: Any, folder: Path, recipe: str | None, settings: dict[str, str]) -> Any:
    """The verdicts of its kind's rules."""
    from dbtbench.testing import generators, tasks

    if plugin.kind == "generators":
        return generators.RULES.judge(generators.GeneratorBench(cls, folder, recipe, settings, plugin.name))
    return tasks.RULES.judge(tasks.TaskBench(cls, folder, recipe, settings, plugin.name))
