"""Some columns of a CSV file that somebody else wrote, each cell checked."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning

from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.bcs_dbt.tables import decoded

HINTS = {"VolumeSlices": "the first version of the BCS-DBT tables lacks it; use v2"}
DECIMAL = "numbers are written with a decimal point, and text with a separator in quotes"

Rows = Iterator[tuple[int, list[str]]]


def read_columns(path: Path, text: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns by their names, wherever they stand: UTF-8 or Latin-1, with commas, semicolons or tabs.

    Blank lines are no rows. Other columns, with or without a name, are left out.

    Args:
        path: the file.
        text: columns of text, never empty.
        numbers: columns of finite numbers.

    Returns:
        Those columns, numbers as float64.

    Raises:
        MissingError: when the file is not there.
        UsageError: when it cannot be read, lacks a column or has one twice, or has a bad cell, naming file,
            line and column.
    """
    content, separator = decoded(path.name, _bytes(path))
    if "\0" in content:
        raise UsageError(f"{path} is not CSV: it holds NUL characters", "save it as CSV in UTF-8")
    stream = io.StringIO(content, newline="")
    rows = _rows(path, stream, separator)
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    if not header:
        raise UsageError(f"{path} is empty", "a table has a heading, also when it has no rows")
    wanted = [*text, *numbers]
    for wrong, columns in (
        ("no column", [column for column in wanted if column not in header]),
        ("several columns", [column for column in wanted if header.count(column) > 1]),
    ):
        if columns:
            hint = HINTS.get(", ".join(columns), f"needed once each: {', '.join(wanted)}")
            raise UsageError(f"{path} has {wrong} {', '.join(columns)}", hint)
    table = _parsed(content[stream.tell() :], separator, header, text, numbers)
    return _by_line(path, rows, header, text, numbers) if table is None else table


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"no file {path}", "name a CSV file") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "name a CSV file") from error


def _rows(path: Path, stream: io.StringIO, separator: str) -> Rows:
    """Line and cells of each row that is not blank, the heading first."""
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num} is not CSV: {error}", DECIMAL) from error


def _parsed(
    body: str, separator: str, header: Sequence[str], text: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame | None:
    """The columns as pandas reads them, in a fourth of the time; None if anything is wrong with them.

    pandas does not say in which line, so a file that is not right is read again by line.
    """
    types = {n: np.float64 if name in numbers else str for n, name in enumerate(header)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows longer than the heading would lose their end
            cells = pd.read_csv(
                io.StringIO(body, newline=""),
                sep=separator,
                header=None,
                names=list(types),
                dtype=types,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
            )
    except (ValueError, ParserWarning):
        return None
    table = pd.DataFrame({name: cells[header.index(name)] for name in (*text, *numbers)})
    for name in text:
        table[name] = table[name].str.strip()
    bad = (table[[*text]] == "").any(axis=None) or not np.isfinite(table[[*numbers]]).all(axis=None)
    return None if bad else table


def _by_line(
    path: Path, rows: Rows, header: Sequence[str], text: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """The same columns, with an error that names the first bad line."""
    found: dict[str, list[str | float]] = {name: [] for name in (*text, *numbers)}
    for line, row in rows:
        if len(row) < len(header) or any(row[len(header) :]):
            cells = f"{len(row)} cells where the heading has {len(header)}"
            raise UsageError(f"{path}, line {line}: {cells}", DECIMAL)
        for name, values in found.items():
            cell = row[header.index(name)].strip()
            value = _number(cell) if name in numbers else cell or None
            if value is None:
                wanted = "a number" if name in numbers else "text"
                problem = f"{repr(cell[:40]) if cell else 'nothing'} where {wanted} is needed"
                hint = DECIMAL if "," in cell else "mend or remove that row"
                raise UsageError(f"{path}, line {line}, column {name}: {problem}", hint)
            values.append(value)
    types = dict.fromkeys(text, str) | dict.fromkeys(numbers, float)
    return pd.DataFrame(found).astype(types)


def _number(cell: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if isfinite(number) else None
