from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench import plugins

HEAVY = (
    "torch",
    "monai",
    "torchio",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "pydicom",
    "zarr",
    "pydantic",
    "rich",
)
COMPUTING = ("torch", "monai", "torchio", "zarr", "sklearn", "scipy.ndimage", "scipy.sparse", "scipy.stats")


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def dbtbench(tmp_path: Path, start_command: Any) -> Command:
    """`dbtbench(*words)`: run it in an empty folder."""
    return lambda *words: start_command(*words, folder=tmp_path).wait()


def test_nothing_heavy_is_imported_before_a_verb_needs_it() -> None:
    code = f"import sys, dbtbench.cli; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


VERBS = [
    [], ["data"], ["data", "phantom"], ["data", "import"], ["data", "import", "bcs-dbt"],
    ["data", "import", "volumes"], ["data", "info"], ["data", "check"], ["data", "export"],
    ["generate"], ["evaluate"], ["leaderboard"], ["leaderboard", "verify"], ["leaderboard", "add"],
    ["study"], ["study", "make"], ["study", "score"],
    ["score"], ["picture"], ["list"], ["show"], ["check-plugin"], ["doctor"], ["demo"],
]  # fmt: skip


def test_every_verb_explains_itself() -> None:
    helper = (
        "import json, sys\nfrom dbtbench.cli import app\n"
        "for words in json.loads(sys.argv[1]):\n    app(args=[*words, '--help'], standalone_mode=False)\n"
    )
    command = [sys.executable, "-c", helper, json.dumps(VERBS)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.count("Usage:") == len(VERBS)


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["generat"], 2, "No such command 'generat'", "dbtbench --help"),
        (["generate"], 2, "Missing argument", "generate --help"),
        (["generate", "ddpm", "--data", "x"], 3, "no data set named 'x'", "data import"),
        (["show", "dppm"], 3, "no generator named 'dppm'", "did you mean 'ddpm'?"),
        (["list", "tsks"], 2, "'tsks'", "tasks"),
        (["data", "import", "bcs-dbt", "nowhere", "--name", "x"], 3, "nowhere is not a folder", "tables"),
        (
            ["data", "import", "bcs-dbt", ".", "--name", "x", "--grid", "8x64"],
            2,
            "'8x64' is no grid",
            "8x64x64",
        ),
        (["data", "import", "bcs-dbt", ".", "--name", "../x"], 2, "'../x'", "letters"),
        (["leaderboard"], 3, "no finished evaluation", "dbtbench evaluate"),
        (["evaluate", "--task", "detection", "--data", "x"], 3, "no data set named 'x'", "data import"),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(
    dbtbench: Command, arguments: list[str], code: int, error: str, hint: str
) -> None:
    done = dbtbench(*arguments)
    assert done.returncode == code
    first, second = done.stderr.strip().splitlines()[-2:]
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_h_is_help(dbtbench: Command) -> None:
    for words in ([], ["data", "import", "volumes"]):
        done = dbtbench(*words, "-h")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == dbtbench(*words, "--help").stdout


def test_the_shell_completes_commands_and_names(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'dbtbench'; import dbtbench.cli as c; c.main()",
    ]

    def complete(words: str) -> list[str]:
        asked = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "_DBTBENCH_COMPLETE": "complete_bash",
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    assert complete("dbtbench ge") == ["generate"]
    assert complete("dbtbench generate dd") == ["ddpm"]
    assert complete("dbtbench evaluate --task re") == ["realism"]
    shown = subprocess.run(
        [*command, "--show-completion", "bash"], capture_output=True, text=True, check=False
    )
    assert "complete -o default -F _dbtbench_completion dbtbench" in shown.stdout


def test_a_reader_that_goes_ends_the_command_quietly(tmp_path: Path) -> None:
    """As in `dbtbench list | head -1`."""
    command = [sys.executable, "-m", "dbtbench", "list"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 141


SHOWING = [["--version"], ["list"], ["doctor"]]
SHOWING += [["show", name] for kind in plugins.KINDS for name in plugins.find(kind)]


@pytest.mark.parametrize("words", SHOWING)
def test_what_only_shows_imports_no_library_that_computes(tmp_path: Path, words: list[str]) -> None:
    code = (
        "import sys\nfrom dbtbench.cli import app\napp(args=sys.argv[1:], standalone_mode=False)\n"
        f"sys.exit([m for m in {COMPUTING} if m in sys.modules] or 0)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_generators_card_says_what_it_is(dbtbench: Command) -> None:
    card = dbtbench("show", "ddpm").stdout
    assert re.search("puts lesions where they are asked for: +not in paper, paper-mae\n", card)
    assert re.search("samples hold pieces of training volumes: +in inpaint, inpaint-smoke\n", card)
    assert re.search("scores volumes, for membership inference: +yes\n", card)
    assert re.search("scores volumes, for membership inference: +no\n", dbtbench("show", "paste").stdout)
    traits = json.loads(dbtbench("show", "classic", "--json").stdout)["traits"]
    assert traits["samples hold pieces of training volumes"] == ["default"]
    assert traits["trains a model"] == []


def test_debug_shows_the_traceback(dbtbench: Command) -> None:
    assert "Traceback" in dbtbench("show", "dppm", "--debug").stderr


def test_list_and_show_print_json(dbtbench: Command) -> None:
    listed = json.loads(dbtbench("list", "--json").stdout)
    assert {g["name"] for g in listed["generators"]} >= {"ddpm", "classic"}
    card = json.loads(dbtbench("show", "ddpm", "--json").stdout)
    assert {"default", "demo", "smoke"} <= card["recipes"].keys()


def test_show_prints_every_recipe_in_full_with_the_comments_of_its_file(dbtbench: Command) -> None:
    card = dbtbench("show", "ddpm").stdout
    printed = card[card.index("\n[default]") : card.index("\n* differs")].splitlines()
    toml = "\n".join(line if line.startswith("[") else line[2:] for line in printed)
    assert tomllib.loads(toml) == json.loads(dbtbench("show", "ddpm", "--json").stdout)["recipes"]
    paper = card[card.index("\n[paper]") : card.index("\n[paper-mae]")]
    assert "* lr = 1e-4" in paper.partition("# Our inference.")[0]
    assert "* num_timesteps = 300" in paper.partition("# Our inference.")[2]


def test_more_gpus_than_there_are_is_exit_3(tmp_path: Path, dbtbench: Command) -> None:
    done = dbtbench("generate", "ddpm", "--gpus", "4096")
    assert done.returncode == 3
    assert "4096 GPUs asked for" in done.stderr
    assert "hint: " in done.stderr
    assert not list(tmp_path.iterdir())
