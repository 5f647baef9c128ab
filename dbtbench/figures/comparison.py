"""One PNG that shows real and synthetic volumes, and their histograms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dbtbench.data.dataset import DBTDataset
from dbtbench.metrics.histogram import histogram
from dbtbench.metrics.mask import breast_mask
from dbtbench.runtime.files import atomic_path

CELL = 132
COLUMNS = 4
GAP = 6
BETWEEN = 28
LEFT = 116
TOP = 44
MARGIN = 16
PLOT_HEIGHT = 240
BINS = 64
VOLUMES = 256
INK, FAINT = (30, 30, 30), (150, 150, 150)
COLOURS = ((31, 99, 172), (214, 96, 30), (44, 140, 76), (150, 70, 160), (170, 135, 20), (90, 90, 90))
BOX = (255, 210, 60)

Colour = tuple[int, int, int]


def draw_comparison(sets: Mapping[str, DBTDataset], path: Path) -> None:
    """Draw slices of several data sets, lesion-free and with lesions, a row each, over their histograms.

    In every column the views are the same. The slice shown is the middle one, or the one through the lesion,
    whose box is outlined.

    Args:
        sets: data sets by the name to be shown, the real one first.
        path: the PNG to write.
    """
    colours = dict(zip(sets, cycle(COLOURS), strict=False))
    width = LEFT + 2 * COLUMNS * CELL + (2 * COLUMNS - 2) * GAP + BETWEEN + MARGIN
    top = TOP + len(sets) * (CELL + GAP)
    image = Image.new("RGB", (width, top + 44 + PLOT_HEIGHT + 40), "white")
    pen = ImageDraw.Draw(image)
    half = COLUMNS * (CELL + GAP) - GAP + BETWEEN
    for side, title in enumerate(("lesion-free", "with lesion")):
        pen.text((LEFT + side * half, 16), title, INK, font(16))
    for row, (name, dataset) in enumerate(sets.items()):
        at = TOP + row * (CELL + GAP)
        pen.multiline_text((MARGIN, at + CELL // 2 - 10), "\n".join(wrap(name, 13)), colours[name], font(15))
        for side, lesions in enumerate((False, True)):
            _draw_row(image, (LEFT + side * half, at), dataset, lesions)
    curves = {name: _histograms(dataset) for name, dataset in sets.items()}
    step = (width - LEFT - MARGIN + BETWEEN) // 2
    regions = (("whole", "whole volume (air included)"), ("breast", "inside the breast"))
    for column, (region, title) in enumerate(regions):
        corner = (LEFT + column * step, top + 44)
        shown = {name: (curve[region], colours[name]) for name, curve in curves.items()}
        _plot(pen, corner, step - BETWEEN, title, shown)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _draw_row(image: Image.Image, corner: tuple[int, int], dataset: DBTDataset, lesions: bool) -> None:
    pen = ImageDraw.Draw(image)
    for column, (case, view) in enumerate(_examples(dataset, lesions)):
        at = (corner[0] + column * (CELL + GAP), corner[1])
        image.paste(tile(dataset, case, (CELL, CELL)), at)
        pen.text((at[0] + 5, at[1] + 3), view, FAINT, font(12))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font of every picture, `size` pixels high."""
    return ImageFont.load_default(size)


def _examples(dataset: DBTDataset, lesions: bool) -> list[tuple[int, str]]:
    """Case and view of a few volumes: one of each view first, then whatever comes."""
    cases = dataset.cases[dataset.positive == lesions]
    turn = cases.groupby("View").cumcount()
    chosen = cases.assign(turn=turn).sort_values(["turn", "View"], kind="stable").head(COLUMNS)
    return list(zip(chosen["case"], chosen["View"], strict=True))


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
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    title: str,
    curves: Mapping[str, tuple[NDArray[np.float64], Colour]],
) -> None:
    """Histograms as lines, on a square-root axis, so that tissue shows next to the peak of air."""
    left, top = corner
    bottom = top + PLOT_HEIGHT
    peak = max(float(np.sqrt(curve).max()) for curve, _ in curves.values())
    pen.text((left, top - 24), f"Intensities, {title}", INK, font(14))
    pen.line((left, bottom, left + width, bottom), INK)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * width
        pen.line((x, bottom, x, bottom + 4), INK)
        pen.text((x, bottom + 6), f"{tick:g}", INK, font(12), anchor="ma")
    for row, (name, (curve, colour)) in enumerate(curves.items()):
        xs = left + (np.arange(BINS) + 0.5) / BINS * width
        ys = bottom - np.sqrt(curve) / peak * (PLOT_HEIGHT - 10)
        pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour, 2)
        pen.text((left + width - 4, top + 18 * row), name, colour, font(14), anchor="ra")
    pen.text((left, top), "share of voxels (square root)", FAINT, font(12))
