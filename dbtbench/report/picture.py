"""One PNG that shows real and synthetic volumes side by side, and their histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dbtbench.data.dataset import DBTDataset
from dbtbench.files import atomic_path
from dbtbench.metrics.histogram import histogram
from dbtbench.metrics.mask import breast_mask

CELL = 168
COLUMNS = 4
GAP = 8
BETWEEN = 40
LEFT = 104
MARGIN = 16
PLOT_HEIGHT = 240
BINS = 64
VOLUMES = 256
INK, FAINT = (30, 30, 30), (150, 150, 150)
COLOURS = {"real": (31, 99, 172), "synthetic": (214, 96, 30)}
BOX = (255, 210, 60)


def draw_comparison(real: DBTDataset, synthetic: DBTDataset, path: Path) -> None:
    """Draw slices of real and synthetic volumes, lesion-free and with lesions, over their histograms.

    For every pair of columns the views are the same. The slice shown is the middle one, or the one through
    the lesion, whose box is outlined.

    Args:
        real: the training split.
        synthetic: what a generator drew.
        path: the PNG to write.
    """
    sides = {"real": real, "synthetic": synthetic}
    width = LEFT + 2 * COLUMNS * CELL + (2 * COLUMNS - 2) * GAP + BETWEEN + MARGIN
    height = 84 + 2 * (CELL + GAP) + 56 + PLOT_HEIGHT + 40
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 14), f"Real ({real.name}) and synthetic ({synthetic.name}) volumes", INK, font(20))
    for side, (name, dataset) in enumerate(sides.items()):
        left = LEFT + side * (COLUMNS * (CELL + GAP) - GAP + BETWEEN)
        pen.text((left, 54), name, COLOURS[name], font(16))
        for row, lesions in enumerate((False, True)):
            top = 84 + row * (CELL + GAP)
            for column, (case, view) in enumerate(_examples(dataset, lesions)):
                at = (left + column * (CELL + GAP), top)
                image.paste(tile(dataset, case, (CELL, CELL)), at)
                pen.text((at[0] + 5, at[1] + 3), view, FAINT, font(12))
    for row, title in enumerate(("lesion-free", "with lesion")):
        pen.text((MARGIN, 84 + row * (CELL + GAP) + CELL // 2 - 8), title, INK, font(14))
    top = 84 + 2 * (CELL + GAP) + 44
    curves = {name: _histograms(dataset) for name, dataset in sides.items()}
    step = (width - LEFT - MARGIN + BETWEEN) // 2
    for column, (region, title) in enumerate(
        (("whole", "whole volume (air included)"), ("breast", "inside the breast"))
    ):
        _plot(
            pen, (LEFT + column * step, top), step - BETWEEN, title, {n: c[region] for n, c in curves.items()}
        )
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of every picture, `size` pixels high."""
    return ImageFont.load_default(size)


def _examples(dataset: DBTDataset, lesions: bool) -> list[tuple[int, str]]:
    """Case and view of a few volumes: one of each view first, then whatever comes."""
    cases = dataset.cases[dataset.cases["case"].isin(dataset.boxes["case"]) == lesions]
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
    curves: dict[str, NDArray[np.float64]],
) -> None:
    """Histograms as lines, on a square-root axis, so that tissue shows beside the peak of air."""
    left, top = corner
    bottom = top + PLOT_HEIGHT
    peak = max(float(np.sqrt(curve).max()) for curve in curves.values())
    pen.text((left, top - 24), f"Intensities, {title}", INK, font(14))
    pen.line((left, bottom, left + width, bottom), INK)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * width
        pen.line((x, bottom, x, bottom + 4), INK)
        pen.text((x, bottom + 6), f"{tick:g}", INK, font(12), anchor="ma")
    for row, (name, curve) in enumerate(curves.items()):
        xs = left + (np.arange(BINS) + 0.5) / BINS * width
        ys = bottom - np.sqrt(curve) / peak * (PLOT_HEIGHT - 10)
        pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), COLOURS[name], 2)
        pen.text((left + width - 4, top + 18 * row), name, COLOURS[name], font(14), anchor="ra")
    pen.text((left, top), "share of voxels (square root)", FAINT, font(12))
