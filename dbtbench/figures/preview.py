"""One PNG of middle slices in rows, such as training volumes over what a half-trained generator draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dbtbench.figures.canvas import font
from dbtbench.figures.comparison import CELL, GAP, INK, LEFT, MARGIN
from dbtbench.geometry.views import Volume
from dbtbench.runtime.files import atomic_path


def draw_middle_slices(rows: Mapping[str, Volume], path: Path) -> None:
    """Draw the middle slice of each volume.

    Args:
        rows: volumes (n, D, H, W) in [0, 1], by the row's title.
        path: the PNG to write.
    """
    columns = max(len(volumes) for volumes in rows.values())
    size = (LEFT + columns * (CELL + GAP) + MARGIN - GAP, len(rows) * (CELL + GAP) + 2 * MARGIN - GAP)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for row, (title, volumes) in enumerate(rows.items()):
        top = MARGIN + row * (CELL + GAP)
        pen.text((MARGIN, top + CELL // 2 - 8), title, INK, font(14))
        for column, volume in enumerate(volumes):
            grey = (np.clip(volume[len(volume) // 2], 0, 1) * 255).astype(np.uint8)
            tile = Image.fromarray(grey).resize((CELL, CELL), Image.Resampling.BICUBIC)
            image.paste(tile, (LEFT + column * (CELL + GAP), top))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
