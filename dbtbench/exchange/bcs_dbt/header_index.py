"""Patient, study, series and view in the headers of a collection's files."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pydicom
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import BreastTomosynthesisImageStorage, DeflatedExplicitVRLittleEndian

from dbtbench.dicom.header import item_of
from dbtbench.exchange.bcs_dbt.header_cache import NAMES, Header, HeaderCache, State
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import progress

SMALLEST = 132
"""Bytes before a DICOM file's first element: the preamble and the magic word."""
SAVE_EVERY = 2000
"""Headers between two writes of the cache."""

PROJECTIONS = {
    "399162004": "cc", "R-10242": "cc", "CC": "cc",
    "399368009": "mlo", "R-10226": "mlo", "MLO": "mlo",
}  # fmt: skip
"""View codes of PS3.16 CID 4014 (SNOMED CT, and SRT as older files have it) and values of ViewPosition."""
TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyID", "StudyInstanceUID", "SeriesInstanceUID",
    "ViewPosition", "ViewCodeSequence", "ImageLaterality", "SharedFunctionalGroupsSequence",
)]  # fmt: skip
FRAMES = Tag("PerFrameFunctionalGroupsSequence")
HEADER = [*NAMES, "projection", "side"]


def read_headers(base: Path, files: Mapping[str, State], pool: Pool, cache: HeaderCache) -> pd.DataFrame:
    """Read the headers of the tomosynthesis files among some; each is read only once.

    Args:
        base: the folder, without links in its path.
        files: the files by their path relative to it, as `list_unclaimed` and `find_state` describe them.
        pool: the workers.
        cache: the headers that were read before. It is written also when the work is interrupted.

    Returns:
        One row per file: the values of `read_identity`, of which the cache has hidden `NAMES`, `file`
        (relative to `base`) and `bytes`.
    """
    known = {file: header for file, state in files.items() if (header := cache.find(file, state)) is not None}
    todo = {str(base / file): file for file in files if file not in known}
    if todo:
        try:
            with progress("read headers", len(files), "files", done=len(known)) as advance:
                for count, (path, header) in enumerate(pool.run(read_identity, list(todo)), 1):
                    if header is not None:
                        known[todo[path]] = cache.add(todo[path], files[todo[path]], header)
                    if count % SAVE_EVERY == 0:
                        cache.save()
                    advance()
        finally:
            cache.save()
    rows = [{**known[file], "file": file, "bytes": files[file][0]} for file in files if known.get(file)]
    return pd.DataFrame(rows, columns=[*HEADER, "file", "bytes"])


def read_identity(path: str) -> Header | None:
    """Read patient, study, series and view from a file's header; its pixels are not read.

    Returns:
        `patient`, `study` (StudyID), `study_uid` (StudyInstanceUID), `series` (SeriesInstanceUID),
        `instance` (SOPInstanceUID), `projection` (cc, mlo), `side` (l, r), each "" where the header has none;
        an empty dictionary for a file that is no readable Breast Tomosynthesis object; None where the disk
        fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meta = read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                return {}  # its header cannot be read without inflating all of it, to whatever size
            with Path(path).open("rb") as file:
                # Stopping before the groups of each frame, not only before the pixels, saves nearly all time.
                return _get_identity(read_partial(file, lambda tag, *_: tag >= FRAMES, specific_tags=TAGS))
    except OSError:
        return None
    except Exception:  # a broken header can raise nearly anything in the parser
        return {}


def list_unclaimed(base: Path, claimed: set[str]) -> Iterator[tuple[str, State]]:
    """Yield the files below a folder but some: path relative to `base`, and state.

    Links are not followed: a file inside the folder is found at its own place.
    """
    for where, folders, names in os.walk(base):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if name.startswith(".") or str(path) in claimed or not _is_text(str(path)):
                continue
            if state := find_state(path):
                yield path.relative_to(base).as_posix(), state


def find_state(path: Path) -> State | None:
    """Find a file's size and the time of its last change; None where there is no file that could be DICOM."""
    try:
        status = path.lstat()
    except OSError:  # gone meanwhile
        return None
    is_file = stat.S_ISREG(status.st_mode) and status.st_size > SMALLEST
    return [status.st_size, status.st_mtime_ns] if is_file else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _get_identity(ds: pydicom.Dataset) -> Header:
    if ds.get("SOPClassUID") != BreastTomosynthesisImageStorage:
        return {}
    view, shared = item_of(ds, "ViewCodeSequence"), item_of(ds, "SharedFunctionalGroupsSequence")
    codes = (view.get("CodeValue"), ds.get("ViewPosition"))
    side = item_of(shared, "FrameAnatomySequence").get("FrameLaterality") or ds.get("ImageLaterality")
    return {
        "patient": str(ds.get("PatientID") or "").strip(),
        "study": str(ds.get("StudyID") or "").strip(),
        "study_uid": str(ds.get("StudyInstanceUID") or ""),
        "series": str(ds.get("SeriesInstanceUID") or ""),
        "instance": str(ds.get("SOPInstanceUID") or ""),
        "projection": next((PROJECTIONS[str(code)] for code in codes if str(code) in PROJECTIONS), ""),
        "side": {"L": "l", "R": "r"}.get(str(side), ""),
    }
