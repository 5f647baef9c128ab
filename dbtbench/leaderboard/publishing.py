"""Publication: runs are copied into a folder of results, and everything else there is made from them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.board import build_board
from dbtbench.leaderboard.view import column_table, fill_markers, markdown
from dbtbench.records import (
    InstalledMetrics,
    Result,
    outcomes_file,
    outcomes_files,
    read_result,
    read_results,
)
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import atomic_path
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace

REBUILD = "run `dbtbench leaderboard`"


def publish(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Copy the workspace's finished runs into `results` and rebuild the board from all runs there.

    A run of the workspace whose record is not as it should be is named and left out.

    Raises:
        MissingError: when there is no finished run at all.
        StaleError: when a run's outcomes do not give its score.
        UsageError: when a published record is not as it should be.
    """
    for source, target in _find_unpublished(workspace, results):
        tables = outcomes_files(source)
        if target.parent.is_dir():
            for name in outcomes_files(target).keys() - tables.keys():
                outcomes_file(target, name).unlink()
        # Outcomes first: a record that is there is whole.
        copies = [(table, outcomes_file(target, name)) for name, table in tables.items()]
        for file, copy in [*copies, (source, target)]:
            with atomic_path(copy) as temporary:
                shutil.copyfile(file, temporary)
    board = build(results)
    write(results, board)
    return board


def check(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Say whether the board is what the runs give, byte for byte, and has all of the workspace's.

    Raises:
        StaleError: when it is not, or a run is missing.
        MissingError: when there is no run at all.
        UsageError: when a published record is not as it should be.
    """
    board = build(results)
    for path, content in _generate_files(results, board):
        if not path.is_file() or path.read_bytes() != content:
            raise StaleError(f"{path} is not what its runs give", REBUILD)
    for source, _ in _find_unpublished(workspace, results):
        raise StaleError(f"{source.parent} is not on the board", REBUILD)
    return board


def build(results: Path) -> pd.DataFrame:
    """Build the board (`COLUMNS`) from the records in `results/runs`.

    Raises:
        MissingError: when there are none.
        StaleError: when a run's outcomes do not give its score.
        UsageError: when a record is not as it should be.
    """
    runs = read_published(results)
    if not runs:
        raise MissingError(
            f"no finished evaluation in {results / 'runs'}", "run `dbtbench evaluate --task detection`"
        )
    return build_board(runs)


def rank(runs: Iterable[Path]) -> pd.DataFrame:
    """Build the board (`COLUMNS`) of some finished runs, given their folders.

    Raises:
        StaleError: when a run's outcomes do not give its score.
        UsageError: when a record is not as it should be.
    """
    return build_board(read_results(runs))


def read_published(results: Path) -> list[Result]:
    """Read all runs in `results/runs`, by task and hash.

    Raises:
        UsageError: when one is not as it should be.
    """
    return read_results(sorted((results / "runs").glob("*/*.json")))


def write(results: Path, board: pd.DataFrame) -> None:
    """Write leaderboard.csv and what README files have between markers; whatever is as it should be stays."""
    for path, content in _generate_files(results, board):
        if not path.is_file() or path.read_bytes() != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)


def _generate_files(results: Path, board: pd.DataFrame) -> Iterator[tuple[Path, bytes]]:
    """Make every file that is made from the runs, and its content."""
    yield results / "leaderboard.csv", csv_text(board, "%.6f").encode()
    sections = {"board": markdown(board), "columns": column_table()}
    for readme in (results / "README.md", results.resolve().parent / "README.md"):
        if readme.is_file():
            yield readme, fill_markers(readme, sections)


def _find_unpublished(workspace: Workspace, results: Path) -> Iterator[tuple[Path, Path]]:
    """Find records of finished runs that `results` does not hold as they are, and where they belong."""
    installed = InstalledMetrics()
    for record in sorted(workspace.evaluations.glob("*/*/run.json")):
        copy = results / "runs" / record.parent.parent.name / f"{record.parent.name}.json"
        if _same(record, copy):
            continue
        try:
            read_result(record, installed)
        except UsageError as error:
            log.info(f"left out: {error} ({error.hint})")
            continue
        yield record, copy


def _same(record: Path, copy: Path) -> bool:
    """Test whether the copy of a record is there with the same content, and so are its outcomes."""
    if not copy.is_file() or outcomes_files(record).keys() != outcomes_files(copy).keys():
        return False
    tables = [(table, outcomes_file(copy, name)) for name, table in outcomes_files(record).items()]
    return all(file.read_bytes() == other.read_bytes() for file, other in [(record, copy), *tables])
