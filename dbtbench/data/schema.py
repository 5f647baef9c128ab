"""Reading the files of a data set, so that what is wrong with one is said by file, column and line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

FORMAT = 1
NOT_DOWNLOADED = "not downloaded"
"""Why a volume or box that a table names is missing: it is no fault, and it is counted by itself."""
NO_LABEL = "no row in the labels table"
"""Why a volume or box was rejected that only another table names."""
LARGEST = 2**53
"""Whole numbers beyond it are not exact in the float64 that pandas reads a column with gaps into."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class Count(_Part):
    """What became of the rows of a table: rows = imported + all that was rejected + missing."""

    rows: NonNegativeInt
    imported: NonNegativeInt
    rejected: dict[str, NonNegativeInt]
    missing: NonNegativeInt


class Account(Count):
    """What became of the volumes and the boxes that the tables of a collection name."""

    boxes: Count


class _Source(_Part):
    kind: str


class _Split(_Part):
    hash: str


class _Description(_Part):
    """What every `dataset.json` holds; whatever else it holds is for those who wrote it."""

    format: Literal[1]
    name: str
    identity: str
    grid: tuple[PositiveInt, PositiveInt, PositiveInt]
    cases: NonNegativeInt
    intensity: dict[str, Any]
    source: _Source
    split: _Split
    fingerprint: str
    account: Account | None = None


def read_description(path: Path) -> dict[str, Any]:
    """Read `dataset.json`.

    Raises:
        OSError: when it cannot be read.
        ValueError: when something is missing or of a wrong type, naming it.
    """
    text = path.read_bytes()
    try:
        _Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {place + ': ' if place else ''}{first['msg']}") from error
    meta: dict[str, Any] = json.loads(text)
    return meta


def read_table(path: Path, text: Iterable[str], filled: Mapping[str, type]) -> pd.DataFrame:
    """Read a table. Nothing but an empty cell is NaN: a patient may be called `NA`.

    Args:
        path: the CSV file.
        text: columns to be kept as text.
        filled: columns that are there and filled in every row, and what they hold: str, int or float.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no table, or one of those columns is not as it should be, naming it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows longer than the header would lose their end
            table = pd.read_csv(
                path,
                dtype=dict.fromkeys(text, str),
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                low_memory=False,
            )
    except (ValueError, ParserWarning) as error:
        raise ValueError(f"{path.name}: {error}") from error
    for name, kind in filled.items():
        if name not in table:
            raise ValueError(f"{path.name} has no column {name}")
        table[name] = _checked(table[name], kind, path.name)
    return table


def _checked(column: pd.Series, kind: type, file: str) -> pd.Series:
    """The column, with the type it is to have; what pandas made of it is kept where that is right."""
    numbers = column if kind is str else pd.to_numeric(column, errors="coerce")
    wrong = column.isna() | numbers.isna()
    if kind is int:
        wrong |= (numbers % 1 != 0) | (numbers.abs() > LARGEST)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = "nothing" if pd.isna(column.iloc[row]) else repr(str(column.iloc[row])[:40])
        wanted = {str: "text", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{file}, line {row + 2}, column {column.name}: {found} where {wanted} is needed")
    if kind is str:
        return column
    return numbers.astype(kind) if kind is int or column.empty else numbers
