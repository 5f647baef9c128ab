"""Records of finished runs: what one holds, how it is read, and which ones may be compared.

A record may come from anyone, so everything in it is checked: names are short and plain, numbers are finite,
and the run's hash is computed from what the record says instead of being believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
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

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import read_table
from dbtbench.errors import MissingError, UsageError
from dbtbench.runtime.files import digest
from dbtbench.task import BASELINE

MOST_BYTES = 2**25
OUTCOMES: dict[str, dict[str, type]] = {
    "mean_sensitivity_positive": {"box": int},
    "auroc": {"positive": int, "Score": float},
}
"""Metrics whose outcomes are known: the column of their own, and what is filled in every row."""
RESULTS = {"scores", "counts", "seconds", "dbtbench", "commit", "versions", "device", "created"}
"""What a finished run adds to its identity."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}(:[A-Za-z0-9._+-]{1,40}){0,3}$")]
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


class Record(_Part):
    """A finished run's `run.json`: its identity, its scores and its provenance."""

    task: Name
    version: NonNegativeInt
    primary: Name
    recipe: dict[str, JsonValue]
    data: Data
    arm: ArmName
    augmentation: Augmentation | None
    seed: NonNegativeInt
    scores: dict[Name, float | None]
    counts: dict[Name, NonNegativeInt]
    seconds: NonNegativeFloat
    dbtbench: Text
    commit: Commit | None
    versions: dict[Name, Text]
    device: Text
    created: Moment

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.primary not in self.scores:
            raise ValueError(f"has no score {self.primary}, its primary metric")
        if self.arm == BASELINE and self.augmentation is not None:
            raise ValueError(f"the arm {BASELINE} has no augmentation")
        try:
            assert self.hash
        except ValueError as error:
            raise ValueError(f"a recipe holds what JSON does not: {error}") from error
        return self

    @cached_property
    def hash(self) -> str:
        """The run's name: the first 12 hex digits of its identity's SHA-256, as `dbtbench.runs` gives it."""
        return digest(self.model_dump(mode="json", exclude=RESULTS))[:12]

    @cached_property
    def comparable(self) -> dict[str, str]:
        """What runs of one board have in common."""
        return {
            "task": self.task,
            "task version": str(self.version),
            "recipe hash": digest(self.recipe)[:12],
            "data fingerprint": self.data.fingerprint,
            "split hash": self.data.split_hash,
        }

    @property
    def synthetic(self) -> str:
        """Fingerprint of the synthetic data set; empty where there is none."""
        return self.augmentation.fingerprint if self.augmentation else ""


@dataclass(frozen=True)
class Result:
    """A finished run: its record, and what its primary metric depends on where the run kept that.

    Attributes:
        record: its `run.json`.
        outcomes: its `outcomes.csv`; None where there is none.
    """

    record: Record
    outcomes: pd.DataFrame | None = None

    def __str__(self) -> str:
        record = self.record
        return f"{record.task} {record.hash} ({record.arm}, seed {record.seed})"

    @cached_property
    def truth(self) -> str:
        """Digest of what was to be found in which test volumes: the same in all runs that may be compared."""
        assert self.outcomes is not None
        table = self.outcomes
        rows = table.loc[table["box"] >= 0, [*KEY, "box"]] if "box" in table else table[[*KEY, "positive"]]
        return digest([list(row) for row in sorted(set(rows.itertuples(index=False, name=None)))])


def outcomes_of(record: Path) -> Path:
    """Where a record's outcomes lie: `outcomes.csv`, or `HASH.outcomes.csv` beside `HASH.json`."""
    return record.with_name("outcomes.csv" if record.name == "run.json" else f"{record.stem}.outcomes.csv")


def read_result(path: Path) -> Result:
    """Read a finished run.

    Args:
        path: its folder, its `run.json`, or a `HASH.json` of a published `runs/TASK` folder.

    Raises:
        MissingError: when there is no record.
        UsageError: when the record or its outcomes are not as they should be, or the file is named by another
            hash than the record's own.
    """
    file = path / "run.json" if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"{file} is not there", "name a finished run's folder or its run.json")
    try:
        _check_size(file)
        record = Record.model_validate_json(file.read_bytes())
        outcomes = _read_outcomes(outcomes_of(file), record.primary)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}"[:200].encode("unicode_escape").decode()  # it goes to a terminal
        raise UsageError(f"{file} is not a run's record: {said}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: its outcomes cannot be read: {error}") from error
    if file.name != "run.json" and file.stem != record.hash:
        raise UsageError(
            f"{file} is named by another hash than its content's, {record.hash}", "it was changed or renamed"
        )
    return Result(record, outcomes)


def read_results(paths: Iterable[Path]) -> list[Result]:
    """`read_result` of each."""
    return [read_result(path) for path in paths]


def _check_size(file: Path) -> None:
    if file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file} is too large to be a run's", f"it may have {MOST_BYTES >> 20} MiB")


def _read_outcomes(file: Path, metric: str) -> pd.DataFrame | None:
    """Read the outcomes of detection (a lesion not found has no score) or classification.

    Returns:
        None for a metric whose outcomes are not known, and where there are none.

    Raises:
        ValueError: when a column is not as it should be.
    """
    if metric not in OUTCOMES or not file.is_file():
        return None
    _check_size(file)
    own = next(iter(OUTCOMES[metric]))
    table = read_table(file, KEY, dict.fromkeys(KEY, str) | OUTCOMES[metric])
    if table.empty or list(table.columns) != [*KEY, own, "Score"]:
        raise ValueError(f"it has no rows, or its columns are not {', '.join([*KEY, own, 'Score'])}")
    if table[KEY].map(lambda cell: len(cell) > 200 or not cell.isprintable()).to_numpy().any():
        raise ValueError("a patient, study or view has a name that is too long or cannot be printed")
    table["Score"] = pd.to_numeric(table["Score"]).astype(np.float64)
    if np.isinf(table["Score"]).any() or table.loc[table[own] < 0, "Score"].isna().any():
        raise ValueError("a score is not finite, or a false positive has none")
    wrong = table["box"] < -1 if own == "box" else ~table["positive"].isin([0, 1])
    if wrong.any():
        raise ValueError(f"{own} is out of range")
    if own == "positive" and table.duplicated(KEY).any():
        raise ValueError("a volume is listed twice")
    volumes = pd.MultiIndex.from_frame(table[KEY])
    if not volumes.isin(volumes[table[own] >= 0]).all():
        raise ValueError("a volume is listed that has no lesion")  # it would thin out the false positives
    return table
