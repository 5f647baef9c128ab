"""The files of a study: the key, and the answers that readers send back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dbtbench.errors import UsageError
from dbtbench.exchange.csv_columns import read_columns
from dbtbench.study.choosing import KINDS

ANSWERS = {"2afc": ("left", "right"), "rating": ("1", "2", "3", "4", "5")}
"""Answers of each kind of study; 5 is surely real."""
READER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def read_key(path: Path) -> tuple[str, pd.Series, pd.Series]:
    """Read the key.

    Returns:
        The kind of the study; and by case, in the key's order, the truth and the synthetic data set, which is
        `none` for a real volume of a rating.

    Raises:
        MissingError: when the file is not there.
        UsageError: when it is no key.
    """
    table = read_columns(path, ["case", "truth", "synthetic"])
    found = set(table["truth"])
    kind = next((kind for kind, truths in KINDS.items() if found == set(truths)), None)
    if kind is None or table["case"].duplicated().any():
        raise UsageError(f"{path} is no key of a study", "name the .key.csv that `dbtbench study make` wrote")
    table = table.set_index("case")
    return kind, table["truth"], table["synthetic"]


def read_answers(paths: Sequence[Path], kind: str, truth: pd.Series) -> pd.DataFrame:
    """Read the answers of one reader or several, from one file or several.

    Args:
        paths: CSV files with the columns reader, case, answer and seconds.
        kind: of the study.
        truth: by case.

    Returns:
        Those columns, all files together.

    Raises:
        MissingError: when a file is not there.
        UsageError: when one cannot be read, is empty, or has a case that the key lacks, an answer that is
            none, or the same case of a reader twice.
    """
    tables = []
    for path in paths:
        table = read_columns(path, ["reader", "case", "answer"], ["seconds"])
        if table.empty:
            raise UsageError(f"{path} has no answers", "leave it out")
        _reject(
            path,
            table,
            ~table["case"].isin(truth.index),
            "case",
            "the key has no case",
            "the study's own key?",
        )
        wrong = ~table["answer"].isin(ANSWERS[kind])
        _reject(path, table, wrong, "answer", "not an answer:", f"one of {', '.join(ANSWERS[kind])}")
        wrong = ~table["reader"].map(lambda name: READER.fullmatch(name) is not None).astype(bool)
        _reject(path, table, wrong, "reader", "not a reader's code:", "letters and digits")
        wrong = table["seconds"] < 0
        _reject(path, table, wrong, "seconds", "time below 0:", "fix that row")
        tables.append(table.assign(file=str(path)))
    answers = pd.concat(tables, ignore_index=True)
    twice = answers[answers.duplicated(["reader", "case"])]
    if len(twice):
        row = twice.iloc[0]
        raise UsageError(
            f"{row['file']}: reader {row['reader']} answers case {row['case']} twice",
            "each case once per reader, over all files; readers need different codes",
        )
    return answers.drop(columns="file")


def _reject(path: Path, table: pd.DataFrame, wrong: pd.Series, column: str, problem: str, hint: str) -> None:
    if wrong.any():
        raise UsageError(f"{path}: {problem} {str(table.loc[wrong, column].iloc[0])[:40]!r}", hint)
