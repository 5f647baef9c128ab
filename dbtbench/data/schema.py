"""Strict readers of a data set's files; an error names the file, the line and the column."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from dbtbench.data.words import find_wrong_texts
from dbtbench.runtime.csv_text import unescape_table

FORMAT = 1
EARLIER = "account"
"""The name that `import_report` had in a dataset.json written before the project used that word."""
NOT_DOWNLOADED = "not downloaded"
"""The reason for a volume or box that a table names and that is not there: no fault, and counted apart."""
NO_LABEL = "no row in the labels table"
"""The reason for rejecting a volume or box that only another table names."""
LARGEST = 2**53
"""Whole numbers beyond it are not exact in the float64 that pandas reads a column with gaps into."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class RowCounts(_Part):
    """Counts of a table's rows: rows = imported + all that were rejected + missing."""

    rows: NonNegativeInt
    imported: NonNegativeInt
    rejected: dict[str, NonNegativeInt]
    missing: NonNegativeInt


class Orientation(_Part):
    """The rule by which volumes were turned by 180°, how many were, and those that it left undecided."""

    rule: str
    turned: NonNegativeInt
    undecided: list[NonNegativeInt]


class ImportReport(RowCounts):
    """Counts of the volumes, and of the boxes, that the tables of a collection name, and of notices."""

    boxes: RowCounts
    notices: dict[str, NonNegativeInt] = {}
    orientation: Orientation | None = None


class _Source(_Part):
    kind: str


_Size = Annotated[PositiveInt, Field(le=LARGEST)]


class _Split(_Part):
    hash: str
    without_volumes: dict[str, str] = {}


class _Phantom(_Part):
    version: PositiveInt


class _Description(_Part):
    """The keys of every `dataset.json`; further keys are not looked at."""

    format: Literal[1]
    name: str
    identity: str
    grid: tuple[_Size, _Size, _Size]
    cases: NonNegativeInt
    intensity: dict[str, Any]
    source: _Source
    split: _Split
    fingerprint: str
    phantom: _Phantom | None = None
    import_report: ImportReport | None = Field(
        default=None, validation_alias=AliasChoices("import_report", EARLIER)
    )


def read_description(path: Path) -> dict[str, Any]:
    """Read `dataset.json`; a report under its earlier name gets the present one.

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
    if EARLIER in meta:
        meta["import_report"] = meta.pop(EARLIER)
    if wrong := next(find_wrong_texts(meta), None):
        raise ValueError(f"{path.name}: {wrong[0]}: {wrong[1]} is not allowed there")
    return meta


def read_declaration(source: Mapping[str, Any], name: str) -> bool | None:
    """Read what the maker of synthetic volumes declared of them; None where it did not say.

    Args:
        source: `source` of dataset.json.
        name: `derived` or `learned`; see `dbtbench.generator.Generator`.
    """
    said = source.get(name)
    return said if isinstance(said, bool) else None


def read_chosen(source: Mapping[str, Any]) -> list[str]:
    """Read the names of the settings that a generator chose itself, such as a guidance scale.

    Args:
        source: `source` of dataset.json.
    """
    said = source.get("chosen")
    return [name for name in said if isinstance(name, str)] if isinstance(said, list) else []


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
            table = unescape_table(table)
    except (ValueError, ParserWarning) as error:
        raise ValueError(f"{path.name}: {error}") from error
    for name, kind in filled.items():
        if name not in table:
            raise ValueError(f"{path.name} has no column {name}")
        table[name] = _check_type(table[name], kind, path.name)
    return table


def _check_type(column: pd.Series, kind: type, file: str) -> pd.Series:
    """Give a column its type; the type that pandas chose is kept where it is right."""
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
