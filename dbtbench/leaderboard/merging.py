"""Addition of somebody else's runs to a folder of results: all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dbtbench.errors import MissingError, StaleError
from dbtbench.leaderboard.publishing import build_runs, changed_files, copy_run, read_published, target_of
from dbtbench.leaderboard.staging import open_results, write_all
from dbtbench.records import InstalledMetrics, Record, Result, outcomes_file, outcomes_files, read_result


def add(results: Path, paths: Sequence[Path]) -> pd.DataFrame:
    """Merge runs into the boards that stand in `results`, and rebuild them.

    A run is added under the hash that its record's content has, whatever its file is called. Runs that are
    there already, with the same content, stay.

    Args:
        results: folder of the board.
        paths: run folders, `run.json` files or files of somebody's `results/runs`, with their outcomes next
            to them; or folders of such files.

    Raises:
        MissingError: when a file is not there.
        StaleError: when a run may not be compared with any that is there, when one of the same hash or of the
            same arm and seed is there with other content, or when its outcomes do not give its score.
        UsageError: when a record or its outcomes are not as they should be.
    """
    with open_results(results):
        standing = read_published(results)
        new = _read_new(results, standing, paths)
        board = build_runs(results, [*standing, *(run for _, run in new)])
        contents = {
            name: content for source, run in new for name, content in copy_run(source, results, run).items()
        }
        write_all(results, contents | changed_files(results, board))
    return board


def _read_new(results: Path, standing: Sequence[Result], paths: Sequence[Path]) -> list[tuple[Path, Result]]:
    """Read the runs that are not there yet, and check that they may stand next to those that are."""
    contents: dict[Path, tuple[Path, Result]] = {}
    installed = InstalledMetrics()
    for source in _records(paths):
        result = read_result(source, installed)
        target = results / target_of(result)
        _check_comparable(source, result.record, [run.record for run in standing])
        _check_content(source, contents[target][0] if target in contents else target)
        contents[target] = (source, result)
    new = [pair for target, pair in contents.items() if not target.is_file()]
    _check_seeds(standing, new)
    return new


def _records(paths: Iterable[Path]) -> list[Path]:
    """Every record that the paths name."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not (path / "run.json").is_file():
            inside = sorted(path.rglob("run.json")) or sorted(path.rglob("*.json"))
            if not inside:
                raise MissingError(f"{path} holds no record of a run", "name a run's folder or its run.json")
            found += inside
        else:
            found.append(path / "run.json" if path.is_dir() else path)
    return found


def _check_comparable(source: Path, record: Record, standing: Sequence[Record]) -> None:
    """Refuse a record that belongs to no board, saying what differs from the nearest one."""
    boards = {tuple(other.comparable.items()): other for other in standing}.values()
    differences = [_differences(record.comparable, other.comparable) for other in boards]
    if [] in differences:
        return
    if not differences:
        raise StaleError(
            f"{source} is comparable with nothing: no board stands there", "publish runs of your own first"
        )
    nearest = sorted(differences, key=len)[0]
    raise StaleError(
        f"{source} is comparable with no board that stands there: {', '.join(nearest)}",
        "boards compare runs of one task version, recipe, phantom version, data set and split only",
    )


def _differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    return [
        f"its {what} is {ours[what][:12]}, not {theirs[what][:12]}"
        for what in ours
        if ours[what] != theirs[what]
    ]


def _check_content(source: Path, there: Path) -> None:
    """Refuse a run whose hash is taken by other content."""
    if not there.is_file():
        return
    tables = sorted(outcomes_files(source).keys() | outcomes_files(there).keys())
    pairs = [(outcomes_file(source, name), outcomes_file(there, name)) for name in tables]
    for one, other in [(source, there), *pairs]:
        contents = [file.read_bytes() if file.is_file() else None for file in (one, other)]
        if contents[0] != contents[1]:
            raise StaleError(
                f"{one} is another run of the same hash than {other}", "the one that is there stays"
            )


def _check_seeds(standing: Iterable[Result], new: Iterable[tuple[Path, Result]]) -> None:
    """Refuse a run of an arm and seed that is there: nobody may choose the better of two tries."""
    taken = {_place(run.record): str(run) for run in standing}
    for source, run in new:
        place = _place(run.record)
        if place in taken:
            raise StaleError(
                f"{source} is the same arm and seed as {taken[place]}", "the one that is there stays"
            )
        taken[place] = str(run)


def _place(record: Record) -> tuple[str, ...]:
    return (*record.comparable.values(), record.arm, record.synthetic, str(record.seed))
