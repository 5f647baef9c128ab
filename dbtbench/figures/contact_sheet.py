"""One picture with a few dozen volumes of a data set: what an import made of the files, at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import ImageDraw

from dbtbench.data.dataset import LABELS, DBTDataset
from dbtbench.figures.canvas import Canvas, check_suffix, font
from dbtbench.figures.comparison import FAINT, INK, tile
from dbtbench.runtime.progress import progress
from dbtbench.runtime.text import one_line

TILES = 48
ACROSS = 8
WIDTH, HEIGHT = 150, 195
"""Room of a picture, 1 : 1.3, the shape of 1890 × 2457 pixels."""
LINE = 15
GAP = 12
MARGIN = 16
TITLE = 64
LONGEST = 300
"""Characters that are measured at all."""


class Tile(NamedTuple):
    """A row of cases.csv, as far as it is shown."""

    case: int
    PatientID: str
    View: str
    label: str
    split: str
    rows: int
    columns: int


def draw_contact_sheet(dataset: DBTDataset, path: Path, tiles: int = TILES) -> None:
    """Draw volumes of every class and view: those with lesions first, through the lesion, its box outlined.

    The volumes appear as displayed and in the shape of the original image, whatever the grid's is. Only those
    that are shown are read; the same data set gives the same bytes.

    Args:
        dataset: the data set.
        path: the picture to write, .png, .jpg, .jpeg, .pdf or .svg.
        tiles: how many volumes at most.

    Raises:
        UsageError: for another suffix.
    """
    check_suffix(path)
    shown = choose(dataset, tiles)
    sizes = [_size(row.rows, row.columns) for row in shown]
    room = max((height for _, height in sizes), default=0)
    across = min(ACROSS, max(len(shown), 4))
    width = 2 * MARGIN + across * (WIDTH + GAP) - GAP
    step = room + len(_captions(shown[0])) * LINE + GAP if shown else 0
    sheet = Canvas(width, TITLE + -(-len(shown) // across) * step + MARGIN)
    titles = _titles(dataset, len(shown))
    for text, pixels, top in zip(titles, (18, 12), (10, 38), strict=True):
        sheet.write((MARGIN, top), _cut_to_width(sheet.pen, text, pixels, width - 2 * MARGIN), INK, pixels)
    with progress("contact sheet", len(shown)) as advance:
        for place, (row, size) in enumerate(zip(shown, sizes, strict=True)):
            left, top = MARGIN + place % across * (WIDTH + GAP), TITLE + place // across * step
            at = (left + (WIDTH - size[0]) // 2, top + room - size[1])
            sheet.image.paste(tile(dataset, row.case, size), at)
            for line, text in enumerate(_captions(row)):
                words = _cut_to_width(sheet.pen, text, 12, WIDTH)
                sheet.write((left, top + room + 2 + LINE * line), words, FAINT if line else INK, 12)
            advance()
    sheet.save(path, titles[0])


def choose(dataset: DBTDataset, tiles: int = TILES) -> list[Tile]:
    """Choose volumes that stand for the data set.

    First one of every class, view and split, as long as there is room; then one of every combination of class
    and view in turn, volumes with lesions before others. Which of a kind is decided by the volumes' digests:
    as good as at random, and always the same.

    Returns:
        Rows of `cases`: with lesions before without, the gravest class first, then by view.
    """
    columns = [*Tile._fields, "sha256"]
    rank = {label: -place for place, label in enumerate(LABELS)}
    rows = dataset.cases[columns].assign(
        free=~dataset.positive,
        grave=dataset.cases["label"].map(rank).fillna(1),
    )
    rows = rows.sort_values(["free", "sha256", "case"])
    rows["turn"] = rows.groupby(["label", "View"]).cumcount()
    rows = rows.sort_values(["turn", "free", "grave", "View"], kind="stable")
    needed = pd.concat([rows.drop_duplicates(kind) for kind in ("label", "View", "split")])
    chosen = pd.concat([needed, rows]).drop_duplicates("case").head(tiles)
    chosen = chosen.sort_values(["free", "grave", "View", "case"])
    return [Tile(*row) for row in chosen[list(Tile._fields)].itertuples(index=False)]


def _titles(dataset: DBTDataset, shown: int) -> tuple[str, str]:
    """Name, grid and window; how many of what there are and are shown."""
    grid = " x ".join(map(str, dataset.grid))
    how = ", ".join(f"{key} {value}" for key, value in dataset.meta["intensity"].items())
    counts = [f"{n:,} {label}" for label in LABELS if (n := int((dataset.cases["label"] == label).sum()))]
    title = f"{dataset.name}: {grid}" + (f", {how}" if how else "")
    return title, f"{shown} of {len(dataset):,} volumes ({', '.join(counts)}), {len(dataset.boxes):,} boxes"


def _captions(row: Tile) -> list[str]:
    return [f"{row.View} {row.label}", f"{row.split}, case {row.case}", row.PatientID]


def _size(rows: int, columns: int) -> tuple[int, int]:
    """Width and height of the largest picture of that shape that has room."""
    rows, columns = max(rows, 1), max(columns, 1)
    scale = min(WIDTH / columns, HEIGHT / rows)
    return max(round(columns * scale), 1), max(round(rows * scale), 1)


def _cut_to_width(pen: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """Put the text on one line, cut where there is no more room."""
    text = one_line(" ".join(text[:LONGEST].split()))[:LONGEST]
    if pen.textlength(text, font(size)) <= width:
        return text
    while text and pen.textlength(text + "…", font(size)) > width:
        text = text[:-1]
    return text + "…"
