"""The command, and the demo, which makes the page and names it last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.pipeline import default_data, evaluate, generate
from dbtbench.workspace import Workspace


def test_the_page_is_written_and_named(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    app(args=["report", "--results", str(published), "--out", str(out), "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said["page"] == str(out)
    assert said["bytes"] == out.stat().st_size
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_results_and_a_workspace_are_two_things(tmp_path: Path) -> None:
    words = ["report", "--results", str(tmp_path), "--workspace", str(tmp_path)]
    with pytest.raises(UsageError, match="both"):
        app(args=words, standalone_mode=False)


def test_the_demo_ends_in_the_page(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained: its runs and volumes are there already."""
    root = tmp_path / "work"
    shutil.copytree(work.root, root)
    monkeypatch.setattr(default_data, "make", lambda *_: DBTDataset.open(root / "datasets" / "toy"))
    for module, name in ((generate, "fit"), (evaluate, "evaluate")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(generate, "draw", lambda *_, **__: DBTDataset.open(root / "datasets" / "gan1"))
    app(args=["demo", "--workspace", str(root)], standalone_mode=False)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"open      {root / 'report.html'}")
    assert '<section id="verdict"' in (root / "report.html").read_text(encoding="utf-8")
