"""CSV files hold no formula, and read back as they were; there is one writer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dbtbench
from dbtbench import plugins
from dbtbench.data.schema import read_table
from dbtbench.exchange.csv_columns import read_columns, read_rows
from dbtbench.runtime.csv_text import csv_text, escape, unescape

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-A1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    "＋A",
    "－A",
    "＠A",
    "-1+2",
    "\n=1",
]
HARMLESS = [
    "",
    "abc",
    "'abc",
    "1-2",
    "a@b",
    "it's",
    "-1.5",
    "+2",
    "-1e-05",
    "-inf",
    "1.2.3",
    "a;b",
    "2026-11-26",
]
TEXT = st.text(st.sampled_from("=+-@\t\r\n＝＋－＠';,\"a1. é\x00"), max_size=8) | st.text(max_size=12)


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_becomes_text_in_cells_and_headings(cell: str) -> None:
    assert escape(cell).startswith("'")
    text = csv_text(pd.DataFrame({cell: [cell]}))
    assert text.count("'" + cell[0]) == 2


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r"])
def test_a_formula_after_another_separator_becomes_text(separator: str) -> None:
    """A spreadsheet may be set to split at semicolons or tabs."""
    assert f"{separator}'=1+1" in escape(f"name{separator}=1+1")


@pytest.mark.parametrize("cell", HARMLESS)
def test_other_text_and_numbers_stay_as_they_are(cell: str) -> None:
    assert escape(cell) == cell == unescape(cell)


def test_numbers_stay_numbers() -> None:
    table = pd.DataFrame(
        {"a": [-1.5, float("nan")], "b": pd.Series([-2, None], dtype=object), "c": ["-3", "=3"]}
    )
    assert csv_text(table) == "a,b,c\n-1.5,-2,-3\n,,'=3\n"
    assert csv_text(table[["a"]], "%.6f") == 'a\n-1.500000\n""\n'


@settings(deadline=None)
@given(TEXT)
def test_a_cell_reads_back(cell: str) -> None:
    assert unescape(escape(cell)) == cell


@settings(deadline=None)
@given(TEXT)
def test_no_cell_begins_as_a_formula(cell: str) -> None:
    """At its begin, or where a spreadsheet would split it."""
    written = escape(cell)
    try:
        float(cell)
    except ValueError:
        assert not written.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n"))
        for separator in ";\t\n\r":
            assert not any(part[:1] in ("=", "+", "-", "@") for part in written.split(separator)[1:])


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1).filter(
    lambda t: t == t.strip()
)


@settings(deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_table_reads_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """By the readers of data sets, of collections and of exports."""
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_text(
        csv_text(pd.DataFrame({"PatientID": names, "=head": 1.5})), encoding="utf-8", newline="\n"
    )
    assert read_table(path, ["PatientID"], {"PatientID": str, "=head": float})["PatientID"].tolist() == names
    assert read_rows(path.name, path.read_bytes(), ["PatientID", "=head"])["PatientID"].tolist() == names
    assert read_columns(path, ["PatientID"], ["=head"])["PatientID"].tolist() == names


@pytest.mark.parametrize("name", ["-12", "+A", "@x", "=P1", "'-12", "''=x", "'x"])
def test_a_patient_of_any_name_is_the_same_patient_when_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(csv_text(pd.DataFrame({"PatientID": [name]})), encoding="utf-8")
    assert read_table(path, ["PatientID"], {"PatientID": str})["PatientID"].tolist() == [name]


def find_writers(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and (
            node.attr in ("to_csv", "DictWriter") or ast.unparse(node) in ("csv.writer", "np.savetxt")
        ):
            yield ast.unparse(node)


def test_there_is_one_writer() -> None:
    rooms = [Path(dbtbench.__file__).parent]
    for kind in plugins.KINDS:
        rooms += map(Path, import_module(f"dbtbench.{kind}").__path__)
    files = {file for room in rooms for file in room.rglob("*.py")}
    assert len(files) > 100
    writing = {file.name for file in files if [*find_writers(file.read_text(encoding="utf-8"))]}
    assert writing == {"csv_text.py"}


@pytest.mark.parametrize(
    "code", ["table.to_csv(path)", "csv.writer(file)", "csv.DictWriter(f, [])", "np.savetxt(p, a)"]
)
def test_another_writer_is_found(code: str) -> None:
    assert [*find_writers(code)]
