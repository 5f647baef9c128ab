"""Columns of somebody else's CSV: what is right is read as it stands, what is wrong is named by its place."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.csv_columns import read_columns

TEXT, NUMBERS = ["Who", "Where"], ["X", "Score"]
EXTRA = ["", "Unnamed: 0", "X.1", "note"]
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Not \r: Python's writer leaves it without quotes, where it ends the line.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8).filter(
    lambda word: word == word.strip()
)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[str], list[list[Any]], str]:
    """A heading, its rows, and the text of the file."""
    header = draw(st.permutations([*TEXT, *NUMBERS, *draw(st.lists(st.sampled_from(EXTRA), max_size=3))]))
    cell = {**dict.fromkeys(TEXT, words), **dict.fromkeys(NUMBERS, finite)}
    row = st.tuples(*(cell.get(name, words | st.just("")) for name in header)).map(list)
    rows = draw(st.lists(row, max_size=6))
    stream = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if draw(st.booleans()) else csv.QUOTE_MINIMAL
    end, separator = draw(st.sampled_from(("\n", "\r\n"))), draw(st.sampled_from(",;\t"))
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    for line in [header, *rows]:
        writer.writerow(line)
        stream.write(draw(st.sampled_from(("", "", end, separator * (len(header) - 1) + end))))
    return header, rows, stream.getvalue()


def written(path: Path, text: str | bytes) -> Path:
    file = path / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@QUICK
@given(file=files(), mark=st.sampled_from((b"", b"\xef\xbb\xbf")))
def test_columns_are_read_as_written_wherever_they_stand(
    tmp_path: Path, file: tuple[list[str], list[list[Any]], str], mark: bytes
) -> None:
    header, rows, text = file
    table = read_columns(written(tmp_path, mark + text.encode()), TEXT, NUMBERS)
    assert list(table.columns) == [*TEXT, *NUMBERS]
    assert [str(kind) for kind in table[NUMBERS].dtypes] == ["float64"] * 2
    for name in table:
        cells = [row[header.index(name)] for row in rows]
        # pandas before version 3 may read a number's last bit otherwise.
        assert table[name].tolist() == (pytest.approx(cells, rel=1e-14) if name in NUMBERS else cells)


def attempt(file: Path) -> tuple[UsageError | None, pd.DataFrame]:
    try:
        return None, read_columns(file, TEXT, NUMBERS)
    except UsageError as error:
        return error, pd.DataFrame(columns=[*TEXT, *NUMBERS])


HEADING = "Who,Where,X,Score\n"


@QUICK
@given(st.binary(max_size=60) | st.text('0123456789.,;"\n\r e-x', max_size=60).map(str.encode))
@example(b'"a')
@example(b'a,b,1,"2"3')
@example(b"a,b,1,2\r\ra,b,1,2")
def test_whatever_a_file_holds_it_is_a_table_or_an_error_that_names_it(tmp_path: Path, rows: bytes) -> None:
    for content in (rows, HEADING.encode() + rows):
        file = written(tmp_path, content)
        error, table = attempt(file)
        assert error is None or (str(file) in str(error) and error.hint)
        assert table[TEXT].map(bool).all(axis=None)
        assert table[NUMBERS].abs().lt(float("inf")).all(axis=None)


@QUICK
@given(
    row=st.integers(0, 4),
    column=st.sampled_from(NUMBERS),
    bad=st.sampled_from(("", " ", "high", "nan", "inf", "-inf", "1e400", "0x10", "True", "1 2", "1;2", "NA")),
    blank=st.booleans(),
)
def test_a_bad_cell_is_named_by_file_line_and_column(
    tmp_path: Path, row: int, column: str, bad: str, blank: bool
) -> None:
    cells = [{"Who": "p", "Where": '"two\nlines"', "X": "1", "Score": "0.5"} for _ in range(5)]
    cells[row][column] = bad
    lines = [",".join(cell.values()) + "\n" * (1 + blank) for cell in cells]
    line = 1 + (row + 1) * 2 + row * blank
    with pytest.raises(UsageError, match=rf"table\.csv, line {line}, column {column}: .* a number is needed"):
        read_columns(written(tmp_path, HEADING + "".join(lines)), TEXT, NUMBERS)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_line_that_names_the_separator_is_one_of_the_lines(tmp_path: Path, encoding: str) -> None:
    text = "sep=;\n" + HEADING.lower().replace("score", "SC ORE").replace(",", ";") + "a,1;b;1;{}\n"
    table = read_columns(written(tmp_path, text.format("2").encode(encoding)), TEXT, NUMBERS)
    assert table.to_numpy().tolist() == [["a,1", "b", 1.0, 2.0]]
    with pytest.raises(UsageError, match="line 3, column Score: 'x' where a number is needed"):
        read_columns(written(tmp_path, text.format("x").encode(encoding)), TEXT, NUMBERS)


def test_an_empty_identifier_is_a_bad_cell(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3, column Where: nothing where text is needed"):
        read_columns(written(tmp_path, HEADING + "a,b,1,2\nc, ,1,2\n"), TEXT, NUMBERS)


@pytest.mark.parametrize("rows", ["a,b,1,0,5\n", "a,b,1,2\na,b,1,0,5\n", "a,b,1\n", "a,b,1,2\na\n"])
def test_a_row_of_another_length_is_an_error_and_never_cut(tmp_path: Path, rows: str) -> None:
    line = rows.count("\n") + 1
    with pytest.raises(UsageError, match=f"line {line}: . cells where the heading has 4") as raised:
        read_columns(written(tmp_path, HEADING + rows), TEXT, NUMBERS)
    assert "decimal point" in raised.value.hint


def test_empty_cells_beyond_the_heading_do_no_harm(tmp_path: Path) -> None:
    assert len(read_columns(written(tmp_path, HEADING + "a,b,1,2,,\n"), TEXT, NUMBERS)) == 1


def test_a_decimal_comma_is_an_error_with_that_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="column Score: '0,5'") as raised:
        read_columns(written(tmp_path, "Who;Where;X;Score\na;b;1;0,5\n"), TEXT, NUMBERS)
    assert "decimal point" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("Who,X,Score\n", "has no column Where"),
        ("Who,X,Where,Score,X\n", "has several columns X"),
        ("Who,X\0\n", "NUL"),
        (HEADING + 'a,"b\n', "line 2 is not CSV"),
    ],
)
def test_what_is_no_such_table_is_an_error(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        read_columns(written(tmp_path, text), TEXT, NUMBERS)


def test_a_file_that_is_not_there_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file"):
        read_columns(tmp_path / "none.csv", TEXT)
    with pytest.raises(UsageError, match="cannot be read"):
        read_columns(tmp_path, TEXT)


def test_another_encoding_is_read_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_columns(written(tmp_path, (HEADING + "Ä,b,1,2\n").encode("latin-1")), TEXT, NUMBERS)
    assert table["Who"].tolist() == ["Ä"]
    assert capsys.readouterr().err.count("Latin-1") == 1


def test_a_table_may_have_no_rows(tmp_path: Path) -> None:
    table = read_columns(written(tmp_path, HEADING), TEXT, NUMBERS)
    assert table.empty
    assert pd.api.types.is_float_dtype(table["X"])
