"""Plug-ins: generators and tasks, the built-in ones found by looking, others by their entry points."""

from __future__ import annotations

import ast
import contextlib
import difflib
import errno
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from dbtbench.errors import DBTBenchError, MissingError
from dbtbench.runtime.signals import Terminated

KINDS = {"generators": "Generator", "tasks": "Task"}
FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the file system that no plug-in can be blamed for."""


@dataclass(frozen=True)
class Plugin:
    """A generator or task that can be loaded.

    Attributes:
        kind: `generators` or `tasks`.
        name: what people type.
        summary: first line of its module's docstring; empty for one that another package brings.
        origin: the distribution that brings it, or the file.
        target: the module, or `module:Class` for an entry point.
        clash: why the name is ambiguous; empty when it is not.
    """

    kind: str
    name: str
    summary: str
    origin: str
    target: str
    clash: str = ""


def find(kind: str) -> dict[str, Plugin]:
    """Find all plug-ins of a kind by name, without importing any.

    A built-in module that cannot be parsed is listed too, and so is a name that two plug-ins have; the
    summary says so, and `load` refuses them.

    Raises:
        DBTBenchError: when dbtbench runs from a checkout that is not installed.
    """
    found: dict[str, Plugin] = {}
    others = [_from_entry_point(kind, point) for point in entry_points(group=f"dbtbench.{kind}")]
    for plugin in [*_built_in(kind), *others]:
        first = found.setdefault(plugin.name, plugin)
        if first is not plugin:
            clash = f"{first.origin} ({first.target}) and {plugin.origin} ({plugin.target})"
            message = f"two {kind} are named {plugin.name!r}: {clash}"
            found[plugin.name] = replace(first, summary=message, clash=message)
    return dict(sorted(found.items()))


def get(kind: str, name: str) -> Plugin:
    """Find the plug-in of that name.

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
        DBTBenchError: when two plug-ins have its name.
        MissingError: when its import fails in any way, or when it brings no class of its kind that can be
            used (or several).
    """
    if plugin.clash:
        raise DBTBenchError(plugin.clash, "uninstall one of the two")
    module_name, _, attribute = plugin.target.partition(":")
    with _explain_import(f"{KINDS[plugin.kind].lower()} {plugin.name} ({plugin.origin})"):
        module = importlib.import_module(module_name)
    if not attribute:
        return _only_class(module, plugin.kind)
    try:
        value = reduce(getattr, attribute.strip().split("."), module)
    except AttributeError as error:
        raise MissingError(
            f"{plugin.name} ({plugin.origin}): {module.__file__} has no {attribute}",
            f"let its entry point name a class: {plugin.name} = {module_name}:CLASS",
        ) from error
    return check_class(value, f"{plugin.name} ({plugin.target}, from {plugin.origin})", plugin.kind)


def load_file(path: Path) -> tuple[Plugin, Any]:
    """Import a plug-in from a file that is not installed.

    Returns:
        The plug-in, called as its file, and its class. The kind follows from the class.

    Raises:
        MissingError: as `load` does, and when there is no such file.
    """
    if not path.is_file():
        raise MissingError(f"{path} is not a file", "name a plug-in, or a FILE.py that defines one")
    name = f"dbtbench_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MissingError(f"{path} is not a Python module", "name a FILE.py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    with _explain_import(str(path)):
        spec.loader.exec_module(module)
    kinds = [kind for kind in KINDS if _classes(module, kind)]
    kind = kinds[0] if kinds else "generators"
    summary = (inspect.getdoc(module) or "").partition("\n")[0]
    return Plugin(kind, path.stem, summary, str(path), name), _only_class(module, kind)


def check_class(value: Any, where: str, kind: str) -> Any:
    """Give a class back that can be used as a plug-in.

    Args:
        value: the class, or whatever stands in its place.
        where: what brings it, for errors.
        kind: `generators` or `tasks`.

    Raises:
        MissingError: when it is no class of that kind, lacks methods, or its settings are no recipe.
    """
    base = _base(kind)
    if not isinstance(value, type):
        raise MissingError(
            f"{where} is no class but {value!r:.80}", f"name the class itself, a {base.__name__}"
        )
    if not issubclass(value, base):
        raise MissingError(
            f"{where}: {value.__name__} is no {base.__name__}",
            f"derive it: class {value.__name__}({base.__name__}[RECIPE])",
        )
    if inspect.isabstract(value):
        missing = ", ".join(sorted(getattr(value, "__abstractmethods__", ())))
        raise MissingError(f"{where}: {value.__name__} lacks {missing}", f"define {missing} in it")
    settings = getattr(value, "recipe_class", None)
    if not isinstance(settings, type) or not issubclass(settings, base.recipe_class):
        raise MissingError(
            f"{where}: the recipe_class of {value.__name__} is no Recipe",
            "derive its settings from dbtbench.recipe.Recipe",
        )
    return value


@contextmanager
def blame(kind: str, name: str) -> Iterator[None]:
    """Name the plug-in whose code fails inside this context.

    Errors that dbtbench raised itself, Ctrl-C, SIGTERM and a file system that is full or read-only pass
    through, and so does the loss of another process that trains with this one.

    Args:
        kind: `generators` or `tasks`.
        name: the plug-in's name.

    Raises:
        DBTBenchError: for any other exception, and for SystemExit.
    """
    try:
        yield
    except (DBTBenchError, Terminated):
        raise
    except (Exception, SystemExit) as error:
        lost_process = any(cls.__name__ == "DistError" for cls in type(error).__mro__)
        if lost_process or (isinstance(error, OSError) and error.errno in FULL_OR_READ_ONLY):
            raise
        plugin = find(kind).get(name)
        origin = f" ({plugin.origin})" if plugin else ""
        raise DBTBenchError(
            f"{KINDS[kind].lower()} {name}{origin} failed{_place(error)}: {_describe(error)}",
            "the same command with --debug shows the whole traceback",
        ) from error


@contextmanager
def _explain_import(what: str) -> Iterator[None]:
    """Turn all that an import can raise into an error; what the module prints goes to the log's stream."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Terminated:
        raise
    except (Exception, SystemExit) as error:
        hint = "install what it needs" if isinstance(error, ImportError) else "correct it, or uninstall it"
        raise MissingError(f"{what} cannot be imported{_place(error)}: {_describe(error)}", hint) from error


def _place(error: BaseException) -> str:
    """Say where in the plug-in's own file an exception came from; nothing when it came from no such file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _in_toolkit(f.filename)]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _in_toolkit(file: str) -> bool:
    """Tell whether a file is the import system's, or dbtbench's and not of a built-in plug-in."""
    if file.startswith("<frozen") or file in (contextlib.__file__, importlib.__file__):
        return True
    path, root = Path(file), Path(__file__).parent
    return path.is_relative_to(root) and not any(path.is_relative_to(root / kind) for kind in KINDS)


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it ends the program by SystemExit({error.code!r})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _base(kind: str) -> Any:
    """Give `Generator` or `Task`; they lie above this module, and importing them takes a second."""
    return getattr(importlib.import_module(f"dbtbench.{KINDS[kind].lower()}"), KINDS[kind])


def _classes(module: ModuleType, kind: str) -> list[type]:
    """List the classes of a kind that a module, or package, itself defines."""
    base, inside = _base(kind), (module.__name__, f"{module.__name__}.")
    return [
        value
        for value in dict.fromkeys(v for v in vars(module).values() if isinstance(v, type))
        if issubclass(value, base)
        and (value.__module__ == inside[0] or value.__module__.startswith(inside[1]))
    ]


def _only_class(module: ModuleType, kind: str) -> Any:
    """Give the one class of a kind that a module defines; base classes of others do not count."""
    classes = _classes(module, kind)
    usable = [cls for cls in classes if not inspect.isabstract(cls)] or classes
    if len(usable) != 1:
        names = ", ".join(cls.__name__ for cls in usable) or "none"
        base = KINDS[kind]
        raise MissingError(
            f"{module.__file__} must define one {base}, it defines {names}",
            f"write class NAME({base}[RECIPE]) in it; see CONTRIBUTING.md",
        )
    return check_class(usable[0], str(module.__file__), kind)


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
            target = f"dbtbench.{kind}.{path.stem}"
            name = path.stem.replace("_", "-")
            found.append(Plugin(kind, name, _summarise(module), "dbtbench", target))
    return found


def _summarise(module: Path) -> str:
    """Give the first line of a module's docstring, or why there is none to be had."""
    try:
        doc = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or null bytes
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"cannot be read: {_describe(error)}{line}"
    return doc.partition("\n")[0]


def _from_entry_point(kind: str, point: EntryPoint) -> Plugin:
    origin = point.dist.name if point.dist else "unknown"
    return Plugin(kind, point.name, "", origin, point.value)
