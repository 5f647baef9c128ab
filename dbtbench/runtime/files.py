"""Files that are written atomically: a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dbtbench.errors import HeldError, UsageError

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TEMPORARY = re.compile(rf"\..*\.{_HOST}\.(\d+)\.tmp")
_swept: set[Path] = set()


@contextmanager
def hold(path: Path, wait: bool = False) -> Iterator[None]:
    """Keep every other process, and every other `hold`, away from a file or folder.

    The lock is the file `.NAME.lock` next to `path`: it outlives a folder and is never inside it. It is never
    deleted: a lock whose file is deleted can be held twice. A process that dies lets go of it.

    Args:
        path: what is worked on; it need not exist.
        wait: wait until it is free.

    Raises:
        HeldError: when another holds it, and `wait` is not set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=wait)
    except Timeout as error:
        raise HeldError(f"{path} is being worked on by another process", "wait for it, or stop it") from error
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in a folder whose process, on this machine, is dead."""
    for path in folder.iterdir():
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name next to `path` to write to; on success it is renamed to `path`.

    The file is on the disk before it has its name, and the name is before this returns: what is recorded
    after it, a journal's line or a `run.json`, never outlives it when the power fails. The first file of a
    process in a folder also removes what processes that are dead left there.
    """
    make_folder(path.parent)
    if path.parent not in _swept:
        remove_leftovers(path.parent)
        _swept.add(path.parent)
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing; their names are on the disk afterwards."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder, its own name included, is on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with line feeds."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def digest(value: Any) -> str:
    """Compute the SHA-256 (hex) of a value's canonical JSON: equal values have equal digests."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Compute the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_digest(value: Any) -> str:
    """The first 12 hex digits of `digest`, as they name runs."""
    return digest(value)[:12]


def claim_folder(folder: Path, name: str, record: dict[str, Any], what: str) -> None:
    """Reserve a folder for one piece of work, or find that it is reserved for it already.

    Args:
        folder: made if need be.
        name: of the JSON file in it that holds the record.
        record: everything that the work depends on.
        what: the work, as an error names it.

    Raises:
        UsageError: when the folder holds something else.
    """
    hint = "choose a folder that is not there yet"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint)
    if (folder / name).is_file():
        try:
            found = read_json(folder / name)
        except ValueError:
            found = {}
        if found != record:
            changed = [k for k in record if not isinstance(found, dict) or found.get(k) != record[k]]
            raise UsageError(f"{folder} holds another {what} (its {', '.join(changed)} differs)", hint)
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no {what}", hint)
    else:
        write_json(folder / name, record)
