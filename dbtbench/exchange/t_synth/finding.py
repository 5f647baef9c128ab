"""The search for the examples below a folder, and the reason for each that is there and cannot be read."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.errors import MissingError, UnreadableError
from dbtbench.exchange.locating import LEAVES, locate_file
from dbtbench.exchange.t_synth.examples import UNKNOWN_FOLDER, Example, parse_folder
from dbtbench.exchange.t_synth.header import read_header

FILE = re.compile(r"reconstruction([0-9]+)\.raw")
SEVERAL = "several files could be this volume"
NO_HEADER = "no .mhd header beside the volume"
NO_PLACE = "odd ID without a .loc file"
NOT_LESION_FREE = "even ID with a .loc file"
DICOM_ONLY = "only DICOM slices, no raw file"
UNREADABLE_FOLDER = "folder cannot be read"
PLACE = ("file", "bytes", "reason", "detail")


@dataclass
class Search:
    """The files of T-SYNTH below a folder; paths are relative to it, with slashes.

    Attributes:
        raw: for each example the raw files that could be its volume.
        dicom: examples with DICOM files, and the first of these.
        refused: places that are no example's, each with its reason.
    """

    raw: dict[Example, list[str]] = field(default_factory=lambda: defaultdict(list))
    dicom: dict[Example, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


def search(root: Path) -> Search:
    """Look through a folder and all below it; links to folders are not followed.

    Any part of the collection will do, also a folder inside it: names are read from the whole path.

    Args:
        root: resolved.

    Raises:
        MissingError: when it is no folder.
    """
    if not root.is_dir():
        raise MissingError(
            f"{root} is not a folder", "name the folder that holds device_data_VICTREPhantoms_spic_…"
        )
    found = Search()

    def refuse(error: OSError) -> None:
        found.refused.append((_relate(root, Path(error.filename)), UNREADABLE_FOLDER))

    for name, folders, files in os.walk(root, onerror=refuse):
        folder = Path(name)
        folders.sort()
        links = [folder / name for name in folders if (folder / name).is_symlink()]
        outside = [link for link in links if not link.resolve().is_relative_to(root)]
        found.refused += [(_relate(root, link), LEAVES) for link in outside]
        _sort_files(root, folder, sorted(files), found)
    return found


def _sort_files(root: Path, folder: Path, files: list[str], found: Search) -> None:
    """Give the files of one folder to the example that it belongs to, or refuse them."""
    slices = [name for name in files if name.lower().endswith(".dcm")]
    for place in (folder, folder.parent) if slices else ():
        with suppress(UnreadableError):
            found.dicom.setdefault(parse_folder(place.as_posix()), _relate(root, folder / slices[0]))
    for name in files:
        if (match := FILE.fullmatch(name)) is None:
            continue
        file = _relate(root, folder / name)
        try:
            example = parse_folder(folder.as_posix())
            if str(example.number) != match[1] or "\N{REPLACEMENT CHARACTER}" in file:
                raise UnreadableError(UNKNOWN_FOLDER)
        except UnreadableError as error:
            found.refused.append((file, error.reason))
            continue
        found.raw[example].append(file)


def _relate(root: Path, path: Path) -> str:
    """Make a path relative to the root; bytes that are no text become a mark."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")


def find_files(root: Path, found: Search, examples: Iterable[Example], volumes: pd.DataFrame) -> pd.DataFrame:
    """Give every volume of the table its file, or the reason why it has none; append what was refused.

    A row without a volume names the file that is wrong or missing, so that a later call sees a difference.

    Args:
        root: the folder that was searched.
        found: there.
        examples: one for each row of the table.
        volumes: `Tables.volumes`.
    """
    places = [_choose(root, found, example) for example in examples]
    known = volumes.assign(**{name: [place[name] for place in places] for name in PLACE})
    empty = dict.fromkeys([*KEY, "label", "split"], "")
    refused = [empty | _describe(root, file, reason) for file, reason in found.refused]
    return pd.concat([known, pd.DataFrame(refused, columns=known.columns)], ignore_index=True).astype(
        {"bytes": "int64"}
    )


def _choose(root: Path, found: Search, example: Example) -> dict[str, Any]:
    """Choose the file of one example."""
    candidates = found.raw.get(example, [])
    if len(candidates) > 1:
        whole = [file for file in candidates if _has_length_of_header(root / file)]
        if len(whole) != 1:
            return _describe(root, candidates[0], SEVERAL, f"{len(candidates)} files")
        candidates = whole
    if not candidates:
        if example in found.dicom:
            return _describe(root, found.dicom[example], DICOM_ONLY)
        return {"file": "", "bytes": -1, "reason": NOT_DOWNLOADED, "detail": ""}
    raw = candidates[0]
    header, place = (raw.removesuffix("raw") + suffix for suffix in ("mhd", "loc"))
    for file in (raw, header, place):
        reason = locate_file(root, file)[2]
        if reason == LEAVES:
            return _describe(root, file, LEAVES)
        if reason and file == raw:
            return _describe(root, file, reason)
        if reason and file == header:
            return _describe(root, file, NO_HEADER)
    if example.has_lesion == bool(reason):
        return _describe(root, place, NO_PLACE if example.has_lesion else NOT_LESION_FREE)
    return _describe(root, raw)


def _describe(root: Path, file: str, reason: str = "", detail: str = "") -> dict[str, Any]:
    """Make the columns `PLACE` of a row."""
    try:
        size = (root / file).lstat().st_size
    except OSError:
        size = 0
    return {"file": file, "bytes": size, "reason": reason, "detail": detail}


def _has_length_of_header(path: Path) -> bool:
    """Test whether a raw file is as long as its header says: a synthesised 2-D image of that name is not."""
    try:
        return path.stat().st_size == read_header(path.with_suffix(".mhd")).bytes
    except (OSError, UnreadableError):
        return False
