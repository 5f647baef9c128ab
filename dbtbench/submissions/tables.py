"""Readers of the tables that the DBTex challenge scores: labels, boxes, and a team's predictions.

Columns are found by their names, so an index column or any other column does no harm. A cell of the wrong
kind is an error: the official program would turn it into a plausible score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.errors import UsageError
from dbtbench.exchange.csv_columns import read_columns
from dbtbench.geometry.views import VIEW_PATTERN
from dbtbench.metrics.froc import BOX_NUMBERS, PREDICTION_NUMBERS, VIEW_KEY
from dbtbench.runtime.progress import log


def read_labels(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the volumes from one table or several (validation and test).

    Args:
        paths: CSV files with the columns `KEY`; each row is a volume.

    Returns:
        The rows of all tables: `KEY`. A row that a table repeats counts each time, as officially.

    Raises:
        MissingError: when a file is not there.
        UsageError: when one cannot be read, lacks a column or has a bad cell, or two name the same volume.
    """
    return _join_tables(paths, [_read(path, []) for path in paths])


def read_boxes(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the lesions, from one table or several.

    Args:
        paths: CSV files with the columns `KEY` and `BOX_NUMBERS` (pixels and slices); each row is a lesion.

    Returns:
        The rows of all tables: `KEY`, `BOX_NUMBERS`.

    Raises:
        MissingError: as `read_labels`.
        UsageError: as `read_labels`.
    """
    return _join_tables(paths, [_read(path, BOX_NUMBERS) for path in paths])


def read_predictions(path: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """Read one team's predictions; the log reports odd ones, and how the official rule treats them.

    Args:
        path: CSV file with the columns `KEY` and `PREDICTION_NUMBERS`; each row is a predicted box.
        labels: the volumes that are scored.

    Returns:
        Its rows: `KEY`, `PREDICTION_NUMBERS`.

    Raises:
        MissingError: when the file is not there.
        UsageError: when it cannot be read, lacks a column or has a bad cell.
    """
    table = _read(path, PREDICTION_NUMBERS)
    negative = int((table["Depth"] < 0).sum())
    if negative:
        log.info(
            f"{path}: {negative:,} predictions have a Depth below 0, which shifts their centres by half "
            "of it (−1: by half a slice), as by the official rule"
        )
    known = pd.MultiIndex.from_frame(labels[VIEW_KEY])
    unknown = int((~pd.MultiIndex.from_frame(table[VIEW_KEY]).isin(known)).sum())
    if unknown:
        share = "all" if unknown == len(table) else f"{unknown:,} of {len(table):,}"
        log.info(
            f"{path}: {share} predictions are on volumes that the labels lack; "
            "they count as false positives, as by the official rule"
        )
    return table


def team_names(paths: Sequence[Path]) -> list[str]:
    """Name teams after their files: the stem, and the folders that distinguish files of the same stem.

    Raises:
        UsageError: when the same file is given twice, or two differ in their suffix only.
    """
    parts = [path.resolve().with_suffix("").parts for path in paths]
    names = []
    for path, own in zip(paths, parts, strict=True):
        alike = [other for other in parts if other[-1] == own[-1]]
        depths = (n for n in range(1, len(own) + 1) if len({other[-n:] for other in alike}) == len(alike))
        depth = next(depths, None)
        if depth is None:
            raise UsageError(f"two files are called {path.with_suffix('')}", "name each file once")
        names.append("/".join(own[-depth:]))
    return names


def _read(path: Path, numbers: Sequence[str]) -> pd.DataFrame:
    """Read KEY and columns of numbers. Views in upper case, which officially match no volume, are lowered."""
    table = read_columns(path, KEY, numbers)
    lower = {view: view.lower() for view in table["View"].unique()}
    upper = {view for view, low in lower.items() if view != low and re.fullmatch(VIEW_PATTERN, low)}
    if upper:
        log.info(f"{path}: {table['View'].isin(upper).sum():,} views in upper case are read as lower case")
    return table.assign(View=table["View"].replace({view: lower[view] for view in upper}))


def _join_tables(paths: Sequence[Path], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables into one; a volume may be in one of them only."""
    seen: dict[tuple[str, ...], Path] = {}
    for path, table in zip(paths, tables, strict=True):
        volumes = set(table[KEY].itertuples(index=False, name=None))
        for volume in sorted(volumes & seen.keys()):
            raise UsageError(
                f"{' '.join(volume)} is in {seen[volume]} and in {path}", "name each table of a split once"
            )
        seen |= dict.fromkeys(volumes, path)
    return pd.concat(tables, ignore_index=True)
