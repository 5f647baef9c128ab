"""The layouts that every generator is asked for, drawn from the training split."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes, projection

JITTER_SHIFT = 0.04
"""Largest shift of a box in the plane, as a fraction of rows and columns."""
JITTER_SCALE = 0.10
"""Largest change of a box's size in the plane, as a fraction."""

Places = Literal["known", "anywhere"]
"""Places that lesions are asked for at: those of the training lesions, or anywhere in the breast."""
PLACES: tuple[Places, ...] = get_args(Places)


def draw_layouts(
    train: DBTDataset, n: int, seed: int, positives: float, first: int = 0, places: Places = "known"
) -> list[Layout]:
    """Draw what to ask for from the training split's own cases.

    Each layout takes label, view and boxes of a training case, mirrored left to right for every other draw,
    the boxes shifted and scaled a little. Layout i depends on (split, seed, positives, places, i) only; with
    other places it has other boxes, and nothing else changes.

    Every layout has a host, also those without lesions: so a generator that edits hosts shows the same
    backgrounds with lesions and without. Hosts are drawn from a random stream of their own.

    Args:
        train: the training split.
        n: how many.
        seed: seed of the draw.
        positives: share of layouts with lesions, in [0, 1].
        first: number of the first layout.
        places: with `anywhere`, boxes are drawn by `dbtbench.lesions.anywhere`.

    Raises:
        UsageError: for unknown places; also when lesions are wanted and the split has none, or lesion-free
            volumes and it has none.
    """
    if places not in PLACES:
        raise UsageError(f"no places {places!r} for lesions", f"known: {', '.join(PLACES)}")
    pools = {True: train.cases[train.positive], False: train.cases[~train.positive]}
    for wanted, share in ((True, positives), (False, 1 - positives)):
        if share > 0 and pools[wanted].empty:
            kind = "with" if wanted else "without"
            raise UsageError(
                f"{train.name} has no training case {kind} lesions", f"use --positives {1 - int(wanted)}"
            )
    from dbtbench.lesions.anywhere import Anywhere  # it imports SciPy

    hosts, layouts, anywhere = Hosts(train), list[Layout](), None
    for index in range(first, first + n):
        rng = np.random.default_rng([seed, index])
        pool = pools[bool(rng.random() < positives)]
        case = pool.iloc[int(rng.integers(len(pool)))]
        boxes = _jitter(train.boxes_of(case["case"]), train.grid, rng)
        view = case["View"][:4].rstrip("0123456789")
        if rng.random() < 0.5:
            view = ("r" if laterality(view) == "l" else "l") + view[1:]
            boxes = mirror_boxes(boxes, train.grid[2])
        own, of_places = map(np.random.default_rng, np.random.SeedSequence([seed, index]).spawn(2))
        host = hosts.draw(view, str(case["PatientID"]) if len(boxes) else None, own)
        source, label = int(case["case"]), str(case["label"])
        layout = Layout(index, int(rng.integers(2**31)), label, view, boxes, source, host)
        if places == "anywhere" and len(boxes):
            anywhere = anywhere or Anywhere(train)
            layout = replace(layout, boxes=anywhere.draw(layout, of_places))
        layouts.append(layout)
    return layouts


class Hosts:
    """Draws training volumes that lesions may be put into.

    In a real data set only lesions that were biopsied have boxes, so that a volume without is not enough: it
    has the label normal.
    """

    def __init__(self, train: DBTDataset) -> None:
        normal = train.cases[(train.cases["label"] == "normal") & ~train.positive]
        self.by_projection = dict(iter(normal.groupby(normal["View"].map(projection))))

    def draw(self, view: str, patient: str | None, rng: np.random.Generator) -> int | None:
        """Draw a host for a layout of this view, of another patient than this; None where there is none."""
        rows = self.by_projection.get(projection(view))
        cases = [] if rows is None else rows.loc[rows["PatientID"] != patient, "case"].to_numpy()
        return int(cases[rng.integers(len(cases))]) if len(cases) else None


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
