"""Files that are written atomically: a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbtbench.errors import UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name next to `path` to write to; on success it is renamed to `path`.

    The file is on the disk before it has its name, and the name is before this returns: what is recorded
    after it, a journal's line or a `run.json`, never outlives it when the power fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
