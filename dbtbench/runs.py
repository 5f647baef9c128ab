"""Run folders: found again by what they are, locked while written, finished with a record."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dbtbench.errors import DBTBenchError
from dbtbench.runtime.files import read_json, short_digest, write_json
from dbtbench.version import __version__

PACKAGES = ("torch", "monai", "torchio", "pydicom", "scikit-learn", "scipy", "pandas", "numpy", "zarr")


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
        """The finished run's record (`run.json`)."""
        record: dict[str, Any] = read_json(self.path / "run.json")
        return record

    def describe(self, **results: Any) -> dict[str, Any]:
        """Make the record: identity, results, the seconds since the run was opened, and provenance."""
        seconds = round(time.monotonic() - self.started, 1)
        return {**self.identity, **results, "seconds": seconds, **provenance()}

    def finish(self, **results: Any) -> None:
        """Write the record (`describe`), which makes the run finished."""
        write_json(self.path / "run.json", self.describe(**results))


@contextmanager
def open_run(folder: Path, identity: dict[str, Any], fresh: bool = False) -> Iterator[Run]:
    """Open the run of this identity: a finished one is found again, a half-done one continues.

    Args:
        folder: where runs of this kind are kept; the run lies in `folder/HASH`.
        identity: everything the result depends on, as JSON values.
        fresh: throw away what an earlier call left.

    Raises:
        DBTBenchError: when another process is working on the same run.
    """
    run = Run.of(folder, identity)
    if run.finished and not fresh:  # nothing is written, so that it needs no lock, nor a disk to write to
        yield run
        return
    run.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.path.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DBTBenchError(
            f"{run.path} is being worked on by another process", "wait for it, or stop it"
        ) from error
    try:
        if fresh:
            shutil.rmtree(run.path)
            run.path.mkdir()
        yield run
    finally:
        lock.release()


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
