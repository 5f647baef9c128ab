"""No code unpickles: not what lies in files, and not what other processes send."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import dbtbench
from dbtbench import plugins

MODULES = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib.numpy_pickle")
CALLS = ("read_pickle", "unsafe_load", "full_load", "load_pickle")
OBJECTS: tuple[str, ...] = (
    "broadcast_object_list",
    "gather_object",
    "all_gather_object",
    "scatter_object_list",
)
OBJECTS += ("send_object_list", "recv_object_list")
"""Exchanges of torch that pickle; MONAI's gather tensors and bytes."""
SAFE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
SAFE |= {("numpy", "load"): ("allow_pickle", False)}
"""Calls that unpickle unless a keyword has a value."""


def find_unpickling(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
            banned = (*CALLS, *OBJECTS)
            unsafe = [".".join(call) for call in SAFE] + ["joblib.load", *MODULES]
            yield from (
                n for n in names if node.module in MODULES or n.rpartition(".")[2] in banned or n in unsafe
            )
        elif isinstance(node, ast.Attribute):
            yield from ([node.attr] if node.attr in (*CALLS, *OBJECTS) else [])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _find_unsafe_call(node, node.func)


def _find_unsafe_call(node: ast.Call, called: ast.Attribute) -> Iterator[str]:
    owner = ast.unparse(called.value)
    if (owner, called.attr) == ("joblib", "load"):
        yield "joblib.load"
    if (owner, called.attr) in SAFE:
        keyword, value = SAFE[owner, called.attr]
        given = {k.arg: k.value for k in node.keywords}.get(keyword)
        if not isinstance(given, ast.Constant) or given.value is not value:
            yield f"{owner}.{called.attr}"


def test_nothing_is_unpickled() -> None:
    rooms = [Path(dbtbench.__file__).parent]
    for kind in plugins.KINDS:
        rooms += map(Path, import_module(f"dbtbench.{kind}").__path__)
    files = {file for room in rooms for file in room.rglob("*.py")}
    assert len(files) > 100
    found = {file.name: [*find_unpickling(file.read_text(encoding="utf-8"))] for file in files}
    assert not {name: words for name, words in found.items() if words}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "joblib.load(path)",
        "dist.broadcast_object_list(box)",
        "group().gather_object(value, values)",
        "from torch.distributed import all_gather_object",
    ],
)
def test_what_would_unpickle_is_found(code: str) -> None:
    assert [*find_unpickling(code)]


@pytest.mark.parametrize(
    "code", ["torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)", "json.load(file)"]
)
def test_what_does_not_is_left_alone(code: str) -> None:
    assert not [*find_unpickling(code)]
