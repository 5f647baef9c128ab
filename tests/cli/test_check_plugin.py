"""`dbtbench check-plugin`: one line per rule, for an installed plug-in and for a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbtbench.cli import app
from dbtbench.errors import MissingError, UsageError

FLAT = '''"""Grey volumes."""

import numpy as np

from dbtbench.generator import Generator, Sample
from dbtbench.recipe import Recipe


class FlatRecipe(Recipe):
    """Settings."""

    level: float = 0.5


class Flat(Generator[FlatRecipe]):
    """One grey."""

    recipe_class = FlatRecipe
    follows_boxes = False

    def fit(self, train, run):
        self.grid = train.grid

    def sample(self, layouts):
        for layout in layouts:
            yield Sample(np.full(self.grid, self.recipe.level), [])
'''


def check(*words: str) -> object:
    return app(args=["check-plugin", *words], standalone_mode=False)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    file = tmp_path / "flat.py"
    file.write_text(FLAT, encoding="utf-8")
    return file


def test_a_file_that_keeps_the_rules_is_exit_0(flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not check(str(flat))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == f"generator flat ({flat})"
    assert [line.split()[:2] for line in lines] == [
        ["ok", rule]
        for rule in ("contract", "purity", "resume", "boxes", "losses", "training-split", "odd-grid")
    ]


def test_a_file_that_breaks_a_rule_is_exit_1_with_a_hint(
    flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(str(flat), "--set", "level=-1") == 1
    _, first, hint, *others = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["FAILED", "contract"]
    assert "values run from −1 to −1" in first
    assert hint.split(maxsplit=1) == ["hint:", "return (x + 1) / 2"]
    assert all(line.startswith("not checked") for line in others)


def test_json_has_every_rule(flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not check(str(flat), "--json")
    card = json.loads(capsys.readouterr().out)
    assert (card["name"], card["kind"], card["ok"]) == ("flat", "generators", True)
    assert {rule["state"] for rule in card["rules"]} == {"ok"}
    assert check(str(flat), "--json", "--set", "level=7") == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_an_installed_task_is_checked_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check("realism")
    assert capsys.readouterr().out.startswith("task realism (dbtbench)\nok          contract\n")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["clasic"], MissingError, "no generator named 'clasic'"),
        (["nowhere.py"], MissingError, r"nowhere\.py is not a file"),
        (["classic", "--recipe", "quick"], UsageError, "no recipe named 'quick'"),
        (["classic", "--set", "nose=1"], UsageError, "no setting named 'nose'"),
    ],
)
def test_what_cannot_be_checked_is_an_error(words: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(*words)
