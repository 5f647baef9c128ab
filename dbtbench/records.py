"""Records of finished runs: what one holds, how it is read, and which ones may be compared.

A record may come from anyone, so everything in it is checked: names are short and plain, numbers are finite,
and the run's hash is computed from what the record says instead of being believed. A record carries the
declarations of its metrics, so that a board can be built where its task is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from dbtbench import plugins
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.metric import Direction, Metric
from dbtbench.runtime.files import short_digest
from dbtbench.runtime.progress import log
from dbtbench.task import BASELINE, ArmName

MOST_BYTES = 2**25
TABLE = r"outcomes(-[a-z0-9]{1,40})?"
RESULTS = {"scores", "metrics", "counts", "seconds", "dbtbench", "commit", "versions", "device", "created"}
RESULTS |= {"rescored", "derived"}
"""Keys that a finished run adds to its identity."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _arm(text: str) -> str:
    try:
        plain = str(ArmName.parse(text))
    except UsageError as error:
        raise ValueError(f"{error}: {error.hint}") from error
    if plain != text:
        raise ValueError(f"is written {plain}")
    return text


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
Table = Annotated[str, Field(pattern=f"^{TABLE}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunHash = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}\+?$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Part):
    """The real data set of a run."""

    name: Text
    fingerprint: Sha256
    split_hash: Sha256


class Augmentation(_Part):
    """The synthetic data set of a run, and what drew it."""

    name: Text
    fingerprint: Sha256
    generator: Text
    version: NonNegativeInt
    run: RunHash
    recipe: dict[str, JsonValue]
    volumes: NonNegativeInt


class Declaration(_Part):
    """A metric as a record keeps it: `Metric.describe`."""

    title: Text
    unit: Text
    direction: Direction
    version: NonNegativeInt
    headline: bool
    distance: bool
    outcomes: Table | None


class Provenance(_Part):
    """Versions, commit, machine and time of one piece of work."""

    dbtbench: Text
    commit: Commit | None
    versions: dict[Name, Text]
    device: Text
    created: Moment


class Record(Provenance):
    """A finished run's `run.json`: its identity, its scores and its provenance."""

    task: Name
    version: NonNegativeInt
    primary: Name
    recipe: dict[str, JsonValue]
    data: Data
    arm: Annotated[str, AfterValidator(_arm)]
    augmentation: Augmentation | None
    seed: NonNegativeInt
    scores: dict[Name, float | None]
    metrics: dict[Name, Declaration]
    counts: dict[Name, NonNegativeInt]
    seconds: NonNegativeFloat
    derived: bool | None = None
    rescored: Provenance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.primary not in self.scores:
            raise ValueError(f"has no score {self.primary}, its primary metric")
        if self.metrics.keys() != self.scores.keys():
            names = ", ".join(sorted(self.metrics.keys() ^ self.scores.keys()))
            raise ValueError(f"scores and declared metrics differ: {names}")
        if self.arm == BASELINE and self.augmentation is not None:
            raise ValueError(f"the arm {BASELINE} has no augmentation")
        try:
            assert self.hash
        except ValueError as error:
            raise ValueError(f"a recipe holds what JSON does not: {error}") from error
        return self

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the run's scores depend on, as `dbtbench.runs` has it."""
        return self.model_dump(mode="json", exclude=RESULTS)

    @cached_property
    def hash(self) -> str:
        """The run's name: the first 12 hex digits of its identity's SHA-256, as `dbtbench.runs` gives it."""
        return short_digest(self.identity)

    @cached_property
    def comparable(self) -> dict[str, str]:
        """Properties that runs of one board have in common."""
        return {
            "task": self.task,
            "task version": str(self.version),
            "recipe hash": short_digest(self.recipe),
            "data fingerprint": self.data.fingerprint,
            "split hash": self.data.split_hash,
        }

    @property
    def synthetic(self) -> str:
        """Fingerprint of the synthetic data set; empty where there is none."""
        return self.augmentation.fingerprint if self.augmentation else ""


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
        UsageError: when it is not as it should be, or the file is named by another hash than its own.
    """
    file = path / "run.json" if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"{file} is not there", "name a finished run's folder or its run.json")
    _check_size(file)
    try:
        record = Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{file} is not a run's record: {explain(error)}",
            "evaluate again; results/carry_over.py of dbtbench's repository renews records of older versions",
        ) from error
    if file.name != "run.json" and file.stem != record.hash:
        raise UsageError(
            f"{file} is named by another hash than its content's, {record.hash}", "it was changed or renamed"
        )
    return record


def read_result(path: Path, installed: InstalledMetrics | None = None) -> Result:
    """Read a finished run: its record and its outcomes.

    Args:
        path: as for `read_record`.
        installed: metrics of the tasks, to be shared between several calls.

    Raises:
        MissingError: when there is no record.
        UsageError: when the record or its outcomes are not as they should be.
    """
    file = path / "run.json" if path.is_dir() else path
    record = read_record(file)
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


def explain(error: ValidationError) -> str:
    """Say the first thing that is wrong with a record, in text that is safe on a terminal."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}"[:200].encode("unicode_escape").decode()


def _metrics(record: Record, installed: Mapping[str, Metric]) -> dict[str, Metric]:
    """Read a record's metrics; those of the installed task give outcomes and resampling."""
    metrics = {}
    for name, declared in record.metrics.items():
        metric = Metric(name, **declared.model_dump(exclude={"outcomes"}))
        own = installed.get(name)
        if own and own.version == metric.version:
            metric = replace(metric, outcomes=own.outcomes, resample=own.resample)
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
