"""One picture that shows real and synthetic volumes, and their histograms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.spacing import spacing_of
from dbtbench.figures.canvas import Canvas, Colour, check_suffix
from dbtbench.metrics.histogram import histogram
from dbtbench.metrics.mask import breast_mask

CELL = 132
COLUMNS = 4
GAP = 6
BETWEEN = 28
LEFT = 116
TITLE = 40
TOP = TITLE + 34
BAR = 28
"""Room for the scale bar."""
MARGIN = 16
PLOT_HEIGHT = 240
BINS = 64
VOLUMES = 256
INK, FAINT = (30, 30, 30), (150, 150, 150)
COLOURS = (
    *((31, 99, 172), (214, 96, 30), (44, 140, 76), (150, 70, 160), (170, 135, 20), (90, 90, 90)),
    *((0, 150, 160), (200, 50, 90), (120, 80, 40), (110, 150, 0)),
)
BOX = (255, 210, 60)
LENGTHS = (100, 50, 20, 10, 5, 2, 1)
"""mm that a scale bar may stand for."""


class Example(NamedTuple):
    """A volume to show: its case, view, and mm across and down."""

    case: int
    view: str
    field: tuple[float, float]


def draw_comparison(sets: Mapping[str, DBTDataset], path: Path) -> None:
    """Draw slices of several data sets, lesion-free and with lesions, a row each, over their histograms.

    In every column the views are the same. The slice shown is the middle one, or the one through the lesion,
    whose box is outlined. All volumes have one scale, by their spacing.

    Args:
        sets: data sets by the name to be shown, the real one first.
        path: the picture to write, .png, .jpg, .jpeg, .pdf or .svg.

    Raises:
        UsageError: for another suffix.
    """
    check_suffix(path)
    colours = dict(zip(sets, cycle(COLOURS), strict=False))
    shown = {
        name: [_choose_examples(dataset, lesions) for lesions in (False, True)]
        for name, dataset in sets.items()
    }
    scale, nominal = _find_scale(sets, shown)
    width = LEFT + 2 * COLUMNS * CELL + (2 * COLUMNS - 2) * GAP + BETWEEN + MARGIN
    under = TOP + len(sets) * (CELL + GAP)
    top = under + BAR + 44
    canvas = Canvas(width, top + PLOT_HEIGHT + 40)
    title = _make_title(next(iter(sets.values())))
    canvas.write((MARGIN, 12), title, INK, 18)
    half = COLUMNS * (CELL + GAP) - GAP + BETWEEN
    for side, text in enumerate(("lesion-free", "with lesion")):
        canvas.write((LEFT + side * half, TITLE + 8), text, INK, 16)
    for row, (name, dataset) in enumerate(sets.items()):
        at = TOP + row * (CELL + GAP)
        for line, text in enumerate(wrap(name, 13)):
            canvas.write((MARGIN, at + CELL // 2 - 10 + 18 * line), text, colours[name], 15)
        for side, examples in enumerate(shown[name]):
            _draw_row(canvas, (LEFT + side * half, at), dataset, examples, scale)
    _draw_bar(canvas, (LEFT, under + 6), scale, nominal)
    curves = {name: _histograms(dataset) for name, dataset in sets.items()}
    step = (width - LEFT - MARGIN + BETWEEN) // 2
    regions = (("whole", "whole volume (air included)"), ("breast", "inside the breast"))
    for column, (region, text) in enumerate(regions):
        lines = {name: (curve[region], colours[name]) for name, curve in curves.items()}
        _plot(canvas, (LEFT + column * step, top), step - BETWEEN, text, lines)
    canvas.save(path, title)


def _make_title(dataset: DBTDataset) -> str:
    """Name the first data set, and say where it is a phantom."""
    what = "phantom volumes (no patients)" if "phantom" in dataset.meta else "real volumes"
    return f"Data set {dataset.name}: {what}, and synthetic ones"


def _draw_row(
    canvas: Canvas, corner: tuple[int, int], dataset: DBTDataset, examples: list[Example], scale: float
) -> None:
    for column, (case, view, field) in enumerate(examples):
        at = (corner[0] + column * (CELL + GAP), corner[1])
        size = (max(round(field[0] * scale), 1), max(round(field[1] * scale), 1))
        picture = tile(dataset, case, size)
        canvas.image.paste(picture, (at[0] + (CELL - size[0]) // 2, at[1] + (CELL - size[1]) // 2))
        canvas.write((at[0] + (CELL - size[0]) // 2 + 5, at[1] + 3), view, FAINT, 12)


def _find_scale(
    sets: Mapping[str, DBTDataset], shown: Mapping[str, list[list[Example]]]
) -> tuple[float, bool]:
    """Find the pixels per mm at which every volume fits into its cell, and whether a spacing is nominal."""
    largest, nominal = 0.0, False
    for name, dataset in sets.items():
        cases = {case: field for examples in shown[name] for case, _, field in examples}
        rows = dataset.cases[dataset.cases["case"].isin(cases)].to_dict("records")
        nominal |= any(spacing_of(row, dataset.grid)[1] for row in rows)
        largest = max([largest, *(max(field) for field in cases.values())])
    return CELL / (largest or CELL), nominal


def _draw_bar(canvas: Canvas, at: tuple[int, int], scale: float, nominal: bool) -> None:
    """Draw a bar of a round number of mm, at most half a cell long."""
    length = next((mm for mm in LENGTHS if mm * scale <= CELL / 2), LENGTHS[-1])
    left, top = at
    right = left + length * scale
    canvas.pen.line((left, top + 6, right, top + 6), INK, 3)
    note = " (nominal spacing)" if nominal else ""
    canvas.write((right + 8, top - 1), f"{length} mm{note}; all volumes at this scale", INK, 12)


def _choose_examples(dataset: DBTDataset, lesions: bool) -> list[Example]:
    """Choose a few volumes: one of each view first, then whatever comes."""
    cases = dataset.cases[dataset.positive == lesions]
    turn = cases.groupby("View").cumcount()
    chosen = cases.assign(turn=turn).sort_values(["turn", "View"], kind="stable").head(COLUMNS)
    _, rows, columns = dataset.grid
    examples = []
    for case in chosen.to_dict("records"):
        (_, y_mm, x_mm), _ = spacing_of(case, dataset.grid)
        examples.append(Example(case["case"], case["View"], (columns * x_mm, rows * y_mm)))
    return examples


def tile(dataset: DBTDataset, case: int, size: tuple[int, int]) -> Image.Image:
    """One slice of a volume with the boxes that it cuts: the middle slice, or the one through the first box.

    Args:
        dataset: the data set.
        case: value of the column `case`.
        size: width and height in pixels.
    """
    depth, rows, columns = dataset.grid
    boxes = dataset.boxes_of(case)
    middle = (boxes[0, 0] + boxes[0, 3]) / 2 if len(boxes) else depth / 2
    slice_ = int(np.clip(middle, 0, depth - 1))
    grey = (dataset.volumes([case])[0, 0, slice_] * 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(picture)
    across, down = size[0] / columns, size[1] / rows
    for z0, y0, x0, z1, y1, x1 in boxes:
        if z0 < slice_ + 1 and z1 > slice_:
            left, top = x0 * across, y0 * down
            pen.rectangle((left, top, max(x1 * across - 1, left), max(y1 * down - 1, top)), outline=BOX)
    return picture


def _histograms(dataset: DBTDataset) -> dict[str, NDArray[np.float64]]:
    """Shares of voxels by intensity, in the whole volume and inside the breast."""
    volumes = dataset.volumes(dataset.cases["case"].head(VOLUMES))
    counts = {"whole": histogram(volumes), "breast": histogram(volumes, breast_mask(volumes))}
    return {region: c.reshape(BINS, -1).sum(axis=1) / max(c.sum(), 1) for region, c in counts.items()}


def _plot(
    canvas: Canvas,
    corner: tuple[int, int],
    width: int,
    title: str,
    curves: Mapping[str, tuple[NDArray[np.float64], Colour]],
) -> None:
    """Histograms as lines, on a square-root axis, so that tissue shows next to the peak of air."""
    left, top = corner
    pen = canvas.pen
    bottom = top + PLOT_HEIGHT
    peak = max(float(np.sqrt(curve).max()) for curve, _ in curves.values())
    canvas.write((left, top - 24), f"Intensities, {title}", INK, 14)
    pen.line((left, bottom, left + width, bottom), INK)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * width
        pen.line((x, bottom, x, bottom + 4), INK)
        canvas.write((x, bottom + 6), f"{tick:g}", INK, 12, "m")
    for row, (name, (curve, colour)) in enumerate(curves.items()):
        xs = left + (np.arange(BINS) + 0.5) / BINS * width
        ys = bottom - np.sqrt(curve) / peak * (PLOT_HEIGHT - 10)
        pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour, 2)
        canvas.write((left + width - 4, top + 18 * row), name, colour, 14, "r")
    canvas.write((left, top), "share of voxels (square root)", FAINT, 12)
