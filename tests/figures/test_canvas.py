"""A picture is what its suffix says."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from PIL import Image

from dbtbench.errors import UsageError
from dbtbench.figures.canvas import SUFFIXES, Canvas

INK = (30, 30, 30)
MAGIC = {"PNG": b"\x89PNG", "JPEG": b"\xff\xd8\xff", "PDF": b"%PDF-", "SVG": b"<svg "}
SVG = "{http://www.w3.org/2000/svg}"


def draw(words: str = "with lesion") -> Canvas:
    canvas = Canvas(200, 60)
    canvas.pen.rectangle((10, 30, 59, 49), (200, 0, 0))
    canvas.write((100, 8), words, INK, 16, "m")
    return canvas


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_a_file_is_what_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        draw().save(tmp_path / f"{name}{suffix}", "title")
    made = (tmp_path / f"a{suffix}").read_bytes()
    assert made.startswith(MAGIC[SUFFIXES[suffix.lower()]])
    assert made == (tmp_path / f"b{suffix}").read_bytes()
    assert b"Date" not in made


@pytest.mark.parametrize("name", ["x.gif", "x", "png", "x.png.exe"])
def test_another_suffix_is_refused_with_those_that_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        draw().save(tmp_path / name, "title")
    assert refused.value.hint == "those that work: .png, .jpg, .jpeg, .pdf, .svg"
    assert not list(tmp_path.iterdir())


def test_texts_are_drawn_in_pixels_and_stay_texts_in_svg(tmp_path: Path) -> None:
    hostile = '<script>&"\x1b[31m\u202e\n'
    draw(hostile).save(tmp_path / "x.svg", hostile)
    root = fromstring((tmp_path / "x.svg").read_text())
    (text,) = root.iter(f"{SVG}text")
    assert text.text == '<script>&"\\x1b[31m\\u202e\\n'
    assert (text.attrib["x"], text.attrib["text-anchor"]) == ("100", "middle")
    assert 8 < float(text.attrib["y"]) < 8 + 2 * 16
    draw().save(tmp_path / "x.png", "title")
    pixels = np.asarray(Image.open(tmp_path / "x.png"))
    dark = np.argwhere((pixels < 100).all(axis=-1))
    assert 8 <= dark[:, 0].min() < dark[:, 0].max() < 30
    assert abs(dark[:, 1].mean() - 100) < 5
