"""Publication: runs are copied into a folder of results, and everything else there is made from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.board import build_board
from dbtbench.leaderboard.copies import check_copies
from dbtbench.leaderboard.staging import is_pending, open_results, write_all
from dbtbench.leaderboard.view import column_table, fill_markers, markdown
from dbtbench.records import (
    InstalledMetrics,
    Result,
    check_kept,
    outcomes_file,
    outcomes_files,
    read_result,
    read_results,
)
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace

REBUILD = "run `dbtbench leaderboard`"


def publish(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Copy the workspace's finished runs into `results` and rebuild the board from all runs there.

    The board is built first; then all files are written, or none. A run of the workspace whose record is not
    as it should be is named and left out.

    Raises:
        DBTBenchError: when another process is writing there.
        MissingError: when there is no finished run at all.
        StaleError: when a run does not match its digests, its outcomes do not give its score, or it is a copy
            of another one.
        UsageError: when a published record is not as it should be.
    """
    with open_results(results):
        standing = {target_of(run): run for run in read_published(results)}
        contents: dict[str, bytes | None] = {}
        for source, run in _find_unpublished(workspace, results):
            contents |= copy_run(source, results, run)
            standing[target_of(run)] = run
        board = build_runs(results, [standing[target] for target in sorted(standing)])
        write_all(results, contents | changed_files(results, board))
    return board


def copy_run(source: Path, results: Path, run: Result) -> dict[str, bytes | None]:
    """Give what is to be written so that `results` has a run with its outcomes; None for what is removed.

    Args:
        source: its record; its outcomes lie next to it.
        results: folder of the board.
        run: the same, read.
    """
    record = results / target_of(run)
    old = outcomes_files(record) if record.parent.is_dir() else {}
    contents: dict[str, bytes | None] = dict.fromkeys((_relative(old[name], results) for name in old), None)
    for name, table in outcomes_files(source).items():
        contents[_relative(outcomes_file(record, name), results)] = table.read_bytes()
    return contents | {target_of(run): source.read_bytes()}


def _relative(path: Path, results: Path) -> str:
    return path.relative_to(results).as_posix()


def target_of(run: Result) -> str:
    """Name a run's published record, from `results`; the schema holds task and hash to plain names."""
    return f"runs/{run.record.task}/{run.record.hash}.json"


def check(workspace: Workspace, results: Path) -> pd.DataFrame:
    """Say whether the board is what the runs give, byte for byte, and has all of the workspace's.

    Raises:
        StaleError: when it is not, or a run is missing.
        MissingError: when there is no run at all.
        UsageError: when a published record is not as it should be.
    """
    if is_pending(results):
        raise StaleError(f"a command that was killed left {results} half written", REBUILD)
    board = build(results)
    for name in changed_files(results, board):
        raise StaleError(f"{results / name} is not what its runs give", REBUILD)
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
    return build_runs(results, read_published(results))


def build_runs(results: Path, runs: Sequence[Result]) -> pd.DataFrame:
    """Build the board of the runs that `results` has, or is going to have.

    Raises:
        MissingError: when there are none.
        StaleError: when outcomes do not give their record's score, or a run is a copy of another one.
    """
    if not runs:
        raise MissingError(
            f"no finished evaluation in {results / 'runs'}", "run `dbtbench evaluate --task detection`"
        )
    check_copies(runs)
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
        StaleError: when one does not match its digests, or lies where another one belongs.
        UsageError: when one is not as it should be.
    """
    files = sorted((results / "runs").glob("*/*.json"))
    runs = read_results(files)
    for file, run in zip(files, runs, strict=True):
        if _relative(file, results) != target_of(run):
            raise StaleError(f"{file} is a run of {run.record.task}", "it was moved or changed")
    return runs


def changed_files(results: Path, board: pd.DataFrame) -> dict[str, bytes | None]:
    """Give leaderboard.csv and README files, where they are not as the board has them."""
    return {
        name: content
        for name, content in generate_files(results, board).items()
        if not (results / name).is_file() or (results / name).read_bytes() != content
    }


def generate_files(results: Path, board: pd.DataFrame) -> dict[str, bytes]:
    """Make every file that is made from the runs, by its path from `results`.

    Raises:
        UsageError: when the markers of a README file are broken.
    """
    files = {"leaderboard.csv": csv_text(board, "%.6f").encode()}
    sections = {"board": markdown(board), "columns": column_table()}
    for name, readme in (
        ("README.md", results / "README.md"),
        ("../README.md", results.resolve().parent / "README.md"),
    ):
        if readme.is_file():
            files[name] = fill_markers(readme, sections)
    return files


def _find_unpublished(workspace: Workspace, results: Path) -> Iterator[tuple[Path, Result]]:
    """Find the finished runs that `results` does not hold as they are: their records, and what these say.

    Raises:
        StaleError: when one does not match its digests, or its folder is named by another run's hash.
    """
    installed = InstalledMetrics()
    for record in sorted(workspace.evaluations.glob("*/*/run.json")):
        task, name = record.parent.parent.name, record.parent.name
        if _same(record, results / "runs" / task / f"{name}.json"):
            continue
        try:
            run = read_result(record, installed)
        except UsageError as error:
            log.info(f"left out: {error} ({error.hint})")
            continue
        if (task, name) != (run.record.task, run.record.hash):
            raise StaleError(
                f"{record.parent} is named by another task or hash than its record's, "
                f"{run.record.task} {run.record.hash}",
                "it was copied or changed; remove it, or move it out of the workspace",
            )
        check_kept(record.parent, run.record)
        yield record, run


def _same(record: Path, copy: Path) -> bool:
    """Test whether the copy of a record is there with the same content, and so are its outcomes."""
    if not copy.is_file() or outcomes_files(record).keys() != outcomes_files(copy).keys():
        return False
    tables = [(table, outcomes_file(copy, name)) for name, table in outcomes_files(record).items()]
    return all(file.read_bytes() == other.read_bytes() for file, other in [(record, copy), *tables])
