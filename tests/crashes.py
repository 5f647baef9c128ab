"""What a kill, or a failure of the power, leaves of a folder: recorded during one undisturbed run.

A kill leaves every file as the process last wrote it. A failure of the power leaves what was synced, and of
the rest nothing, some or all. The model is the weakest file system of ALICE (Pillai et al., OSDI 2014):

- A file has the contents of its last fsync. What was written since is gone, or cut at any length, or zeros
  are in its place; a file that was never synced, or was written over, may be empty.
- A folder has the names of its last fsync, and of the changes since (names added, removed and renamed) those
  up to any one of them, in order. Each folder has its own.

So a name can be there without its contents: a rename is no barrier for what was written before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Act = Callable[[], object]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
TIMES = {
    "commit",
    "seconds",
    "created",
    "per_second",
    "volumes_per_second",
    "steps_per_second",
    "time",
    "sha256",
}
LIMIT = 600
"""Seconds that a run may take before it counts as hanging."""


@dataclass(frozen=True)
class Taking:
    """What a run gives away of its folder, right before some of its file operations.

    Attributes:
        points: the operations, from 1.
        place: takes a folder for each, named by its number.
        power: what a failure of the power leaves, rather than a kill.
        seed: of what the power's failure leaves.
    """

    points: Collection[int]
    place: Path
    power: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        end: its exit code, or the name of a signal, or `hangs`.
        operations: number of its file operations; 0 when it was killed.
        modules: what it imported.
    """

    end: int | str
    operations: int = 0
    modules: list[str] = field(default_factory=list)


def run(
    act: Act,
    folder: Path,
    log: Path,
    kill_at: int = 0,
    kill_by: signal.Signals = signal.SIGKILL,
    taking: Taking | None = None,
) -> Run:
    """Run something in a fork that works in a folder.

    Args:
        act: to be done there.
        folder: operations below it are counted.
        log: takes its output.
        kill_at: the file operation, from 1, right before which it is killed; 0 never.
        kill_by: the signal.
        taking: what is taken of the folder meanwhile.
    """
    log.unlink(missing_ok=True)
    report = log.with_name(f"{log.name}.report")
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_the_child(act, folder, log, _Counter(folder, kill_at, kill_by, taking), report)
    limit, done, status = time.monotonic() + LIMIT, 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Run("hangs")
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return Run(signal.Signals(os.WTERMSIG(status)).name)
    return Run(os.WEXITSTATUS(status), *json.loads(report.read_text()))


def _be_the_child(act: Act, folder: Path, log: Path, counter: _Counter, report: Path) -> None:
    code: Any = 99
    try:
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        counter.start()
        act()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        report.write_text(json.dumps([counter.operations, list(sys.modules)]))
        os._exit(code)


class _Counter:
    """Counts the file operations of this process below a folder, syncs included; acts before some of them."""

    def __init__(self, folder: Path, kill_at: int, kill_by: signal.Signals, taking: Taking | None) -> None:
        self.folder, self.kill_at, self.kill_by, self.taking = folder, kill_at, kill_by, taking
        self.operations, self.disk = 0, Disk(folder)
        self.busy = threading.RLock()

    def start(self) -> None:
        """Count from now on."""
        self.me = os.getpid()
        if self.taking and self.taking.power:
            self.disk.begin()
        os.fsync = self._sync  # type: ignore[assignment]
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: Any) -> None:
        if event not in ("open", *CHANGING) or os.getpid() != self.me:
            return
        if not isinstance(arguments[0], str | bytes | Path) or (
            event == "open" and not arguments[2] & WRITING
        ):
            return
        path = os.fsdecode(arguments[0])
        if not path.startswith("/") or path.startswith(f"{self.folder}/"):
            self._count()

    def _sync(self, file: Any) -> None:
        opened = file if isinstance(file, int) else file.fileno()
        if str(Path(f"/proc/self/fd/{opened}").readlink()).startswith(str(self.folder)):
            self._count()
            if self.taking and self.taking.power:
                with self.busy:
                    self.disk.sync(opened)
        # The real disk is not waited for: what counts is the one of the model.

    def _count(self) -> None:
        with self.busy:
            self.operations += 1
            if self.operations == self.kill_at:
                os.kill(self.me, self.kill_by)
            if self.taking and self.taking.power:
                self.disk.look()
            if self.taking and self.operations in self.taking.points:
                place = self.taking.place / str(self.operations)
                if self.taking.power:
                    self.disk.fail(place, random.Random(f"{self.taking.seed} {self.operations}"))
                else:
                    shutil.copytree(self.folder, place)


class Disk:
    """What a disk holds of a folder, while a process works in it.

    Args:
        root: the folder; all that is there when `look` is called first is on the disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers: dict[int, int] = {}  # of inodes that are there: a removed file's may be given again
        self.paths: dict[int, Path] = {}
        self.contents: dict[int, bytes] = {}  # of files, at their last sync
        self.names: dict[
            int, list[dict[str, int]]
        ] = {}  # of folders: at the last sync, and after each change
        self.given = 0

    def begin(self) -> None:
        """Take all that is there for synced."""
        self.look()
        self.names = {number: tables[-1:] for number, tables in self.names.items()}
        self.contents = {n: path.read_bytes() for n, path in self.paths.items() if n not in self.names}

    def look(self) -> None:
        """See which names there are now."""
        before, self.numbers, self.paths = self.numbers, {}, {}
        self._look_into(self.root, self.root.stat().st_ino, before)

    def _look_into(self, path: Path, inode: int, before: dict[int, int]) -> int:
        if inode not in self.numbers:
            self.given += inode not in before
            self.numbers[inode] = before.get(inode, self.given)
        number = self.numbers[inode]
        self.paths[number] = path
        if path.is_dir():
            with os.scandir(path) as entries:
                inside = sorted((entry.name, entry.inode()) for entry in entries)
            names = {name: self._look_into(path / name, there, before) for name, there in inside}
            tables = self.names.setdefault(number, [{}])
            if names != tables[-1]:
                tables.append(names)
        return number

    def sync(self, opened: int) -> None:
        """Take an opened file or folder for synced."""
        self.look()
        number = self.numbers.get(os.fstat(opened).st_ino)
        if number in self.names:
            self.names[number] = self.names[number][-1:]
        elif number is not None:
            self.contents[number] = self.paths[number].read_bytes()

    def fail(self, place: Path, draw: random.Random) -> None:
        """Write what is left when the power fails.

        Args:
            place: the folder to be made.
            draw: chooses. In a third of all failures nothing that was not synced is left, in another one
                every name, without its contents.
        """
        self._restore(self.numbers[self.root.stat().st_ino], place, draw.choice(["old", "new", "any"]), draw)

    def _restore(self, number: int, place: Path, which: str, draw: random.Random) -> None:
        if number not in self.names:
            place.write_bytes(self._restore_contents(number, which, draw))
            path = self.paths.get(number)
            if path and path.stat().st_size == place.stat().st_size:
                shutil.copystat(path, place)
            return
        place.mkdir()
        tables = self.names[number]
        chosen = {"old": tables[0], "new": tables[-1], "any": draw.choice(tables)}[which]
        for name, inside in chosen.items():
            self._restore(inside, place / name, which, draw)

    def _restore_contents(self, number: int, which: str, draw: random.Random) -> bytes:
        kept = self.contents.get(number, b"")
        written = self.paths[number].read_bytes() if number in self.paths else kept
        if written == kept or which == "old":
            return kept
        safe = kept if written.startswith(kept) else b""  # what is appended takes away nothing
        if which == "new":
            return safe
        torn = written[: draw.randint(len(safe), len(written))]
        return draw.choice([kept, torn, safe + bytes(len(written) - len(safe)), written])


def read_without_times(path: Path) -> bytes:
    """Read a file without the times that a run takes."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(_drop_times(json.loads(content))).encode()
    if path.suffix == ".jsonl":
        content = json.dumps([_drop_times(json.loads(line)) for line in content.splitlines()]).encode()
    if path.name == "leaderboard.csv":
        content = re.sub(rb",[\d.e-]+,20\d\d-\d\d-\d\d", b"", content)
    return content


def _drop_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_times(part) for key, part in value.items() if key not in TIMES}
    return value


def take_snapshot(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file below a folder, without times; locks hold nothing."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(read_without_times(path)).hexdigest()
        for path in files
    }


def digest_state(folder: Path) -> str:
    """Compute the SHA-256 of all names and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b"/"
        found.update(f"{path.relative_to(folder)} {len(content)} ".encode() + content)
    return found.hexdigest()
