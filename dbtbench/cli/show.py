"""`dbtbench show`: the card of a generator or task."""

from __future__ import annotations

import inspect
import json as json_
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dbtbench.cli.options import JsonOption, WorkspaceOption, complete_plugin


def show(
    name: Annotated[str, typer.Argument(help="Generator or task.", autocompletion=complete_plugin)],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show a generator or task with all its settings, and the trainings of a generator in the workspace."""
    from dbtbench import plugins, recipe

    kind = "tasks" if name in plugins.find("tasks") else "generators"
    plugin = plugins.get(kind, name)
    cls = plugins.load(plugin)
    folder = recipe.folder_of(cls)
    resolved = {r: recipe.resolve(cls.recipe_class, folder, r) for r in recipe.names(folder)}
    recipes = {r: settings.model_dump(mode="json") for r, settings in resolved.items()}
    traits, fits = {}, []
    if kind == "generators":
        from dbtbench.pipeline.trainings import describe_fits
        from dbtbench.workspace import Workspace

        traits = _find_traits({r: cls(settings) for r, settings in resolved.items()})
        fits = describe_fits(Workspace.find(workspace), name)
    lineage = [c for c in cls.recipe_class.__mro__ if issubclass(c, recipe.Recipe) and c is not recipe.Recipe]
    meaning = [inspect.getdoc(c) or "" for c in lineage]
    if json:
        card = {"name": name, "kind": kind, "origin": plugin.origin, "version": cls.version}
        card |= {"traits": traits, "trainings": fits} if traits else {}
        typer.echo(json_.dumps({**card, "recipes": recipes, "settings": "\n\n".join(meaning)}, indent=1))
        return
    typer.echo(f"{name} ({kind[:-1]}, version {cls.version}, from {plugin.origin})\n")
    lines = [f"{trait + ':':41} {_answer(having, recipes)}" for trait, having in traits.items()]
    lines += [f"{'trained here:':41} {_say_fit(fit)}" for fit in fits]
    about = [inspect.getdoc(inspect.getmodule(cls)) or plugin.summary, "\n".join(lines), *meaning]
    typer.echo("\n\n".join(filter(None, about)))
    for title, settings in recipes.items():
        changed = {key for key, value in settings.items() if value != recipes["default"][key]}
        file = folder / f"{title}.toml"
        typer.echo("\n".join([f"\n[{title}]", *_lines(file, settings, changed)]))
    if len(recipes) > 1:
        typer.echo("\n* differs from the default")


def describe_generator(name: str) -> dict[str, Any]:
    """Describe a generator for a card: `version`, `summary`, `traits` and `settings`, as by default."""
    from dbtbench import plugins, recipe

    plugin = plugins.get("generators", name)
    cls = plugins.load(plugin)
    default = recipe.resolve(cls.recipe_class, recipe.folder_of(cls), "default")
    traits = _find_traits({"default": cls(default)})
    return {
        "version": cls.version,
        "summary": plugin.summary or plugin.origin,
        "traits": {trait: "yes" if having else "no" for trait, having in traits.items()},
        "settings": default.model_dump(mode="json"),
    }


def _say_fit(fit: Mapping[str, Any]) -> str:
    from dbtbench.runtime.text import one_line

    size = "no weights" if fit["parameters"] is None else f"{fit['parameters']:,} parameters"
    return one_line(f"{fit['run']} on {fit['data']}, {size}, {fit['hours']} h on {fit['device']}")


def _find_traits(generators: Mapping[str, Any]) -> dict[str, list[str]]:
    """Find what generators do and are: for each trait the recipes that have it."""
    from dbtbench.generator import Generator

    traits: dict[str, Callable[[Any], bool]] = {
        "trains a model": lambda generator: generator.learned,
        "puts lesions where they are asked for": lambda generator: generator.follows_boxes,
        "samples hold pieces of training volumes": lambda generator: generator.derived,
        "scores volumes, for membership inference": lambda generator: (
            type(generator).score_volumes is not Generator.score_volumes
        ),
        "trains on several GPUs": lambda generator: generator.parallel,
    }
    return {
        trait: [recipe for recipe, generator in generators.items() if has(generator)]
        for trait, has in traits.items()
    }


def _answer(having: Collection[str], recipes: Collection[str]) -> str:
    """Say whether recipes have a trait: yes, no, or which."""
    lacking = [recipe for recipe in recipes if recipe not in having]
    if not having or not lacking:
        return "yes" if having else "no"
    return f"in {', '.join(having)}" if len(having) < len(lacking) else f"not in {', '.join(lacking)}"


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
