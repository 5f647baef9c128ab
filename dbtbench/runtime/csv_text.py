"""CSV files: the one writer, and what its readers undo.

A spreadsheet executes a cell that begins as a formula. Such a cell gets an apostrophe, which shows it as
text. Reading takes the apostrophe away: a patient called `=A1` is the same patient again. A number stays one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = "biufcMm"
"""Kinds of columns (NumPy's letters) that hold no text."""
_BEGIN = r"(^|[;\t\r\n])"
"""Begin of a cell; a spreadsheet that splits at semicolons, tabs or lines sees one after each of them."""
_FORMULA = r"(?='*[=+\-@\t\r\n＝＋－＠])"
"""A formula, and what was written as one; full-width signs count as well."""
_BARE = re.compile(_BEGIN + _FORMULA)
_ESCAPED = re.compile(_BEGIN + "'" + _FORMULA)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z|[+-]inf\Z")


def escape(cell: str) -> str:
    """Put an apostrophe before a formula; a number such as -1.5 is none."""
    return cell if _NUMBER.match(cell) else _BARE.sub(r"\1'", cell)


def unescape(cell: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(r"\1", cell)


def csv_text(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Write a table as CSV with line feeds, without its index; no heading and no cell is a formula."""
    safe = _map_text(table, escape, "")
    text: str = safe.to_csv(index=False, float_format=float_format, lineterminator="\n")
    return text


def unescape_table(table: pd.DataFrame) -> pd.DataFrame:
    """Undo what `csv_text` did to headings and cells; the columns that hold no text stay as they are."""
    return _map_text(table, unescape, "'")


def _map_text(table: pd.DataFrame, function: Callable[[str], str], within: str) -> pd.DataFrame:
    """Change the texts of a table, headings too, that have `within` in them; all other values stay."""

    def change(value: Any) -> Any:
        return function(value) if isinstance(value, str) and within in value else value

    changed = table.rename(columns=change)
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        if column.dtype.kind not in NUMBERS and any(change(each) is not each for each in column.unique()):
            cells = column.astype(object)
            cells[:] = [change(cell) for cell in cells]
            changed.isetitem(position, cells.astype(column.dtype))
    return changed
