"""The errors a user can meet: each says what is wrong, what to do, and which exit code it ends with."""

from __future__ import annotations

import errno
from pathlib import Path


class DBTBenchError(Exception):
    """A failed run (exit code 1).

    Args:
        message: what is wrong, naming the thing; one sentence.
        hint: what to do about it, preferably a command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback ends with it


class HeldError(DBTBenchError):
    """Something that another process is working on (exit code 1)."""


class UsageError(DBTBenchError):
    """A request that makes no sense as it stands (exit code 2)."""

    exit_code = 2


class MissingError(DBTBenchError):
    """Data, a plug-in or a device is not there (exit code 3)."""

    exit_code = 3


class StaleError(DBTBenchError):
    """Results are out of date or may not be compared (exit code 4)."""

    exit_code = 4


class DivergedError(DBTBenchError):
    """A training whose loss or gradient is no longer finite: the same settings always end here."""


class UnreadableError(Exception):
    """A file, or a row of a table, that cannot become a volume: it is counted, and the work goes on.

    Args:
        reason: why, in words that are the same for every such case, so that they can be counted.
        detail: what is particular to this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


_ELSEWHERE = "choose another place, such as another --workspace"
_OF_FILES: dict[int, tuple[type[DBTBenchError], str, str]] = {
    errno.EROFS: (DBTBenchError, "{path} cannot be written: its file system is read-only", _ELSEWHERE),
    errno.EACCES: (DBTBenchError, "{path}: permission denied", "`ls -ld {path}` shows who may"),
    errno.EPERM: (DBTBenchError, "{path}: permission denied", "`ls -ld {path}` shows who may"),
    errno.ENOSPC: (DBTBenchError, "no space is left for {path}", "make room; the same command continues"),
    errno.EDQUOT: (
        DBTBenchError,
        "no space is left for {path} in your quota",
        "make room; the same command continues",
    ),
    errno.EFBIG: (DBTBenchError, "{path} is larger than its file system allows", _ELSEWHERE),
    errno.EIO: (DBTBenchError, "{path}: the disk reports an error", "check the disk; " + _ELSEWHERE),
    errno.ESTALE: (
        DBTBenchError,
        "{path}: its network file system is gone",
        "the same command continues when it is back",
    ),
    errno.ENOLCK: (DBTBenchError, "{path} cannot be locked: its file system has no locks", _ELSEWHERE),
    errno.ENOSYS: (DBTBenchError, "{path} cannot be locked: its file system has no locks", _ELSEWHERE),
    errno.EMFILE: (DBTBenchError, "{path}: too many files are open", "`ulimit -n 4096` allows more"),
    errno.ENOENT: (MissingError, "{path} is not there", "check the name, and that nothing removed it"),
    errno.ENOTDIR: (UsageError, "{path}: a part of this path is a file, not a folder", "choose another path"),
    errno.EISDIR: (UsageError, "{path} is a folder, not a file", "name a file"),
    errno.EEXIST: (
        UsageError,
        "{path} is there already, and is not what is wanted here",
        "choose another path",
    ),
    errno.ENAMETOOLONG: (UsageError, "the name is too long: {path}", "choose a shorter one"),
}
"""Reports of the file system by errno: kind of error, message and hint."""


def explain_file_error(error: OSError, path: Path | None = None) -> DBTBenchError | None:
    """Say what the system reports of a file, and what to do about it.

    Args:
        error: as it was raised.
        path: what was being read or written, where the error does not name it, as after a failed write.

    Returns:
        The error to raise or report; None for one that is not about files.
    """
    if error.errno not in _OF_FILES:
        return None
    kind, message, hint = _OF_FILES[error.errno]
    place = error.filename if error.filename is not None else path or "a file"
    return kind(message.format(path=place), hint.format(path=place))
