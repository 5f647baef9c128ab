"""Small data sets in memory: volumes, boxes and noise that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Boxes, Volume

GRID = (6, 24, 20)
VIEWS = ("lcc", "lmlo", "rcc", "rmlo2")
NO_BOXES = np.zeros((0, 6), np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class InMemory(DBTDataset):
    """Volumes and boxes in memory; `asked` notes how many volumes are read at once."""

    stored: Volume = field(kw_only=True)
    wanted: Sequence[Boxes] = field(kw_only=True)
    asked: list[int] = field(kw_only=True)

    def volumes(self, cases: Any = None) -> Volume:
        rows = list(range(len(self.stored)) if cases is None else cases)
        self.asked.append(len(rows))
        return self.stored[rows][:, None].copy()

    def boxes_of(self, case: int) -> Boxes:
        return self.wanted[case].copy()


def in_memory(roots: NDArray[np.floating], views: Sequence[str] = VIEWS, boxes: Any = None) -> InMemory:
    """Volumes whose square roots, as displayed, are given."""
    n = len(roots)
    cases = pd.DataFrame({"case": range(n), "View": [views[i % len(views)] for i in range(n)]})
    stored = (roots.clip(0, 1) ** 2).astype(np.float32)
    meta = {"name": "made", "grid": list(roots.shape[1:])}
    empty = pd.DataFrame()
    return InMemory(Path("made"), meta, cases, empty, stored=stored, wanted=boxes or [NO_BOXES] * n, asked=[])


def smooth_noise(n: int, seed: int = 0) -> NDArray[np.float64]:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((n, *GRID)), (0, 0.5, 1, 1))
    return np.asarray(noise / noise.std())


def with_lesions(height: float, n: int = 48) -> tuple[InMemory, Boxes]:
    """A breast of root 0.6 in air; every other volume has a lesion of this height, at the same place."""
    z, y, x = np.mgrid[: GRID[0], : GRID[1], : GRID[2]] + 0.5
    breast = np.where(np.hypot((y - 12) / 11, x / 17) < 1, 0.6, 0.0)
    box = np.array([[2, 9, 7, 4, 15, 12]], np.float32)
    distance = ((z - 3) / 1) ** 2 + ((y - 12) / 3) ** 2 + ((x - 9.5) / 2.5) ** 2
    roots = np.broadcast_to(breast, (n, *GRID)) + 0.02 * smooth_noise(n) * (breast > 0)
    roots[::2] += height * np.exp(-distance)
    boxes = [box if i % 2 == 0 else NO_BOXES for i in range(n)]
    return in_memory(roots, views=["lcc"], boxes=boxes), box
