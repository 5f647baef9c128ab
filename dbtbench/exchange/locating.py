"""Files below a folder that tables name by their paths. No path may lead out of the folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.exchange.tables import reject_rows

LEAVES = "path leaves the folder"
NOT_FOUND = "file not found"
SHARED = "several rows name this file"


def locate_file(root: Path, text: str) -> tuple[str, int, str]:
    """Find one file.

    Args:
        root: the folder.
        text: a path relative to it, with slashes or backslashes.

    Returns:
        The path relative to the folder, the file's size (-1 where there is none), and the reason why it
        cannot be used ("" where it can).
    """
    slashed = text.replace("\\", "/")
    relative = PurePosixPath(slashed)
    if relative.is_absolute() or ".." in relative.parts or re.match("[A-Za-z]:", slashed):
        return relative.as_posix(), -1, LEAVES
    try:
        path = (root / relative).resolve(strict=True)
        if not path.is_relative_to(root.resolve()):
            return relative.as_posix(), -1, LEAVES
        if path.is_file():
            return relative.as_posix(), path.stat().st_size, ""
    except (OSError, RuntimeError, ValueError):  # not there, a loop of links, a name that no file can have
        pass
    return relative.as_posix(), -1, NOT_FOUND


def locate_files(root: Path, volumes: pd.DataFrame) -> pd.DataFrame:
    """Find the file of every volume by the path in its column `file`.

    Args:
        root: the folder that the paths are relative to.
        volumes: `Tables.volumes`.

    Returns:
        The volumes with `file` ("" where there is none) and `bytes` (-1 where there is none); `reason` and
        `detail` are filled in where none was given before.
    """
    named = volumes["file"]
    found = [locate_file(root, text) for text in named]
    sizes = pd.Series([size for _, size, _ in found], volumes.index, dtype="int64")
    files = pd.Series([file for file, _, _ in found], volumes.index, dtype=str).where(sizes >= 0, "")
    table = volumes.assign(file=files, bytes=sizes)
    leaves = pd.Series([reason == LEAVES for _, _, reason in found], volumes.index, dtype=bool)
    reject_rows(table, named == "", "no file is named", "")
    reject_rows(table, leaves, LEAVES, named)
    reject_rows(table, sizes < 0, NOT_DOWNLOADED, named)
    reject_shared_files(table)
    return table


def reject_shared_files(table: pd.DataFrame) -> None:
    """Reject all rows of a file that several volumes name."""
    owners = table[table["file"] != ""].drop_duplicates([*KEY, "file"])["file"].value_counts()
    rivals = table["file"].map(owners).fillna(0).astype(int)
    reject_rows(table, rivals > 1, SHARED, rivals.astype(str) + " volumes")
