"""Gathering: finished runs, their boards and data sets, from a workspace or published results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.leaderboard.board import arms_of, build_board, labels_of, sort_boards
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.leaderboard.publishing import read_published
from dbtbench.pipeline.catalogue import describe_datasets
from dbtbench.records import InstalledMetrics, Result, read_result
from dbtbench.runtime.csv_text import unescape_table
from dbtbench.runtime.progress import log
from dbtbench.task import BASELINE
from dbtbench.workspace import Workspace

MOST_BYTES = 2**25
PUBLISHED_PRECISION = 1e-6
"""leaderboard.csv has six decimals."""


@dataclass(frozen=True)
class BoardRuns:
    """The runs of one board.

    Attributes:
        name: of the board.
        runs: those that stand on it, by arm label and seed; the baseline first.
    """

    name: str
    runs: Mapping[str, Mapping[int, Result]]

    @property
    def results(self) -> list[Result]:
        """All of its runs, by arm and seed."""
        return [self.runs[label][seed] for label in self.runs for seed in sorted(self.runs[label])]

    @property
    def first(self) -> Result:
        """One of its runs: what all have in common can be read from it."""
        return self.results[0]


@dataclass(frozen=True)
class Material:
    """All that a page is made from.

    Attributes:
        table: the boards in long form (`COLUMNS`).
        results: the finished runs.
        workspace: where their data sets and files are; None for published results, which have neither.
        source: what the boards were read from, for a reader.
    """

    table: pd.DataFrame
    results: Sequence[Result]
    workspace: Workspace | None = None
    source: str = ""
    _datasets: dict[str, DBTDataset | None] = field(default_factory=dict, repr=False)

    @cached_property
    def boards(self) -> list[BoardRuns]:
        """The boards: those whose arms are compared with the baseline first, then by name."""
        boards = []
        for name, results in sort_boards(self.results).items():
            arms = arms_of(results)
            labels = labels_of(arms)
            order = sorted(arms, key=lambda key: key[0] != BASELINE)
            boards.append(BoardRuns(name, {labels[key]: arms[key] for key in order}))
        judged = set(self.table.loc[self.table["difference_low"].notna(), "board"])
        return sorted(boards, key=lambda board: (board.name not in judged, board.name))

    def folder_of(self, result: Result) -> Path | None:
        """Give the folder of a run; None where only its record was published."""
        if self.workspace is None:
            return None
        return self.workspace.evaluations / result.record.task / result.record.hash

    def read_kept(self, result: Result, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Read a table that a run kept next to its record.

        Args:
            result: the run.
            name: of the file.
            columns: that it must have.

        Returns:
            The table; None where there is none, or it is another one.
        """
        folder = self.folder_of(result)
        file = folder / name if folder else None
        if file is None or not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        try:
            table = unescape_table(pd.read_csv(file, keep_default_na=False, na_values=[""]))
        except ValueError as error:
            log.info(f"left out: {file} cannot be read: {error}")
            return None
        return table if set(columns) <= set(table.columns) else None

    def dataset_of(self, result: Result) -> DBTDataset | None:
        """Open the real data set of a run; None where it is not there, or no longer what it was."""
        if self.workspace is None:
            return None
        said = result.record.data
        if said.fingerprint not in self._datasets:
            self._datasets[said.fingerprint] = next(self._open(said.fingerprint, said.split_hash), None)
        return self._datasets[said.fingerprint]

    def _open(self, fingerprint: str, split_hash: str) -> Iterator[DBTDataset]:
        assert self.workspace is not None
        for path, meta in describe_datasets(self.workspace).items():
            if (meta["fingerprint"], meta["split"]["hash"]) != (fingerprint, split_hash):
                continue
            try:
                yield DBTDataset.open(path)
            except DBTBenchError as error:
                log.info(f"left out: {error}")


def gather(workspace: Workspace | None = None, results: Path | None = None) -> Material:
    """Gather what a page is made from.

    A board that was published, and says what the runs say, is taken as it is; else it is built.

    Args:
        workspace: whose finished runs are shown, with pictures of its data sets.
        results: or a folder of published results, of which only records and outcomes are there.

    Raises:
        MissingError: when there is no finished run.
        StaleError: when a run does not match its digests, or its outcomes do not give its score.
        UsageError: when a published record is not as it should be.
    """
    if results is not None:
        runs, folder = read_published(results), results
    else:
        assert workspace is not None
        runs, folder = list(_read_runs(workspace)), workspace.root / "results"
    if not runs:
        place = folder / "runs" if results else workspace and workspace.evaluations
        raise MissingError(f"no finished evaluation in {place}", "run `dbtbench evaluate --task detection`")
    file = folder / "leaderboard.csv"
    table = _read_board(file, runs)
    said = f"{file.name} as published" if table is not None else "built from the runs"
    table = build_board(runs) if table is None else table
    empty = {name: table[name].astype(object).fillna("") for name in ("verdict", "unit")}
    table = table.assign(**empty)
    return Material(table, runs, workspace, said)


def _read_runs(workspace: Workspace) -> Iterator[Result]:
    installed = InstalledMetrics()
    for record in sorted(workspace.evaluations.glob("*/*/run.json")):
        try:
            yield read_result(record, installed)
        except UsageError as error:
            log.info(f"left out: {error} ({error.hint})")


def _read_board(file: Path, runs: Sequence[Result]) -> pd.DataFrame | None:
    """Read a published board that has all of these runs, with the means of their scores; else None."""
    if not file.is_file() or file.stat().st_size > MOST_BYTES:
        return None
    try:
        text = dict.fromkeys(("generator_version", "generator_recipe", "generator_run", "commit"), str)
        table = unescape_table(pd.read_csv(file, dtype=text))
    except ValueError:
        return None
    if list(table.columns) != list(COLUMNS) or not _says_the_same(table, runs):
        log.info(f"{file} is not what the runs give; the board is built again")
        return None
    return table


def _says_the_same(table: pd.DataFrame, runs: Sequence[Result]) -> bool:
    keys = [
        table["board"],
        table["arm"],
        table["synthetic_fingerprint"].astype(object).fillna(""),
        table["metric"],
    ]
    said = dict(zip(zip(*keys, strict=True), zip(table["value"], table["seeds"], strict=True), strict=True))
    for name, results in sort_boards(runs).items():
        for (arm, synthetic), seeds in arms_of(results).items():
            metric = next(iter(seeds.values())).record.primary
            value, count = said.get((name, arm, synthetic, metric), (np.nan, 0))
            scores = [run.record.scores.get(metric) for run in seeds.values()]
            mean = np.mean([np.nan if score is None else score for score in scores])
            same = np.isclose(value, mean, rtol=0, atol=PUBLISHED_PRECISION, equal_nan=True)
            if count != len(seeds) or not same:
                return False
    return True
