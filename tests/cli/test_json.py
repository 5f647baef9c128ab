"""`--json` of the verbs that make something: what was made, and nothing else on stdout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset

Ask = Callable[..., Any]


@pytest.fixture
def work(toy: DBTDataset, tmp_path: Path) -> Path:
    shutil.copytree(toy.path, tmp_path / "work" / "datasets" / "toy")
    return tmp_path / "work"


@pytest.fixture
def ask(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask(*words)`: what a command prints with --json, read."""
    monkeypatch.setenv("DBTBENCH_WORKSPACE", str(work))

    def run(*words: str) -> Any:
        app(args=[*words, "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    return run


def test_generate_says_what_was_drawn_and_picture_what_is_shown(ask: Ask, work: Path) -> None:
    drawn = ask("generate", "classic", "--data", "toy", "--n", "4", "--name", "mine")
    made = DBTDataset.open(work / "datasets" / "mine")
    assert drawn == {
        **{"name": "mine", "path": str(made.path), "fingerprint": made.fingerprint},
        **{"volumes": 4, "lesions": len(made.boxes)},
    }
    picture = work / "picture.png"
    assert ask("picture", str(picture), "--data", "toy", "--aug", "mine") == {
        **{"picture": str(picture), "real": "toy", "synthetic": {"mine": "mine"}},
    }
    assert picture.is_file()


def test_a_sweep_gives_its_table_and_the_file(ask: Ask) -> None:
    swept = ask("generate", "classic", "--data", "toy", "--n", "4", "--sweep", "noise=0,0.1")
    assert [row["noise"] for row in swept["sweep"][1:]] == [0, 0.1]
    assert Path(swept["file"]).is_file()


def test_phantom_says_where_the_files_are(ask: Ask, tmp_path: Path) -> None:
    out = str(tmp_path / "phantom")
    made = ask("data", "phantom", "--patients", "1", "--out", out)
    assert made == {"patients": 1, "preset": "tiny", "out": out}
    assert len(list(Path(out).rglob("*.dcm"))) == 4


def test_demo_names_every_file_that_it_made(ask: Ask, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained: what the engines give is put in their place."""
    from dbtbench import leaderboard, report
    from dbtbench.figures import comparison
    from dbtbench.pipeline import default_data, evaluate, generate

    toy = DBTDataset.open(work / "datasets" / "toy")
    monkeypatch.setattr(default_data, "make", lambda *_: toy)
    for module, name in (
        (generate, "fit"),
        (evaluate, "evaluate"),
        (leaderboard, "publish"),
        (comparison, "draw_comparison"),
        (report, "gather"),
        (report, "write_report"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(generate, "draw", lambda *_, **__: toy)
    made = ask("demo")
    assert made.keys() == {"board", "picture", "page", "data", "ddpm", "classic"}
    assert made["ddpm"] == str(toy.path)
