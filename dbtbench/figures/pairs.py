"""One PNG of volumes over those that they are most like, with a line of text below each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dbtbench.figures.canvas import font
from dbtbench.figures.comparison import CELL, FAINT, GAP, INK, LEFT, MARGIN
from dbtbench.geometry.views import Volume
from dbtbench.runtime.files import atomic_path

LINE = 16
RED = (190, 30, 30)


@dataclass(frozen=True)
class Pair:
    """A volume and what it is most like.

    Attributes:
        upper: (D, H, W) in [0, 1].
        lower: likewise.
        captions: lines below the pair.
        marked: whether the first line is red.
    """

    upper: Volume
    lower: Volume
    captions: tuple[str, ...]
    marked: bool = False


def draw_pairs(pairs: Sequence[Pair], titles: tuple[str, str], path: Path) -> None:
    """Draw the mean over the slices of each pair; the same pairs give the same bytes.

    Args:
        pairs: in their order from left to right.
        titles: of the upper and the lower row.
        path: the PNG to write.
    """
    lines = max((len(pair.captions) for pair in pairs), default=0)
    width = LEFT + max(len(pairs), 1) * (CELL + GAP) + MARGIN - GAP
    image = Image.new("RGB", (width, 2 * (CELL + GAP) + lines * LINE + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(image)
    for row, title in enumerate(titles):
        pen.text((MARGIN, MARGIN + row * (CELL + GAP) + CELL // 2 - 8), title, INK, font(14))
    for column, pair in enumerate(pairs):
        left = LEFT + column * (CELL + GAP)
        for row, volume in enumerate((pair.upper, pair.lower)):
            grey = (np.clip(volume.mean(axis=0), 0, 1) * 255).astype(np.uint8)
            tile = Image.fromarray(grey).resize((CELL, CELL), Image.Resampling.BICUBIC)
            image.paste(tile, (left, MARGIN + row * (CELL + GAP)))
        for line, text in enumerate(pair.captions):
            colour = FAINT if line else RED if pair.marked else INK
            pen.text((left, MARGIN + 2 * (CELL + GAP) + line * LINE), text, colour, font(12))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
