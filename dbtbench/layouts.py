"""The layouts that every generator is asked for, drawn from the training split."""

from __future__ import annotations

import numpy as np

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes

JITTER_SHIFT = 0.04
"""Largest shift of a box in the plane, as a fraction of rows and columns."""
JITTER_SCALE = 0.10
"""Largest change of a box's size in the plane, as a fraction."""


def draw_layouts(train: DBTDataset, n: int, seed: int, positives: float, first: int = 0) -> list[Layout]:
    """Draw what to ask for from the training split's own cases.

    Each layout takes label, view and boxes of a training case, mirrored left to right for every other draw,
    the boxes shifted and scaled a little. Layout i depends on (split, seed, positives, i) only.

    Args:
        train: the training split.
        n: how many.
        seed: seed of the draw.
        positives: share of layouts with lesions, in [0, 1].
        first: number of the first layout.

    Raises:
        UsageError: when lesions are wanted and the split has none, or lesion-free volumes and it has none.
    """
    pools = {True: train.cases[train.positive], False: train.cases[~train.positive]}
    for wanted, share in ((True, positives), (False, 1 - positives)):
        if share > 0 and pools[wanted].empty:
            kind = "with" if wanted else "without"
            raise UsageError(
                f"{train.name} has no training case {kind} lesions", f"use --positives {1 - int(wanted)}"
            )
    layouts = []
    for index in range(first, first + n):
        rng = np.random.default_rng([seed, index])
        pool = pools[bool(rng.random() < positives)]
        case = pool.iloc[int(rng.integers(len(pool)))]
        boxes = _jitter(train.boxes_of(case["case"]), train.grid, rng)
        view = case["View"][:4].rstrip("0123456789")
        if rng.random() < 0.5:
            view = ("r" if laterality(view) == "l" else "l") + view[1:]
            boxes = mirror_boxes(boxes, train.grid[2])
        layouts.append(
            Layout(index, int(rng.integers(2**31)), str(case["label"]), view, boxes, int(case["case"]))
        )
    return layouts


def _jitter(boxes: Boxes, grid: tuple[int, int, int], rng: np.random.Generator) -> Boxes:
    """Shift each box in the plane and scale it a little, and keep it inside the volume."""
    out = boxes.copy()
    for box in out:
        for low, size in ((1, grid[1]), (2, grid[2])):
            half = (box[low + 3] - box[low]) / 2 * rng.uniform(1 - JITTER_SCALE, 1 + JITTER_SCALE)
            half = min(half, size / 2)
            centre = (box[low + 3] + box[low]) / 2 + size * rng.uniform(-JITTER_SHIFT, JITTER_SHIFT)
            centre = np.clip(centre, half, size - half)
            box[low], box[low + 3] = centre - half, centre + half
    return out
