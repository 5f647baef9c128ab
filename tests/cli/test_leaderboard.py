"""`dbtbench leaderboard` and its commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench.cli import app
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.workspace import Workspace


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`run(word, …)`: call `dbtbench leaderboard` and give what it printed."""

    def call(*words: object) -> str:
        app(args=["leaderboard", *map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_publishing_prints_the_board_its_verdicts_and_where_it_lies(
    run: Callable[..., str], evaluated: Workspace
) -> None:
    out = run("--workspace", evaluated.root)
    assert "ddpm: +0.20 mean sensitivity over real" in out
    assert out.endswith(f"written: {evaluated.root / 'results' / 'leaderboard.csv'}\n")
    assert "up to date" in run("--check", "--workspace", evaluated.root)


def test_json_has_the_columns_of_the_board(
    run: Callable[..., str], evaluated: Workspace, published: Path
) -> None:
    rows = json.loads(run("--workspace", evaluated.root, "--results", published, "--check", "--json"))
    assert {row["arm"] for row in rows} == {"real", "ddpm", "oversample", "more-real"}
    assert rows[0]["verified"] == "outcomes"


@pytest.mark.parametrize("before", [True, False])
def test_options_may_stand_before_the_commands_name_or_after_it(
    run: Callable[..., str],
    published: Path,
    before: bool,
    tmp_path: Path,
    make_record: Any,
    make_outcomes: Any,
    write_run: Any,
) -> None:
    theirs = write_run(tmp_path / "theirs", make_record("gan"), make_outcomes(5))
    options = ["--results", published, "--json"]
    rows = json.loads(run(*options, "add", theirs) if before else run("add", theirs, *options))
    assert "gan" in {row["arm"] for row in rows}


def test_check_goes_with_no_other_command(run: Callable[..., str], published: Path) -> None:
    with pytest.raises(UsageError, match="two things"):
        run("--check", "add", published)


def test_errors_have_their_exit_codes(run: Callable[..., str], evaluated: Workspace, published: Path) -> None:
    with pytest.raises(MissingError):
        run("verify", "ffffffffffff", "--workspace", evaluated.root)
    with pytest.raises(StaleError):
        run("add", next(evaluated.evaluations.glob("*/*")), "--results", evaluated.root / "nowhere")
