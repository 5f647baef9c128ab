from __future__ import annotations

import errno
import os
import pickle
import traceback
from pathlib import Path

import pytest

from dbtbench.errors import DBTBenchError, MissingError, UsageError, explain_file_error


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "/data/x cannot be written: its file system is read-only"),
        (errno.EACCES, "/data/x: permission denied"),
        (errno.EPERM, "/data/x: permission denied"),
        (errno.ENOSPC, "no space is left for /data/x"),
        (errno.EDQUOT, "no space is left for /data/x in your quota"),
        (errno.ENAMETOOLONG, "the name is too long: /data/x"),
        (errno.EISDIR, "/data/x is a folder, not a file"),
    ],
)
def test_what_the_system_reports_is_said_with_the_path_and_what_to_do(number: int, message: str) -> None:
    for error in (OSError(number, os.strerror(number), "/data/x"), OSError(number, os.strerror(number))):
        explained = explain_file_error(error, Path("/data/x"))
        assert str(explained) == message
        assert explained is not None
        assert explained.hint


def test_a_file_that_is_not_there_is_missing_and_a_wrong_path_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, kind in ((tmp_path / "none", MissingError), (tmp_path / "file" / "x", UsageError)):
        with pytest.raises(OSError) as caught:
            path.read_text()
        assert type(explain_file_error(caught.value)) is kind
        assert str(path) in str(explain_file_error(caught.value))


def test_an_error_that_is_not_about_files_is_not_explained() -> None:
    assert explain_file_error(OSError("cannot identify image file")) is None
    assert explain_file_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None


def test_a_traceback_ends_with_the_hint_also_from_another_process() -> None:
    error = DBTBenchError("it is broken", "fix it")
    for seen in (error, pickle.loads(pickle.dumps(error))):
        assert seen.hint == "fix it"
        assert "".join(traceback.format_exception(seen)).endswith("it is broken\nhint: fix it\n")
