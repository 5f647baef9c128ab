"""`dbtbench show`: the card of a generator or task."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

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
    meaning = {key: field.description or "" for key, field in cls.recipe_class.model_fields.items()}
    if json:
        import json as json_

        card = {"name": name, "kind": kind, "origin": plugin.origin, "version": cls.version}
        typer.echo(json_.dumps({**card, "recipes": recipes, "settings": meaning}, indent=1))
        return
    typer.echo(f"{name} ({kind[:-1]}, version {cls.version}, from {plugin.origin})\n")
    typer.echo(inspect.getdoc(inspect.getmodule(cls)) or plugin.summary)
    for title, settings in recipes.items():
        typer.echo(f"\n[{title}]")
        for key, value in settings.items():
            changed = title != "default" and value != recipes["default"][key]
            typer.echo(
                f"{'*' if changed else ' '} {key} = {_toml(value)}"
                + (f"  # {meaning[key]}" if meaning[key] and title == "default" else "")
            )
    if len(recipes) > 1:
        typer.echo("\n* differs from the default")


def _toml(value: Any) -> str:
    import json as json_

    return json_.dumps(value, ensure_ascii=False)
