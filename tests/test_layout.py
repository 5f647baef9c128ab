"""The layout: plug-ins and toolkit keep to their sides, and a room imports only rooms below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import dbtbench
from dbtbench import plugins

PACKAGE = Path(dbtbench.__file__).parent
FLOORS = (
    ("errors", "version"),
    ("runtime",),
    ("geometry", "plugins", "recipe", "runs", "workspace"),
    ("data", "diffusion"),
    ("metric",),
    ("dicom", "generator", "task"),
    ("metrics", "networks", "phantom", "records"),
    ("closed_form", "exchange", "figures", "lesions", "pages"),
    ("layouts", "submissions", "training"),
    ("adversarial", "pipeline"),
    ("leaderboard", "testing"),
    ("report", "study"),
    ("api", "cli"),
    ("__main__",),
)
"""Rooms from the ground up. Rooms of one floor do not import each other."""


def test_plugins_and_toolkit_keep_to_their_sides() -> None:
    forbidden = ("dbtbench.generators", "dbtbench.tasks")
    package = Path(dbtbench.__file__).parent
    rooms = [package, *(Path(p) for kind in plugins.KINDS for p in _search(f"dbtbench.{kind}"))]
    files = [file for room in rooms for file in room.rglob("*.py")]
    assert len(files) > 30
    assert not [(file.name, name) for file in files for name in _imports(file) if name.startswith(forbidden)]


def test_a_room_imports_only_rooms_below_it() -> None:
    assert not list(_wrong_arrows(PACKAGE))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/writer.py", "from dbtbench.pipeline import arms"),  # from below
        ("metrics/froc.py", "from dbtbench.phantom import cohort"),  # from beside
        ("runtime/files.py", "from dbtbench import plugins"),
        ("runtime/files.py", "def read():\n    import dbtbench.cli.main"),  # inside a function
        ("attic/boxes.py", "from dbtbench import errors"),  # a room that has no floor
    ],
)
def test_an_import_from_above_is_found(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line + "\n", encoding="utf-8")
    assert len(list(_wrong_arrows(tmp_path))) == 1


def _wrong_arrows(package: Path) -> Iterator[str]:
    """Imports of a room that does not lie below, and rooms without a floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for file in package.rglob("*.py"):
        place = file.relative_to(package)
        room = place.parts[0].removesuffix(".py")
        if room in ("__init__", *plugins.KINDS):  # an installed package holds the plug-ins as well
            continue
        if room not in floor:
            yield f"{place} lies on no floor"
            continue
        for name in _imports(file):
            other = name.split(".")[1] if name.startswith("dbtbench.") else ""
            if other in floor and other != room and floor[other] >= floor[room]:
                yield f"{place} imports {name}"


def _search(package: str) -> list[str]:
    spec = find_spec(package)
    assert spec is not None
    return list(spec.submodule_search_locations or [])


def _imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found
