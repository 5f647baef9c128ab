from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.figures.comparison import BAR, CELL, GAP, INK, LEFT, TOP, draw_comparison
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
    for name in ("a.png", "b.png"):
        draw_comparison({"real": toy, "other": toy.select("test")}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def draw_as_svg(sets: dict[str, DBTDataset], path: Path) -> tuple[list[str], NDArray[np.uint8]]:
    """Draw; return the texts, and the pixels of the picture inside."""
    draw_comparison(sets, path)
    root = fromstring(path.read_text())
    (picture,) = root.iter("{http://www.w3.org/2000/svg}image")
    pixels = Image.open(BytesIO(b64decode(picture.attrib["href"].split(",")[1])))
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    return texts, np.asarray(pixels)


def test_a_phantom_is_called_so_and_nothing_else_is(tmp_path: Path, toy: DBTDataset) -> None:
    phantom = replace(toy, meta=toy.meta | {"phantom": {"version": 4}})
    for dataset, what in ((toy, "real volumes"), (phantom, "phantom volumes (no patients)")):
        texts, _ = draw_as_svg({"first": dataset}, tmp_path / "x.svg")
        assert texts[0] == f"Data set toy: {what}, and synthetic ones"
        assert "phantom" in " ".join(texts) or dataset is toy


def measure_bar(texts: list[str], pixels: NDArray[np.uint8]) -> float:
    """Read the pixels per mm off the scale bar."""
    (words,) = (text for text in texts if text.endswith("all volumes at this scale"))
    rows = pixels[TOP + CELL + GAP : TOP + CELL + GAP + BAR, LEFT - 4 :]
    return float((rows == INK).all(axis=-1).sum(axis=1).max() / int(words.split()[0]))


@pytest.mark.parametrize("mm", [(3.0, 3.0), (0.5, 1.0), (4.0, 2.0)])
def test_the_scale_bar_fits_the_volumes(tmp_path: Path, toy: DBTDataset, mm: tuple[float, float]) -> None:
    y_mm, x_mm = mm
    known = replace(toy, cases=toy.cases.assign(z_mm=1.0, y_mm=y_mm, x_mm=x_mm))
    texts, pixels = draw_as_svg({"real": known}, tmp_path / "x.svg")
    black = (pixels[TOP : TOP + CELL, LEFT : LEFT + CELL] != 255).any(axis=-1)
    down, across = black.any(axis=1).sum(), black.any(axis=0).sum()
    bar = measure_bar(texts, pixels)
    assert bar == pytest.approx(down / (32 * y_mm), rel=0.05)
    assert bar == pytest.approx(across / (32 * x_mm), rel=0.05)
    assert "nominal" not in " ".join(texts)


def test_a_nominal_spacing_is_called_so(tmp_path: Path, toy: DBTDataset) -> None:
    unknown = replace(toy, cases=toy.cases.assign(pixel_mm=float("nan"), y_mm=None, x_mm=None, z_mm=None))
    assert "(nominal spacing)" in " ".join(draw_as_svg({"real": unknown}, tmp_path / "x.svg")[0])


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
    with pytest.raises(UsageError, match=r"x\.gif: a picture's suffix is its format"):
        CliRunner().invoke(app, ["picture", "x.gif", "--aug", "ddpm"], catch_exceptions=False)
    with pytest.raises(MissingError, match="nothing drawn by 'ddpm'"):
        CliRunner().invoke(app, [*arguments, "ddpm"], catch_exceptions=False)
