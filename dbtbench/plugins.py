"""Finding generators and tasks: the built-in ones by looking, others by their entry points."""

from __future__ import annotations

import ast
import difflib
import importlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dbtbench.errors import DBTBenchError, MissingError

KINDS = {"generators": "Generator", "tasks": "Task"}


@dataclass(frozen=True)
class Plugin:
    """A generator or task that can be loaded.

    Attributes:
        kind: `generators` or `tasks`.
        name: what people type.
        summary: first line of its module's docstring; empty for one that another package brings.
        origin: the distribution that brings it.
        target: the module, or `module:Class` for an entry point.
    """

    kind: str
    name: str
    summary: str
    origin: str
    target: str


def find(kind: str) -> dict[str, Plugin]:
    """All plug-ins of a kind by name, without importing any.

    Raises:
        DBTBenchError: when two have the same name, or dbtbench runs from a checkout that is not installed.
    """
    found: dict[str, Plugin] = {}
    others = [_from_entry_point(kind, point) for point in entry_points(group=f"dbtbench.{kind}")]
    for plugin in [*_built_in(kind), *others]:
        if plugin.name in found:
            first = found[plugin.name]
            raise DBTBenchError(
                f"two {kind} are named {plugin.name!r}: "
                f"{first.origin} ({first.target}) and {plugin.origin} ({plugin.target})",
                "uninstall one of the two",
            )
        found[plugin.name] = plugin
    return dict(sorted(found.items()))


def get(kind: str, name: str) -> Plugin:
    """The plug-in of that name.

    Raises:
        MissingError: when there is none; the hint gives the nearest name.
    """
    found = find(kind)
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(found)}"
        raise MissingError(f"no {KINDS[kind].lower()} named {name!r}", hint)
    return found[name]


def load(plugin: Plugin) -> Any:
    """Import a plug-in and give its class.

    Raises:
        MissingError: when it cannot be imported, or defines no class (or several) of its kind.
    """
    base = getattr(importlib.import_module(f"dbtbench.{KINDS[plugin.kind].lower()}"), KINDS[plugin.kind])
    module_name, _, class_name = plugin.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingError(
            f"{plugin.name} ({plugin.origin}) cannot be imported: {error}", "install what it needs"
        ) from error
    if class_name:
        return getattr(module, class_name)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]
    if len(classes) != 1:
        names = ", ".join(c.__name__ for c in classes) or "none"
        raise MissingError(
            f"{plugin.target} must define one {base.__name__}, it has: {names}", "see CONTRIBUTING.md"
        )
    return classes[0]


def _built_in(kind: str) -> list[Plugin]:
    spec = find_spec(f"dbtbench.{kind}")
    if spec is None or not spec.submodule_search_locations:
        raise DBTBenchError(
            "dbtbench runs from a checkout that is not installed", "run `pip install -e .` in it"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = []
    for path in sorted(root.iterdir()):
        module = path / "__init__.py" if path.is_dir() else path
        if module.suffix == ".py" and module.is_file() and not path.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
            summary = doc.partition("\n")[0]
            found.append(Plugin(kind, path.stem, summary, "dbtbench", f"dbtbench.{kind}.{path.stem}"))
    return found


def _from_entry_point(kind: str, point: EntryPoint) -> Plugin:
    origin = point.dist.name if point.dist else "unknown"
    return Plugin(kind, point.name, "", origin, point.value)
