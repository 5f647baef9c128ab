"""Plug-ins are found without being imported, and a broken one is named and harms no other."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

import dbtbench.generators
from dbtbench import plugins
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.runtime.signals import Terminated

GOOD = '''"""Nothing but zeros."""
import numpy as np
from dbtbench.generator import Generator, Sample
from dbtbench.recipe import Recipe


class Zeros(Generator[Recipe]):
    """Zeros."""

    def fit(self, train, run):
        self.grid = train.grid

    def sample(self, layouts):
        for layout in layouts:
            yield Sample(np.zeros(self.grid, np.float32), layout.boxes)
'''


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`register(name, target, kind)`: an installed package brings this plug-in."""

    def register(name: str, target: str, kind: str = "generators") -> None:
        point = EntryPoint(name, target, f"dbtbench.{kind}")
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])

    return register


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """`write_module(name, code)`: a module that can be imported by that name."""

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return write


def test_the_built_in_plugins_are_found_with_their_summaries() -> None:
    assert {"ddpm", "classic"} <= plugins.find("generators").keys()
    assert {"detection", "realism"} <= plugins.find("tasks").keys()
    assert all(plugin.summary for kind in plugins.KINDS for plugin in plugins.find(kind).values())


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_built_in_plugin_loads(kind: str) -> None:
    for plugin in plugins.find(kind).values():
        assert plugins.load(plugin).__doc__


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(MissingError) as caught:
        plugins.get("generators", "dppm")
    assert caught.value.hint == "did you mean 'ddpm'?"


def test_a_name_from_two_places_is_an_error_that_names_both_once_it_is_used(
    register: Callable[..., None],
) -> None:
    register("ddpm", "elsewhere.model:DDPM")
    both = r"dbtbench\.generators\.ddpm.*elsewhere\.model:DDPM"
    with pytest.raises(DBTBenchError, match=both):
        plugins.load(plugins.get("generators", "ddpm"))
    found = plugins.find("generators")
    assert found["ddpm"].summary.startswith("two generators are named 'ddpm'")
    assert plugins.load(found["classic"]).__name__ == "Classic"


def test_listing_imports_no_plugin() -> None:
    code = (
        "import sys; from dbtbench import plugins; plugins.find('generators'); plugins.find('tasks');"
        "heavy = ('dbtbench.generators.', 'dbtbench.tasks.', 'torch');"
        "sys.exit(any(m.startswith(heavy) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_classic_is_loaded_without_torch() -> None:
    code = (
        "import sys; from dbtbench import plugins; plugins.load(plugins.get('generators', 'classic'));"
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchio', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\ndef broken(:\n", "line 2: SyntaxError: invalid syntax"),
        ("\n\nraise RuntimeError('no GPU')", "line 3: RuntimeError: no GPU"),
        ("import sys\nsys.exit()", "line 2: it ends the program by SystemExit(None)"),
        ("def f():\n    return 1 / 0\nf()", "line 2: ZeroDivisionError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_file_and_line(
    register: Callable[..., None],
    write_module: Callable[[str, str], str],
    code: str,
    what: str,
    tmp_path: Path,
) -> None:
    name = write_module("broken_at_import", code)
    register("broken", f"{name}:Thing", "tasks")
    with pytest.raises(MissingError) as caught:
        plugins.load(plugins.get("tasks", "broken"))
    sys.modules.pop(name, None)
    assert str(caught.value).startswith("task broken (unknown) cannot be imported at ")
    place = what.replace("line ", f"{tmp_path / name}.py:")
    assert place in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("attribute", "message", "hint"),
    [
        ("Nothing", "has no Nothing", "broken = wrong_attributes:CLASS"),
        ("zeros", "is no class but <wrong_attributes.Zeros object", "name the class itself"),
        ("int", "int is no Generator", "class int(Generator[RECIPE])"),
        ("Half", "Half lacks fit, sample", "define fit, sample"),
        ("Loose", "the recipe_class of Loose is no Recipe", "derive its settings"),
    ],
)
def test_an_entry_point_to_something_else_is_refused(
    register: Callable[..., None],
    write_module: Callable[[str, str], str],
    attribute: str,
    message: str,
    hint: str,
) -> None:
    code = f"{GOOD}\nint = int\nzeros = Zeros(Recipe())\nclass Half(Generator[Recipe]): pass\n"
    code += "class Loose(Zeros): recipe_class = dict"
    register("broken", f"{write_module('wrong_attributes', code)}:{attribute}")
    with pytest.raises(MissingError) as caught:
        plugins.load(plugins.get("generators", "broken"))
    assert "broken" in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from dbtbench.generators.classic import Classic", "must define one Generator, it defines none"),
        (f"{GOOD}\nclass Ones(Zeros): pass", "it defines Zeros, Ones"),
        ("from dbtbench.generator import Generator\nclass Half(Generator): pass", "Half lacks fit, sample"),
    ],
)
def test_a_module_must_define_one_class_of_its_own(
    write_module: Callable[[str, str], str], code: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingError, match=message):
        plugins.load_file(tmp_path / f"{write_module('not_one', code)}.py")


@pytest.mark.parametrize(
    "more",
    [
        "from dbtbench.generators.classic import Classic",
        "class Base(Generator[Recipe]): pass",
        "Other = Zeros",
    ],
)
def test_imported_and_abstract_base_classes_do_not_count(
    write_module: Callable[[str, str], str], more: str, tmp_path: Path
) -> None:
    plugin, cls = plugins.load_file(tmp_path / f"{write_module('zeros', f'{GOOD}{more}')}.py")
    assert cls.__name__ == "Zeros"
    assert (plugin.kind, plugin.name) == ("generators", "zeros")
    assert plugin.summary == "Nothing but zeros."


def test_a_file_is_loaded_under_a_name_that_clashes_with_no_module(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(GOOD, encoding="utf-8")
    _, cls = plugins.load_file(tmp_path / "numpy.py")
    assert cls.__module__ not in ("numpy", "numpy.py")
    assert isinstance(sys.modules["numpy"], ModuleType)
    assert sys.modules["numpy"].__file__ != str(tmp_path / "numpy.py")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"nothing\.py is not a file"):
        plugins.load_file(tmp_path / "nothing.py")


@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(0), OSError(errno.ENOENT, "no weights")])
def test_a_failure_of_a_plugins_own_code_names_it(error: BaseException) -> None:
    with pytest.raises(DBTBenchError) as caught, plugins.blame("generators", "classic"):
        raise error
    assert str(caught.value).startswith(f"generator classic (dbtbench) failed at {__file__}:")
    assert "defect" not in caught.value.hint
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        Terminated(),
        UsageError("too large", "smaller"),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EROFS, "read-only"),
    ],
)
def test_what_is_no_fault_of_a_plugin_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, plugins.blame("generators", "classic"):
        raise error
    assert caught.value is error


@pytest.fixture
def broken_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of built-in generators, three of which are broken."""
    folder = tmp_path / "generators"
    folder.mkdir()
    (folder / "zeros.py").write_text(GOOD, encoding="utf-8")
    (folder / "syntax.py").write_text('"""Fine so far."""\nclass (:\n', encoding="utf-8")
    (folder / "latin.py").write_bytes(b'"""\xe4"""\n')
    (folder / "exits.py").write_text(
        '"""Leaves."""\nimport sys\nprint("bye")\nsys.exit(0)\n', encoding="utf-8"
    )
    monkeypatch.setattr(dbtbench.generators, "__path__", [str(folder)])
    spec = dbtbench.generators.__spec__
    assert spec is not None
    monkeypatch.setattr(spec, "submodule_search_locations", [str(folder)])
    for name in ("zeros", "syntax", "latin", "exits"):
        monkeypatch.delitem(sys.modules, f"dbtbench.generators.{name}", raising=False)
    return folder


@pytest.mark.usefixtures("broken_folder")
def test_a_built_in_module_that_cannot_be_parsed_is_listed_and_says_so() -> None:
    found = plugins.find("generators")
    assert found["syntax"].summary == "cannot be read: SyntaxError: invalid syntax, line 2"
    assert found["latin"].summary.startswith("cannot be read: UnicodeDecodeError")
    assert found["zeros"].summary == "Nothing but zeros."
    assert plugins.load(found["zeros"]).__name__ == "Zeros"


@pytest.mark.usefixtures("broken_folder")
def test_the_doctor_survives_every_broken_plugin_and_names_it(
    register: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dbtbench.cli import app

    register("zeros", "elsewhere:Zeros")
    assert app(args=["doctor", "--json", "--workspace", str(tmp_path)], standalone_mode=False) == 3
    checks = {c["what"]: c for c in json.loads(capsys.readouterr().out)}
    broken = [what for what, check in checks.items() if "generator" in what and not check["ok"]]
    assert len(broken) == 4
    for text in (
        "syntax.py:2: SyntaxError",
        "latin.py:",
        "SystemExit(0)",
        "two generators are named 'zeros'",
    ):
        assert any(text in what for what in broken), text
    assert all(checks[what]["hint"] for what in broken)
    assert any("task realism" in what and check["ok"] for what, check in checks.items())
