"""`dbtbench show`: the card of a generator or task."""

from __future__ import annotations

import inspect
import json as json_
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dbtbench.cli.options import JsonOption, complete_plugin


def show(
    name: Annotated[str, typer.Argument(help="Generator or task.", autocompletion=complete_plugin)],
    json: JsonOption = False,
) -> None:
    """Show a generator or task with all its settings."""
    from dbtbench import plugins, recipe

    kind = "tasks" if name in plugins.find("tasks") else "generators"
    plugin = plugins.get(kind, name)
    cls = plugins.load(plugin)
    folder = recipe.folder_of(cls)
    recipes = {
        r: recipe.resolve(cls.recipe_class, folder, r).model_dump(mode="json") for r in recipe.names(folder)
    }
    lineage = [c for c in cls.recipe_class.__mro__ if issubclass(c, recipe.Recipe) and c is not recipe.Recipe]
    meaning = [inspect.getdoc(c) or "" for c in lineage]
    if json:
        card = {"name": name, "kind": kind, "origin": plugin.origin, "version": cls.version}
        typer.echo(json_.dumps({**card, "recipes": recipes, "settings": "\n\n".join(meaning)}, indent=1))
        return
    typer.echo(f"{name} ({kind[:-1]}, version {cls.version}, from {plugin.origin})\n")
    typer.echo("\n\n".join([inspect.getdoc(inspect.getmodule(cls)) or plugin.summary, *meaning]))
    for title, settings in recipes.items():
        changed = {key for key, value in settings.items() if value != recipes["default"][key]}
        file = folder / f"{title}.toml"
        typer.echo("\n".join([f"\n[{title}]", *_lines(file, settings, changed)]))
    if len(recipes) > 1:
        typer.echo("\n* differs from the default")


def _lines(file: Path, settings: Mapping[str, Any], changed: Collection[str]) -> Iterator[str]:
    """A recipe in full: its file as it is, for the comments say what a setting rests on, then the rest."""
    given = set()
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        key = line.partition("=")[0].strip()
        given.add(key)
        yield f"{'*' if key in changed else ' '} {line}".rstrip()
    if given:
        yield "\n  # Everything else, as by default."
    for key in (key for key in settings if key not in given):
        yield f"  {key} = {json_.dumps(settings[key])}"
