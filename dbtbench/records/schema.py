"""The schema of a finished run's record.

A record may come from anyone, so everything in it is checked: names are short and plain, numbers are finite
and of a size that can be, times are neither in the future nor before the project, an arm has what its name
says. The run's hash is computed from what the record says instead of being believed. A record carries the
declarations of its metrics, so that a board can be built where its task is not installed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dbtbench.errors import UsageError
from dbtbench.metric import Direction
from dbtbench.runtime.files import digest, short_digest
from dbtbench.task import ALONE, REFERENCES, ArmName

TABLE = r"outcomes(-[a-z0-9]{1,40})?"
RESULTS = {"scores", "metrics", "counts", "seconds", "dbtbench", "commit", "versions", "device", "created"}
RESULTS |= {"rescored", "standings", "derived", "learned", "chosen", "files", "sha256"}
"""Keys that a finished run adds to its identity."""
LARGEST = 10**9
"""Largest count, seed, version, number of seconds and size of a score that a record may have."""
DEEPEST = 20
"""Levels of a recipe."""
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
"""No run is older: dbtbench was begun in this year."""
AHEAD = timedelta(days=1)
"""By how much the clock of another machine may be ahead of this one's."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _file_name(text: str) -> str:
    if text.startswith((".", " ")) or set(text) & set('/\\:<>"|?*'):
        raise ValueError("is no name that a folder can have everywhere")
    return text


def _path_inside(text: str) -> str:
    if "\\" in text or {"", ".", ".."} & set(text.split("/")):
        raise ValueError("is no path inside the run's folder")
    return text


def _arm(text: str) -> str:
    try:
        plain = str(ArmName.parse(text))
    except UsageError as error:
        raise ValueError(f"{error}: {error.hint}") from error
    if plain != text:
        raise ValueError(f"is written {plain}")
    return text


def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text)  # a ValueError says which part of the date or time cannot be
    if moment.utcoffset() is None:
        raise ValueError("has no time zone")
    if moment < FIRST:
        raise ValueError(f"is before {FIRST.year}, when dbtbench was begun")
    if moment > datetime.now(UTC) + AHEAD:
        raise ValueError("is in the future by this machine's clock")
    return text


def _settings(recipe: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check_setting(recipe, DEEPEST)
    return recipe


def _check_setting(value: JsonValue, levels: int) -> None:
    """Check that a recipe's values are what a setting can be."""
    if not levels:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key in value:
            _printable(key)
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check_setting(part, levels - 1)
    elif isinstance(value, str):
        _printable(value)
    elif isinstance(value, int | float) and not abs(value) < 2**63:  # nor is NaN
        raise ValueError("holds a number that is not finite, or too large")


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
FileName = Annotated[Text, Field(min_length=1), AfterValidator(_file_name)]
FilePath = Annotated[Text, Field(min_length=1), AfterValidator(_path_inside)]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,99}$")]
Table = Annotated[str, Field(pattern=f"^{TABLE}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunHash = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}\+?$")]
Moment = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"),
    AfterValidator(_moment),
]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(gt=0, lt=1)]
Score = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Settings = Annotated[dict[str, JsonValue], AfterValidator(_settings)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Part):
    """The real data set of a run, or the phantom in its place, from version 2 on."""

    name: FileName
    fingerprint: Sha256
    split_hash: Sha256
    phantom: Annotated[int, Field(ge=2, le=LARGEST)] | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialise without a phantom's version where there is none, as in the identity of the run."""
        fields: dict[str, Any] = serialise(self)
        return {name: value for name, value in fields.items() if value is not None}


class Augmentation(_Part):
    """The synthetic data set of a run, what drew it, and the share that a filter kept, if there was one."""

    name: FileName
    fingerprint: Sha256
    generator: FileName
    version: Count
    run: RunHash
    recipe: Settings
    volumes: Count
    keep: Share | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialise without a filter where there is none, as in the identity of the run."""
        fields: dict[str, Any] = serialise(self)
        return {name: value for name, value in fields.items() if name != "keep" or value is not None}


class Declaration(_Part):
    """A metric as a record keeps it: `Metric.describe`."""

    title: Text
    unit: Text
    direction: Direction
    version: Count
    headline: bool
    distance: bool
    outcomes: Table | None


class Placement(_Part):
    """A score's interval and its place on the floor: `dbtbench.metric.Standing`."""

    low: Score
    high: Score
    floor: Score
    floor_low: Score
    floor_high: Score
    percentile: Annotated[float, Field(ge=0, le=100)]


class Provenance(_Part):
    """Versions, commit, machine and time of one piece of work."""

    dbtbench: Version
    commit: Commit | None
    versions: dict[Name, Version]
    device: Text
    created: Moment

    @cached_property
    def moment(self) -> datetime:
        """`created` as a point in time, whatever its time zone."""
        return datetime.fromisoformat(self.created)


class Record(Provenance):
    """A finished run's `run.json`: its identity, its scores, its provenance and its digests.

    `files` has the SHA-256 of every file that the run kept, and `sha256` that of the record itself; records
    of earlier versions have neither. `chosen` names settings whose values the generators chose themselves.
    """

    task: Name
    version: Count
    primary: Name
    recipe: Settings
    data: Data
    arm: Annotated[str, AfterValidator(_arm)]
    augmentation: Augmentation | Annotated[list[Augmentation], Field(min_length=2)] | None
    seed: Count
    scores: dict[Name, Score | None]
    metrics: dict[Name, Declaration]
    standings: dict[Name, Placement] | None = None
    counts: dict[Name, Count]
    seconds: Seconds
    derived: bool | None = None
    learned: bool | None = None
    chosen: list[Name] | None = None
    rescored: Provenance | None = None
    files: dict[FilePath, Sha256] | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.primary not in self.scores:
            raise ValueError(f"has no score {self.primary}, its primary metric")
        if self.metrics.keys() != self.scores.keys():
            names = ", ".join(sorted(self.metrics.keys() ^ self.scores.keys()))
            raise ValueError(f"scores and declared metrics differ: {names}")
        if unknown := sorted((self.standings or {}).keys() - self.scores.keys()):
            raise ValueError(f"standings of {', '.join(unknown)}, which it has no score of")
        self._check_arm()
        return self

    def _check_arm(self) -> None:
        """Check that the arm trained on what its name says.

        Raises:
            ValueError: naming the field.
        """
        arm = ArmName.parse(self.arm)
        if len(self.augmentations) != len(arm.sources):
            raise ValueError(f"augmentation: {len(self.augmentations)} data sets, for the arm {self.arm}")
        drawn = sum(augmentation.volumes for augmentation in self.augmentations)
        if arm.sources and not drawn:
            raise ValueError(f"augmentation: the arm {self.arm} has no synthetic volumes")
        if self.counts.get("training_synthetic", drawn) != drawn:
            found = self.counts["training_synthetic"]
            raise ValueError(f"counts.training_synthetic: {found}, while augmentation.volumes has {drawn}")
        real = self.counts.get("training_real")
        without = arm.control == ALONE or arm.source in REFERENCES
        if real is not None and (real == 0) != without:
            raise ValueError(f"counts.training_real: {real}, which the arm {self.arm} cannot have")

    @property
    def augmentations(self) -> list[Augmentation]:
        """The synthetic data sets, one for each of the arm's sources."""
        made = self.augmentation
        return made if isinstance(made, list) else [made] if made else []

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
            "phantom version": str(self.data.phantom or "none or 1"),
            "data fingerprint": self.data.fingerprint,
            "split hash": self.data.split_hash,
        }

    @property
    def synthetic(self) -> str:
        """Fingerprint of the synthetic data set, or a digest of several; empty where there is none."""
        prints = [augmentation.fingerprint for augmentation in self.augmentations]
        return digest(prints) if len(prints) > 1 else "".join(prints)


def explain(error: ValidationError) -> str:
    """Say the first thing that is wrong with a record, in text that is safe on a terminal."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}".removeprefix(": ")[:200].encode("unicode_escape").decode()
