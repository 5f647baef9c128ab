"""Reading of finished runs: a record, and the outcomes next to it, compared with their digests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from dbtbench import plugins
from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError
from dbtbench.metric import Metric
from dbtbench.records.schema import TABLE, Record, explain
from dbtbench.runs import CHANGED, check_digest, compare_files
from dbtbench.runtime.files import digest_file
from dbtbench.runtime.progress import log

MOST_BYTES = 2**25


class InstalledMetrics(dict[str, dict[str, Metric]]):
    """Metrics of installed tasks, by the task's and the metric's name; a task is loaded when asked for."""

    def __missing__(self, task: str) -> dict[str, Metric]:
        try:
            with plugins.blame("tasks", task):
                declared = plugins.load(plugins.get("tasks", task)).metrics
                self[task] = {metric.name: metric for metric in declared}
        except DBTBenchError as error:
            log.info(f"{error}; runs of {task} are listed as recorded, and no interval is computed")
            self[task] = {}
        return self[task]


@dataclass(frozen=True)
class Result:
    """A finished run: its record, its metrics, and what these depend on where the run kept that.

    Attributes:
        record: its `run.json`.
        metrics: by name, in the order of the record and as it declares them; with outcomes and resampling
            where the task is installed with the same version of the metric.
        outcomes: the tables of these metrics that the run kept, by name.
    """

    record: Record
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    outcomes: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def __str__(self) -> str:
        record = self.record
        return f"{record.task} {record.hash} ({record.arm}, seed {record.seed})"

    def outcomes_of(self, name: str) -> pd.DataFrame | None:
        """Get the table that a metric can be resampled from; None where there is none."""
        metric = self.metrics.get(name)
        return self.outcomes.get(metric.outcomes.name) if metric and metric.outcomes else None

    @cached_property
    def truth(self) -> dict[str, str]:
        """By table, a digest of what was to be found: the same in all runs that may be compared."""
        tables = {m.outcomes.name: m.outcomes for m in self.metrics.values() if m.outcomes}
        return {name: tables[name].digest_truth(table) for name, table in self.outcomes.items()}


def outcomes_file(record: Path, table: str) -> Path:
    """Name a record's table: `TABLE.csv` next to `run.json`, `HASH.TABLE.csv` next to `HASH.json`."""
    return record.with_name(f"{table}.csv" if record.name == "run.json" else f"{record.stem}.{table}.csv")


def outcomes_files(record: Path) -> dict[str, Path]:
    """Find the tables that lie next to a record, by name."""
    prefix = "" if record.name == "run.json" else f"{record.stem}."
    pattern = re.compile(rf"{re.escape(prefix)}({TABLE})\.csv")
    found = {match[1]: path for path in record.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    return dict(sorted(found.items()))


def read_record(path: Path) -> Record:
    """Read the record of a finished run.

    Args:
        path: its folder, its `run.json`, or a `HASH.json` of a published `runs/TASK` folder.

    Raises:
        MissingError: when there is none.
        StaleError: when it does not match its digest, or the file is named by another hash than its own.
        UsageError: when it is not as it should be.
    """
    file = path / "run.json" if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"{file} is not there", "name a finished run's folder or its run.json")
    _check_size(file)
    text = file.read_bytes()
    _check_digest(file, text)
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"{file} is not a run's record: {explain(error)}",
            "evaluate again; results/carry_over.py of dbtbench's repository renews records of older versions",
        ) from error
    if file.name != "run.json" and file.stem != record.hash:
        raise StaleError(
            f"{file} is named by another hash than its content's, {record.hash}", "it was changed or renamed"
        )
    return record


def _check_digest(file: Path, text: bytes) -> None:
    """Compare a record's text with the digest in it; what is no JSON object is left to the schema."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(said, dict):
        check_digest(file, said)


def read_result(path: Path, installed: InstalledMetrics | None = None) -> Result:
    """Read a finished run: its record and its outcomes.

    Args:
        path: as for `read_record`.
        installed: metrics of the tasks, to be shared between several calls.

    Raises:
        MissingError: when there is no record.
        StaleError: when a file does not match its digest, or its outcomes are missing.
        UsageError: when the record or its outcomes are not as they should be.
    """
    file = path / "run.json" if path.is_dir() else path
    record = read_record(file)
    _check_files(file, record)
    metrics = _metrics(record, (InstalledMetrics() if installed is None else installed)[record.task])
    try:
        return Result(record, metrics, _read_outcomes(file, metrics))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file}: its outcomes cannot be read: {error}",
            f"run `dbtbench evaluate --task {record.task} --rescore`",
        ) from error


def read_results(paths: Iterable[Path]) -> list[Result]:
    """`read_result` of each."""
    installed = InstalledMetrics()
    return [read_result(path, installed) for path in paths]


def _check_files(file: Path, record: Record) -> None:
    """Compare what lies next to a record with the digests in it.

    Its outcomes must be there, and no others. Its other files are compared where they are there: a copy of a
    run comes without them.
    """
    if record.files is None:
        return
    tables = {
        m[1]: said for name, said in record.files.items() if (m := re.fullmatch(rf"({TABLE})\.csv", name))
    }
    found = outcomes_files(file)
    for name in tables.keys() | found.keys():
        place = outcomes_file(file, name)
        if name not in found:
            raise StaleError(f"{place} is missing, and {file} names it", CHANGED)
        if name not in tables or digest_file(place) != tables[name]:
            raise StaleError(f"{place} does not match its digest in {file.name}", CHANGED)
    if file.name == "run.json":
        compare_files(file.parent, record.files)


def check_kept(folder: Path, record: Record) -> None:
    """Check that a run's folder holds what its record names; weights may have been removed to save room.

    Raises:
        StaleError: naming a table that is missing, or a file that does not match its digest.
    """
    for name in compare_files(folder, record.files or {}):
        if name.endswith(".csv"):
            raise StaleError(f"{folder / name} is missing, and run.json names it", CHANGED)


def _metrics(record: Record, installed: Mapping[str, Metric]) -> dict[str, Metric]:
    """Read a record's metrics; those of the installed task give outcomes and resampling."""
    metrics = {}
    for name, declared in record.metrics.items():
        metric = Metric(name, **declared.model_dump(exclude={"outcomes"}))
        own = installed.get(name)
        if own and own.version == metric.version:
            metric = replace(
                metric,
                outcomes=own.outcomes,
                resample=own.resample,
                find=own.find,
                judge=own.judge,
                criterion=own.criterion,
            )
        metrics[name] = metric
    return metrics


def _check_size(file: Path) -> None:
    if file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file} is too large to be a run's", f"it may have {MOST_BYTES >> 20} MiB")


def _read_outcomes(record: Path, metrics: Mapping[str, Metric]) -> dict[str, pd.DataFrame]:
    """Read the tables that a run's metrics need, as far as it kept them.

    Raises:
        OSError, ValueError: when one is not as it should be.
    """
    tables = {metric.outcomes.name: metric.outcomes for metric in metrics.values() if metric.outcomes}
    found = {}
    for name, table in tables.items():
        file = outcomes_file(record, name)
        if file.is_file():
            _check_size(file)
            found[name] = table.read(file)
    return found
