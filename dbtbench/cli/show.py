"""`dbtbench show`: the card of a generator or task."""

from __future__ import annotations

import inspect
import json as json_
from typing import Annotated

import typer

from dbtbench.cli.options import JsonOption


def show(
    name: Annotated[str, typer.Argument(help="Generator or task.")],
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
        typer.echo(f"\n[{title}]")
        for key, value in settings.items():
            changed = value != recipes["default"][key]
            typer.echo(f"{'*' if changed else ' '} {key} = {json_.dumps(value)}")
    if len(recipes) > 1:
        typer.echo("\n* differs from the default")
