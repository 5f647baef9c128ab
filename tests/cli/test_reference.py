"""docs/commands.md is complete and up to date, and every command keeps to the same habits."""

from __future__ import annotations

from pathlib import Path

import typer

from dbtbench.cli import app
from dbtbench.cli.reference import commands, write_reference

GROUPS = ("dbtbench", "dbtbench data", "dbtbench data import", "dbtbench study")
"""Commands that only hold others."""
FILE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_reference_is_up_to_date() -> None:
    """If it is not: python -m dbtbench.cli.reference > docs/commands.md."""
    assert FILE.read_text(encoding="utf-8") == write_reference()


def test_the_reference_has_every_command() -> None:
    headings = [line for line in write_reference().splitlines() if line.startswith("## ")]
    names = [name for name, _ in commands(typer.main.get_command(app), "dbtbench")]
    assert len(names) > 15
    assert [
        heading.removeprefix("## ").startswith(name) for heading, name in zip(headings, names, strict=True)
    ]


def test_every_command_that_ends_in_a_result_prints_json_and_every_parameter_has_help() -> None:
    for name, command in commands(typer.main.get_command(app), "dbtbench"):
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or name in GROUPS, name
        assert all(p.help for p in command.params if p.name != "help"), name
