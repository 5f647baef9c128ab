"""Readers of CSV files of any origin: one checks every cell, one leaves bad rows to the caller."""

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
from dbtbench.exchange.tables import NO_REASON, reject_rows
from dbtbench.runtime.progress import log

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
    content, separator = decode_table(path.name, read_bytes(path))
    if "\0" in content:
        raise UsageError(f"{path} is not CSV: it holds NUL characters", "save it as CSV in UTF-8")
    stream = io.StringIO(content, newline="")
    rows = _split_rows(path, stream, separator)
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
    table = _parse_fast(content[stream.tell() :], separator, header, text, numbers)
    return _parse_by_line(path, rows, header, text, numbers) if table is None else table


def read_rows(name: str, raw: bytes, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns as text; a row that is not right is kept, with a reason.

    The file may be in UTF-8 or Latin-1, with commas, semicolons or tabs. Blank lines are no rows. Other
    columns are left out.

    Args:
        name: of the file, for errors and notices.
        raw: its bytes.
        columns: the columns that are wanted.
        optional: those of them that may be missing; their cells are then empty.

    Returns:
        One row per row of the file: the columns, `reason` and `detail` ("" where the row has as many cells as
        the heading, or fewer).

    Raises:
        UsageError: when it is not CSV, or lacks a column or has one twice.
    """
    text, separator = decode_table(name, raw)
    try:
        # csv, not pandas: pandas drops a whole table for one row with a cell too many.
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
        )
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{name} is not a CSV file: {error}", "download it again") from error
    header = [cell.strip() for cell in rows.pop(0)] if rows else []
    for wrong, found in (
        ("no column", [c for c in columns if c not in header and c not in optional]),
        ("several columns", [c for c in columns if header.count(c) > 1]),
    ):
        if found:
            raise UsageError(
                f"{name} has {wrong} {', '.join(found)}", f"expected once each: {', '.join(columns)}"
            )
    width = len(header)
    header += [column for column in optional if column not in header]
    cells = [row[:width] + [""] * (len(header) - len(row[:width])) for row in rows]
    table = pd.DataFrame(cells, columns=header, dtype=str)[[*columns]].apply(lambda c: c.str.strip(" "))
    surplus = pd.Series(["".join(row[width:]).strip() for row in rows], dtype=str)
    table = table.assign(**NO_REASON)
    reject_rows(table, surplus != "", "more cells than columns", surplus)
    return table


def read_bytes(path: Path) -> bytes:
    """Read a table's file.

    Raises:
        MissingError: when it is not there.
        UsageError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"no file {path}", "name a CSV file") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", "name a CSV file that you may read"
        ) from error


def decode_table(name: str, raw: bytes) -> tuple[str, str]:
    """Decode a table as UTF-8, else Latin-1, and find its separator: comma, semicolon or tab.

    Args:
        name: of the file, for the notice about Latin-1.
        raw: its bytes.

    Returns:
        The text and the separator.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.info(f"{name} is not in UTF-8; it is read as Latin-1")
        text = raw.decode("latin-1")
    heading = text.lstrip().partition("\n")[0]
    return text, max(",;\t", key=heading.count)


def _split_rows(path: Path, stream: io.StringIO, separator: str) -> Rows:
    """Yield line and cells of each row that is not blank, the heading first."""
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num} is not CSV: {error}", DECIMAL) from error


def _parse_fast(
    body: str, separator: str, header: Sequence[str], text: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame | None:
    """Read the columns with pandas, in a fourth of the time; None if anything is wrong with them.

    pandas does not name the line, so a file with an error is read again by line.
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


def _parse_by_line(
    path: Path, rows: Rows, header: Sequence[str], text: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """Read the same columns line by line; an error names the first bad line."""
    found: dict[str, list[str | float]] = {name: [] for name in (*text, *numbers)}
    for line, row in rows:
        if len(row) < len(header) or any(row[len(header) :]):
            cells = f"{len(row)} cells where the heading has {len(header)}"
            raise UsageError(f"{path}, line {line}: {cells}", DECIMAL)
        for name, values in found.items():
            cell = row[header.index(name)].strip()
            value = _to_number(cell) if name in numbers else cell or None
            if value is None:
                wanted = "a number" if name in numbers else "text"
                problem = f"{repr(cell[:40]) if cell else 'nothing'} where {wanted} is needed"
                hint = DECIMAL if "," in cell else "fix or remove that row"
                raise UsageError(f"{path}, line {line}, column {name}: {problem}", hint)
            values.append(value)
    types = dict.fromkeys(text, str) | dict.fromkeys(numbers, float)
    return pd.DataFrame(found).astype(types)


def _to_number(cell: str) -> float | None:
    """Convert a cell to a finite number; None if it is not one."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if isfinite(number) else None
