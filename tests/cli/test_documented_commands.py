"""Every `dbtbench …` line of the pages and issue forms names commands and options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from dbtbench.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
LINE = re.compile(r"^(?: {4}|\$ )(dbtbench [^\n]*)", re.MULTILINE)
QUOTED = re.compile(r"`(dbtbench [^`\n]*)`")


def find_commands(text: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", text)  # lines that go on
    return LINE.findall(text) + QUOTED.findall(text)


def find_fault(line: str) -> str | None:
    """What is wrong with a command line, or None; values are not looked at."""
    command, before = typer.main.get_command(app), "dbtbench"
    for word in shlex.split(line.replace("…", " "), comments=True)[1:]:
        options = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        below = getattr(command, "commands", {})
        if word in ("|", "&&", ";", ">"):
            break
        if word in below:
            command = below[word]
        elif word.startswith("--"):
            if word.partition("=")[0] not in options | {"--help", "--debug"}:
                return f"{command.name} has no {word}"
        elif below and before in ("dbtbench", command.name):
            return f"{before} has no command {word}"
        before = word
    return None


@pytest.mark.parametrize("page", [*PAGES, *FORMS], ids=lambda page: page.name)
def test_commands_of_a_page_exist(page: Path) -> None:
    lines = find_commands(page.read_text(encoding="utf-8"))
    assert not [fault for line in lines for fault in [find_fault(line)] if fault]


def test_commands_are_found_and_wrong_ones_seen() -> None:
    assert len(find_commands((ROOT / "README.md").read_text(encoding="utf-8"))) > 8
    assert find_fault("dbtbench generate ddpm --gpus 4 --set lr=1e-4  # a comment") is None
    assert find_fault("dbtbench generate ddpm --gpu 4") == "generate has no --gpu"
    assert find_fault("dbtbench leaderbord") == "dbtbench has no command leaderbord"
    assert find_fault("dbtbench data inport volumes x") == "data has no command inport"
    assert find_fault("dbtbench leaderboard --results results") is None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms_are_whole(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= content.keys()
    asked = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    assert all(field["attributes"]["label"] for field in asked)
