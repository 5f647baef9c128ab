from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError
from dbtbench.figures.comparison import CELL, GAP, draw_comparison
from dbtbench.pipeline import generate
from dbtbench.workspace import Workspace


def test_each_data_set_is_a_row(tmp_path: Path, toy: DBTDataset) -> None:
    heights = []
    for n in (1, 2, 3):
        path = tmp_path / f"{n}.png"
        draw_comparison({f"set {number}": toy for number in range(n)}, path)
        heights.append(Image.open(path).height)
    assert np.diff(heights).tolist() == [CELL + GAP] * 2


def test_the_same_data_give_the_same_bytes(tmp_path: Path, toy: DBTDataset) -> None:
    for name in ("a", "b"):
        draw_comparison({"real": toy, "other": toy.select("test")}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_command_draws_what_was_drawn(
    tmp_path: Path, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workspace(tmp_path / "work")
    generate.draw(work, generate.fit(work, "classic", toy), n=4)
    monkeypatch.setattr("dbtbench.pipeline.catalogue.choose_dataset", lambda *_: toy)
    arguments = ["picture", str(tmp_path / "x.png"), "--workspace", str(work.root), "--aug"]
    result = CliRunner().invoke(app, [*arguments, "classic"], catch_exceptions=False)
    assert result.exit_code == 0
    assert Image.open(tmp_path / "x.png").format == "PNG"
    with pytest.raises(MissingError, match="nothing drawn by 'ddpm'"):
        CliRunner().invoke(app, [*arguments, "ddpm"], catch_exceptions=False)
