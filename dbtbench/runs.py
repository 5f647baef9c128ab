"""Run folders: found again by what they are, locked while written, finished with a record.

A record (`run.json`) holds the SHA-256 of every file that its run kept, and of itself, so that what was
changed after the run was finished is found where it is used.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbtbench.errors import StaleError
from dbtbench.runtime.files import digest, digest_file, hold, read_json, short_digest, write_json
from dbtbench.runtime.progress import log
from dbtbench.version import __version__

PACKAGES = ("torch", "monai", "torchio", "pydicom", "scikit-learn", "scipy", "pandas", "numpy", "zarr")
LOGS = re.compile(r"(.*/)?(log\.txt|metrics\.jsonl|preview\.png|events\.out\..*|state/.*|\..*)|run\.json")
"""Files of a run that no result depends on: they say how it went, or are needed until it is finished."""
CHANGED = "it was changed after the run was finished; run it again with --fresh"


@dataclass
class Run:
    """One piece of work in its folder.

    Attributes:
        path: the folder; everything the work writes lies in it.
        identity: what was asked for: plug-in and version, resolved recipe, data fingerprints, seeds.
        started: when it was opened, for the seconds in its record.
    """

    path: Path
    identity: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, folder: Path, identity: dict[str, Any]) -> Run:
        """The run of this identity, in `folder/HASH`."""
        return cls(folder / short_digest(identity), identity)

    @property
    def hash(self) -> str:
        """The run's name: the first 12 hex digits of its identity's SHA-256."""
        return short_digest(self.identity)

    @property
    def finished(self) -> bool:
        """True when the work is done and recorded."""
        return (self.path / "run.json").is_file()

    def record(self) -> dict[str, Any]:
        """The finished run's record (`run.json`).

        Raises:
            StaleError: when it cannot be read.
        """
        file = self.path / "run.json"
        try:
            record = read_json(file)
        except ValueError as error:
            raise StaleError(f"{file} cannot be read: {error}", CHANGED) from error
        if not isinstance(record, dict):
            raise StaleError(f"{file} is no record", CHANGED)
        return record

    def describe(self, **results: Any) -> dict[str, Any]:
        """Make the record: identity, results, the seconds since the run was opened, and provenance."""
        seconds = round(time.monotonic() - self.started, 1)
        return {**self.identity, **results, "seconds": seconds, **provenance()}

    def finish(self, **results: Any) -> None:
        """Write the record (`describe`) with its digests, which makes the run finished."""
        files = digest_files(self.path)
        write_json(self.path / "run.json", add_digest({**self.describe(**results), "files": files}))

    def check(self) -> None:
        """Compare a finished run's record and files with their digests, before they are used.

        Raises:
            StaleError: naming the file that was changed or is missing.
        """
        file = self.path / "run.json"
        record = self.record()
        check_digest(file, record)
        if "files" not in record:
            log.info(f"{file} has no digests, as earlier versions wrote it: its files are not compared")
        for name in compare_files(self.path, record.get("files", {})):
            raise StaleError(f"{self.path / name} is missing, and {file} names it", CHANGED)


@contextmanager
def open_run(folder: Path, identity: dict[str, Any], fresh: bool = False) -> Iterator[Run]:
    """Open the run of this identity: a finished one is found again, a half-done one continues.

    Args:
        folder: where runs of this kind are kept; the run lies in `folder/HASH`.
        identity: everything the result depends on, as JSON values.
        fresh: throw away what an earlier call left.

    Raises:
        HeldError: when another process is working on the same run.
    """
    run = Run.of(folder, identity)
    if run.finished and not fresh:  # nothing is written, so that it needs no lock, nor a disk to write to
        yield run
        return
    run.path.mkdir(parents=True, exist_ok=True)
    with hold(run.path):
        if fresh:
            shutil.rmtree(run.path)
            run.path.mkdir()
        yield run


def digest_files(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file of a run that something may be computed from, by its name."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: digest_file(folder / name) for name in names if not LOGS.fullmatch(name)}


def compare_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Compare the files of a run with their digests.

    Args:
        folder: the run's.
        files: SHA-256 of each, by name.

    Returns:
        Names of those that are not there.

    Raises:
        StaleError: naming the first that differs.
    """
    there = [name for name in files if (folder / name).is_file()]
    for name in there:
        if digest_file(folder / name) != files[name]:
            raise StaleError(f"{folder / name} does not match its digest in run.json", CHANGED)
    return [name for name in files if name not in there]


def add_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give a record the SHA-256 of all that it says, as its last key."""
    said = {key: value for key, value in record.items() if key != "sha256"}
    return {**said, "sha256": digest(said)}


def matches_digest(record: Mapping[str, Any]) -> bool:
    """Test whether a record says what its own digest covers; one of an earlier version has none."""
    try:
        return "sha256" not in record or add_digest(record)["sha256"] == record["sha256"]
    except (ValueError, RecursionError):  # it holds NaN, or a hundred brackets
        return False


def check_digest(file: Path, record: Mapping[str, Any]) -> None:
    """Compare a record with its own digest.

    Raises:
        StaleError: when it was changed.
    """
    if not matches_digest(record):
        raise StaleError(f"{file} does not match its digest", CHANGED)


def provenance() -> dict[str, Any]:
    """Versions, commit, machine and time: what a reader needs to judge or repeat a result."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "dbtbench": __version__,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "device": torch.cuda.get_device_name()
        if cuda
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The checkout's commit, with `+` when files differ from it; None when installed from a wheel."""
    root = Path(__file__).parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def ask(*words: str) -> str:
        return subprocess.run(
            [git, "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain") else "")
    except subprocess.CalledProcessError:
        return None
