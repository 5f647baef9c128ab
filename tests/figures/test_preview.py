"""Middle slices in rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dbtbench.figures.comparison import CELL, GAP, LEFT, MARGIN
from dbtbench.figures.preview import draw_middle_slices


def test_each_row_shows_the_middle_slices_of_its_volumes(tmp_path: Path) -> None:
    volumes = np.zeros((3, 5, 8, 8), np.float32)
    volumes[:, 2] = np.array([0.2, 0.4, 0.6], np.float32)[:, None, None]
    draw_middle_slices({"training": volumes, "drawn": 1 - volumes[:2]}, tmp_path / "sheet.png")
    image = Image.open(tmp_path / "sheet.png").convert("L")

    def grey(row: int, column: int) -> int:
        x = LEFT + column * (CELL + GAP) + CELL // 2
        return int(np.asarray(image)[MARGIN + row * (CELL + GAP) + CELL // 2, x])

    assert [grey(0, column) for column in range(3)] == [51, 102, 153]
    assert [grey(1, column) for column in range(3)] == [204, 153, 255]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
