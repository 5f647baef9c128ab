"""Readers of CSV files of any origin: one checks every cell, one leaves bad rows to the caller."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning

from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.tables import NO_REASON, reject_rows
from dbtbench.runtime.csv_text import unescape, unescape_table
from dbtbench.runtime.progress import log

HINTS = {"VolumeSlices": "the first version of the BCS-DBT tables lacks it; use v2"}
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""Byte-order marks; "Unicode text" of a spreadsheet is UTF-16 with tabs."""
DECLARED = re.compile(r'\A\s*"?sep=([^\w\s"]|\t)"?[,; \t]*(?=\r|\n)', re.IGNORECASE)
"""A first line that names the separator, as spreadsheets read and write it."""
TRUTH = {
    **dict.fromkeys(("true", "wahr", "vrai", "verdadero", "verdadeiro", "vero"), "1"),
    **dict.fromkeys(("false", "falsch", "faux", "falso"), "0"),
}
"""Words in lower case, of spreadsheets in several languages too, for a cell that is 1 or 0."""
DECIMAL = "numbers are written with a decimal point, and text with a separator in quotes"

Rows = Iterator[tuple[int, list[str]]]


def read_columns(path: Path, text: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns by their names, wherever they stand (see `decode_table` and `find_columns`).

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
    header = [unescape(cell.strip()) for cell in next(rows, (0, []))[1]]
    if not header:
        raise UsageError(f"{path} is empty", "a table has a heading, also when it has no rows")
    places = find_columns(str(path), header, [*text, *numbers])
    table = _parse_fast(content[stream.tell() :], separator, len(header), places, numbers)
    return unescape_table(
        _parse_by_line(path, rows, len(header), places, numbers) if table is None else table
    )


def read_rows(name: str, raw: bytes, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns as text (see `decode_table` and `find_columns`); a row that is not right has a reason.

    Blank lines are no rows. Other columns are left out.

    Args:
        name: of the file, for errors and notices.
        raw: its bytes.
        columns: the columns that are wanted.
        optional: those of them that may be missing, and are missing from the result then.

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
    header = [unescape(cell.strip()) for cell in rows.pop(0)] if rows else []
    places = find_columns(name, header, columns, optional)
    cells = {column: [row[at] if at < len(row) else "" for row in rows] for column, at in places.items()}
    table = pd.DataFrame(cells, dtype=str)
    table = unescape_table(table.apply(lambda column: column.str.strip(" "))).assign(**NO_REASON)
    surplus = pd.Series([any(cell.strip() for cell in row[len(header) :]) for row in rows], dtype=bool)
    reject_rows(table, surplus, "more cells than columns", f"the heading has {len(header)}")
    return table


def find_columns(
    name: str, header: Sequence[str], columns: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, int]:
    """Find columns in a heading; where none is spelt so, case, spaces and underscores do not count.

    Args:
        name: of the file, for errors.
        header: the cells of the heading.
        columns: the columns that are wanted.
        optional: those of them that may be missing.

    Returns:
        The place of each column that is there.

    Raises:
        UsageError: when one is missing, or is there twice.
    """
    spelt = [_simplify(cell) for cell in header]
    places = {
        column: [place for place, cell in enumerate(header) if cell == column]
        or [place for place, cell in enumerate(spelt) if cell == _simplify(column)]
        for column in columns
    }
    for wrong, found in (
        ("no column", [c for c in columns if not places[c] and c not in optional]),
        ("several columns", [c for c in columns if len(places[c]) > 1]),
    ):
        if found:
            hint = HINTS.get(", ".join(found), f"needed once each: {', '.join(columns)}")
            raise UsageError(f"{name} has {wrong} {', '.join(found)}", hint)
    return {column: found[0] for column, found in places.items() if found}


def _simplify(cell: str) -> str:
    """Write a column's name without case, spaces and underscores."""
    return re.sub(r"[\s_]", "", cell).casefold()


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
    """Decode a table as its byte-order mark says, else as UTF-8, else Latin-1, and find its separator.

    The separator is comma, semicolon or tab, or the one of a first line `sep=;`. That line becomes a blank
    one, so that the others keep their numbers.

    Args:
        name: of the file, for errors and the notice about Latin-1.
        raw: its bytes.

    Returns:
        The text and the separator.

    Raises:
        UsageError: when the file is not whole in the encoding that its byte-order mark names.
    """
    mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UsageError(f"{name} is not whole {encoding.upper()}", "save it as CSV in UTF-8") from error
        log.info(f"{name} is not in UTF-8; it is read as Latin-1")
        text = raw.decode("latin-1")
    if declared := DECLARED.match(text):
        return text[declared.end() :], declared[1]
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
    body: str, separator: str, width: int, places: Mapping[str, int], numbers: Sequence[str]
) -> pd.DataFrame | None:
    """Read the columns with pandas, in a fourth of the time; None if anything is wrong with them.

    pandas does not name the line, so a file with an error is read again by line.
    """
    types = dict.fromkeys(range(width), str) | {places[name]: np.float64 for name in numbers}
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
    table = pd.DataFrame({name: cells[place] for name, place in places.items()})
    text = [name for name in places if name not in numbers]
    for name in text:
        table[name] = table[name].str.strip()
    bad = (table[text] == "").any(axis=None) or not np.isfinite(table[[*numbers]]).all(axis=None)
    return None if bad else table


def _parse_by_line(
    path: Path, rows: Rows, width: int, places: Mapping[str, int], numbers: Sequence[str]
) -> pd.DataFrame:
    """Read the same columns line by line; an error names the first bad line."""
    found: dict[str, list[str | float]] = {name: [] for name in places}
    for line, row in rows:
        if len(row) < width or any(row[width:]):
            cells = f"{len(row)} cells where the heading has {width}"
            raise UsageError(f"{path}, line {line}: {cells}", DECIMAL)
        for name, values in found.items():
            cell = row[places[name]].strip()
            value = _to_number(cell) if name in numbers else cell or None
            if value is None:
                wanted = "a number" if name in numbers else "text"
                problem = f"{repr(cell[:40]) if cell else 'nothing'} where {wanted} is needed"
                hint = DECIMAL if "," in cell else "fix or remove that row"
                raise UsageError(f"{path}, line {line}, column {name}: {problem}", hint)
            values.append(value)
    return pd.DataFrame(found).astype({name: float if name in numbers else str for name in places})


def _to_number(cell: str) -> float | None:
    """Convert a cell to a finite number; None if it is not one."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if isfinite(number) else None
