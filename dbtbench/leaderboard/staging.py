"""Writing of a whole set of files: a kill leaves all of them as they were, or as they become.

New contents are staged in `.publishing`; a list of them is written last. Without the list, whoever comes next
throws away what was staged. With it, whoever comes next puts everything in its place.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dbtbench.errors import StaleError
from dbtbench.runtime.files import atomic_path, hold, read_json, sync, write_json

STAGE = ".publishing"
LIST = "files.json"
TARGET = re.compile(
    r"runs/[A-Za-z0-9@+_-][A-Za-z0-9._@+-]*/[A-Za-z0-9][A-Za-z0-9.-]*|leaderboard\.csv|(\.\./)?README\.md"
)
"""Files that are ever written: a list that somebody else left leads nowhere else."""


@contextmanager
def open_results(results: Path) -> Iterator[None]:
    """Lock a folder of results, and finish or throw away what a killed command staged there.

    Raises:
        HeldError: when another process is writing there.
        StaleError: when what was staged is not what a command of this version stages.
    """
    with hold(results.resolve()):
        if is_pending(results):
            _put_in_place(results)
        shutil.rmtree(results / STAGE, ignore_errors=True)
        yield


def is_pending(results: Path) -> bool:
    """Test whether a killed command left files that are staged, and not yet in their place."""
    return (results / STAGE / LIST).is_file()


def write_all(results: Path, contents: Mapping[str, bytes | None]) -> None:
    """Write a set of files: all of them or none.

    Args:
        results: the folder, in `open_results`.
        contents: by path from the folder; None removes a file.
    """
    if not contents:
        return
    stage = results / STAGE
    stage.mkdir(parents=True)
    staged: dict[str, str | None] = {}
    for number, (target, content) in enumerate(contents.items()):
        staged[target] = None if content is None else str(number)
        if content is not None:
            (stage / str(number)).write_bytes(content)
            sync(stage / str(number))
    sync(stage)
    write_json(stage / LIST, staged)
    _put_in_place(results)


def _put_in_place(results: Path) -> None:
    """Put every staged file in its place; as often as need be, as all stay staged until the last one is."""
    stage = results / STAGE
    try:
        staged: dict[str, str | None] = read_json(stage / LIST)
        contents = {
            target: None if name is None else (stage / str(int(name))).read_bytes()
            for target, name in staged.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StaleError(f"{stage} cannot be read: {error}", f"remove {stage} and publish again") from error
    for target in contents:
        if not TARGET.fullmatch(target):
            raise StaleError(f"{stage / LIST} names a file that is not published", f"remove {stage}")
    for target, content in contents.items():
        if content is None:
            (results / target).unlink(missing_ok=True)
        else:
            with atomic_path(results / target) as temporary:
                temporary.write_bytes(content)
    (stage / LIST).unlink()
    shutil.rmtree(stage)
