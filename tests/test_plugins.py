import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from dbtbench import plugins
from dbtbench.errors import DBTBenchError, MissingError


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


def test_a_name_from_two_places_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("ddpm", "elsewhere.model:DDPM", "dbtbench.generators")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    with pytest.raises(DBTBenchError, match=r"dbtbench\.generators\.ddpm.*elsewhere\.model:DDPM"):
        plugins.find("generators")


def test_a_plugin_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "no_such_module:Thing", "dbtbench.tasks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    with pytest.raises(MissingError, match="no_such_module"):
        plugins.load(plugins.get("tasks", "broken"))


def test_listing_imports_no_plugin() -> None:
    code = (
        "import sys; from dbtbench import plugins; plugins.find('generators'); plugins.find('tasks');"
        "heavy = ('dbtbench.generators.', 'dbtbench.tasks.', 'torch');"
        "sys.exit(any(m.startswith(heavy) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
