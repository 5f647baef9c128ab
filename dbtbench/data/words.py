"""The values that a data set's files may hold: checked once, where they are opened, and trusted from then on.

Names, identifiers and words become parts of paths, of tables and of text on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.data.columns import (
    GRID_BOX,
    IDENTIFIER,
    LABELS,
    LARGEST_MM,
    SPACING,
    SPLITS,
)
from dbtbench.errors import DBTBenchError
from dbtbench.geometry.views import VIEW_PATTERN

LONGEST_TEXT = 1000
"""Characters of a text that is no identifier."""
ROUNDING = 1e-3
"""The most that a box may stick out of the grid, in voxels: coordinates are rounded to float32 on the way."""

WrongCell = tuple[str, int, str, str]
"""The table, the row from 0, the column and the value, as an error shows it."""


def is_identifier(text: str) -> bool:
    """Test whether a text can be a name or an identifier (`IDENTIFIER`), with printable characters only."""
    return re.fullmatch(IDENTIFIER, text) is not None and text.isprintable()


def is_text(value: object) -> bool:
    """Test whether a text can be shown: printable, and not over `LONGEST_TEXT` characters."""
    return not isinstance(value, str) or (value.isprintable() and len(value) <= LONGEST_TEXT)


def find_wrong_texts(meta: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find the names and texts in dataset.json that cannot be used; yield the place and the text of each."""
    source = meta["source"]
    for place, name in (("name", meta["name"]), ("source.generator", source.get("generator", "none"))):
        if not is_identifier(str(name)):
            yield place, _quote(name)
    for place, text in _list_texts(meta):
        if not is_text(text):
            yield place, _quote(text)


def _list_texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """List the keys and the texts of a JSON value, and where each stands."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list | Mapping):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(key, str):
                yield f"a key of {place or 'the file'}", key
            shown = str(key) if is_text(key) else "?"
            yield from _list_texts(part, f"{place}.{shown}" if place else shown)


def find_wrong_cells(cases: pd.DataFrame, boxes: pd.DataFrame) -> Iterator[WrongCell]:
    """Find the cells of the tables that hold what no such cell can hold.

    Args:
        cases: cases.csv as it was read.
        boxes: boxes.csv, likewise.
    """
    key: dict[str, Callable[[Any], bool]] = dict.fromkeys(("PatientID", "StudyUID"), is_identifier)
    key["View"] = lambda view: re.fullmatch(VIEW_PATTERN, view) is not None
    words = {"label": LABELS.__contains__, "split": SPLITS.__contains__, "sha256": _is_sha256}
    lengths = dict.fromkeys(("pixel_mm", *SPACING), _is_length)
    native = dict.fromkeys(("Slice", "X", "Y", "Width", "Height"), np.isfinite)
    yield from _find_wrong("cases.csv", cases, {**key, **words, **lengths})
    yield from _find_wrong("boxes.csv", boxes, {**key, **native})


def check_cells(path: Path, grid: tuple[int, int, int], cases: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Check that every cell holds what such a cell can hold; volumes and paths rely on it.

    Args:
        path: the data set's folder.
        grid: slices, rows, columns.
        cases: cases.csv as it was read.
        boxes: boxes.csv, likewise.

    Raises:
        DBTBenchError: for the first that does not, naming file, line and column.
    """

    def refuse(problem: str) -> DBTBenchError:
        hint = f"`dbtbench data check --data {path.name}` names every wrong cell"
        return DBTBenchError(f"{path} is not a data set: {problem}", hint)

    for file, row, column, value in find_wrong_cells(cases, boxes):
        raise refuse(f"{file}, line {row + 2}, column {column}: {value} is not allowed there")
    for box in boxes[~fit_grid(boxes, grid)].itertuples():
        raise refuse(f"boxes.csv, line {box.Index + 2}: {describe_corners(box)} is not inside the grid")
    if cases["case"].duplicated().any() or (cases["case"] < 0).any():
        raise refuse("cases.csv has a number twice or below 0")


def _find_wrong(
    file: str, table: pd.DataFrame, rules: Mapping[str, Callable[[Any], bool]]
) -> Iterator[WrongCell]:
    """Apply a rule to each column that has one, and `is_text` to every other column but `file`."""
    for name, cells in table.items():
        rule = rules.get(str(name), is_text)
        if name == "file" or (rule is is_text and cells.dtype.kind in "ifb"):
            continue
        right = {value: bool(rule(value)) for value in cells.dropna().unique()}
        for row, value in cells.items():
            if not right.get(value, True):
                yield file, int(row), str(name) if is_text(name) else "?", _quote(value)


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _is_length(mm: Any) -> bool:
    try:
        return 0 < float(mm) <= LARGEST_MM
    except ValueError:
        return False


def fit_grid(boxes: pd.DataFrame, grid: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Test for each box whether it has a positive size and lies inside the grid: (n,)."""
    low, high = boxes[GRID_BOX[:3]].to_numpy(float), boxes[GRID_BOX[3:]].to_numpy(float)
    inside = (low >= -ROUNDING) & (high <= np.array(grid) + ROUNDING) & (low < high)
    return np.asarray(inside.all(axis=1))


def describe_corners(box: Any) -> str:
    """Write a box of the grid as `box [z0, y0, x0, z1, y1, x1]`."""
    return f"box [{', '.join(f'{getattr(box, name):g}' for name in GRID_BOX)}]"


def _quote(value: object) -> str:
    """Write a value on one line, without what a terminal would obey, and cut."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
