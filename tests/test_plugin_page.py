"""docs/plugin.md: pip installs the package that it shows, which is found and keeps the rules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbtbench.testing import generators, tasks
from dbtbench.testing.rules import RuleBook

PAGE = (Path(__file__).parents[1] / "docs" / "plugin.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.]+)` [^\n]*\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder, with what pip installed of it in `site/`."""
    folder = tmp_path_factory.mktemp("package") / "dbtbench-average"
    for name, text in FILE.findall(PAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    install = ["pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    run(folder, *install, str(folder / "site"), str(folder))
    return folder


def run(folder: Path, module: str, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_package_is_shown(package: Path) -> None:
    listed = re.findall(r"^      (\S+)$", PAGE, re.MULTILINE)
    assert listed == [name for name, _ in FILE.findall(PAGE)]


def test_the_installed_plugin_is_listed_and_shown_with_its_recipe(package: Path) -> None:
    assert "average" in run(package, "dbtbench", "list", "generators")
    shown = run(package, "dbtbench", "show", "average")
    assert "from dbtbench-average" in shown
    assert "[strong]\n* noise = 0.05" in shown


def test_it_keeps_the_rules(package: Path) -> None:
    lines = run(package, "dbtbench", "check-plugin", "average").splitlines()
    assert lines[0] == "generator average (dbtbench-average)"
    assert len(lines) == 1 + len(generators.RULES.rules)
    assert all(line.startswith("ok ") for line in lines[1:])


def test_its_own_tests_are_these_rules(package: Path) -> None:
    said = run(package, "pytest", "-v", "tests", "-k", "contract")
    assert "::TestAverage::test_rule[contract] PASSED" in said
    assert f"1 passed, {len(generators.RULES.rules) - 1} deselected" in said


@pytest.mark.parametrize("rules", [generators.RULES, tasks.RULES])
def test_the_page_explains_every_rule(rules: RuleBook[Any]) -> None:
    for rule in rules.rules:
        assert f"| {rule} | " in PAGE
