"""The files of a collection's volumes, found by the paths in the tables, else by the files' headers.

The tables name each file twice, for the two layouts that the archive's downloader offers, and the downloader
puts everything below a folder `manifest-NUMBER`. In its descriptive layout a series folder is called
`20566.000000-32081` in one place and `20566.000000-NA-32081` in the other.
"""

from __future__ import annotations

import errno
import functools
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.errors import UnreadableError
from dbtbench.exchange.bcs_dbt.header_cache import HeaderCache
from dbtbench.exchange.bcs_dbt.header_index import list_unclaimed, read_headers
from dbtbench.exchange.bcs_dbt.tables import PATHS
from dbtbench.exchange.locating import reject_shared_files
from dbtbench.exchange.tables import reject_rows
from dbtbench.geometry.views import VIEW_PATTERN, laterality, projection
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import log, progress

LEAVES = "path leaves the collection"
AMBIGUOUS = "several files could be this volume"

SERIES = re.compile(r"(?<=\.000000-)(NA-)?")
SERIES_UID = r"/(\d+(?:\.\d+)+)/[^/]*$"
"""The series in a classic path: PATIENT/StudyInstanceUID/SeriesInstanceUID/1-1.dcm."""
Groups = Mapping[Any, Sequence[int]]
"""Indices of rows or of files, by a key that they share."""
NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
"""Numbers of the errors for a file that is not there."""


def find_files(root: Path, volumes: pd.DataFrame, pool: Pool, cache: HeaderCache) -> pd.DataFrame:
    """Find the file of every volume, and its copies.

    A row's file is the first that exists of its descriptive and its classic path, each below `root`, below a
    `manifest-*` folder in it, and, where `root` is the path's own first folder, in it; the others are copies.
    Rows without one are looked up in the headers of the files that no row names: by the series in their
    classic path, else by PatientID, StudyUID and view. The side in the headers is trusted only in studies
    whose files show both: in BCS-DBT it reads L on right breasts too.

    Args:
        root: the folder that the paths are relative to.
        volumes: `Tables.volumes`.
        pool: the workers that read headers.
        cache: of the headers that were read.

    Returns:
        The volumes with `file` (relative to `root`, with forward slashes; "" where there is none), `bytes`
        (-1 where there is none) and `copies` (file and bytes of each other copy); `reason` and `detail` are
        filled in where none was given before.
    """
    folder = _Folder(root.resolve())
    found = []
    with progress("find files", len(volumes), "rows") as advance:
        for texts in zip(*(volumes[name] for name in PATHS), strict=True):
            found.append(_locate(folder, texts))
            advance()
    table = volumes.assign(
        **{name: [getattr(f, name) for f in found] for name in ("file", "bytes", "copies")}
    )
    why, how = (pd.Series([f[k] for f in found], volumes.index, dtype=str) for k in (2, 3))
    reject_rows(table, why != "", why, how)
    reject_shared_files(table)
    if ((table["reason"] == "") & (table["file"] == "")).any():
        claimed = {path for f in found for path in f.claimed}
        headers = read_headers(folder.base, dict(list_unclaimed(folder.base, claimed)), pool, cache)
        before = (table["file"] != "").sum()
        _match_headers(table, headers, cache)
        if len(headers):
            matched = (table["file"] != "").sum() - before
            log.info(f"{len(headers)} files that no row names: {matched} found their row by their headers")
        missing = table["file"] == ""
        reject_rows(table, missing & (table[PATHS] == "").all(axis=1), "no row in the file-paths table", "")
        reject_rows(table, missing, NOT_DOWNLOADED, "")
    return table


class _Entry(NamedTuple):
    """A real path, and the size of the file there (-1 where it is no file)."""

    path: str
    bytes: int


class _Folder:
    """The collection's folder, which no path may leave; every folder in it is read once."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._prefixes = [(), *((path.name,) for path in sorted(base.glob("manifest-*")))]
        self._step = functools.cache(self._look)

    def candidates(self, text: str) -> Iterator[_Entry]:
        """Yield all files that a path of the tables can mean, the likeliest first.

        Raises:
            UnreadableError: when the path or a link in it leads out of the folder, or cannot be followed.
        """
        slashed = text.replace("\\", "/")
        parts = tuple(part for part in slashed.split("/") if part not in ("", "."))
        if slashed.startswith("/") or ".." in parts or re.match("[A-Za-z]:", slashed):
            raise UnreadableError(LEAVES, text)
        spellings = [parts]
        if len(parts) > 1 and (gap := SERIES.search(parts[-2])):
            other = parts[-2][: gap.start()] + ("" if gap[1] else "NA-") + parts[-2][gap.end() :]
            spellings.append((*parts[:-2], other, parts[-1]))
        for spelling in spellings:
            within = [spelling[1:]] if spelling[:1] == (self.base.name,) else []
            for path in [*(prefix + spelling for prefix in self._prefixes), *within]:
                entry = self._walk(path)
                if entry is not None and entry.bytes >= 0:
                    yield entry

    def _walk(self, parts: tuple[str, ...]) -> _Entry | None:
        entry: _Entry | None = _Entry(str(self.base), -1)
        for part in parts:
            if entry is None:
                break
            entry = self._step(entry.path, part)
        return entry

    def _look(self, folder: str, name: str) -> _Entry | None:
        path = Path(folder, name)
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                path = path.resolve(strict=True)
                status = path.stat()
        except (ValueError, RuntimeError):  # a NUL byte, no such characters in file names; links in a circle
            return None
        except OSError as error:
            if error.errno in NOWHERE:
                return None
            raise UnreadableError("file cannot be reached", error.strerror or "") from error
        if not path.is_relative_to(self.base):
            raise UnreadableError(LEAVES, f"{name} is a link out")
        return _Entry(str(path), status.st_size if stat.S_ISREG(status.st_mode) else -1)


class _Located(NamedTuple):
    """A row's file, its size and its copies, or why there is none; and all that the row's paths lead to."""

    file: str
    bytes: int
    reason: str
    detail: str
    claimed: list[str]
    copies: tuple[tuple[str, int], ...] = ()


def _locate(folder: _Folder, texts: Sequence[str]) -> _Located:
    entries: list[_Entry] = []
    try:
        for text in filter(None, texts):
            # All of them, not the first: a copy in the other layout must not be taken for another row's file.
            entries += folder.candidates(text)
    except UnreadableError as error:
        return _Located("", -1, error.reason, error.detail, [entry.path for entry in entries])
    if not entries:
        return _Located("", -1, "", "", [])
    found = dict.fromkeys(entries)
    (file, size), *others = ((Path(e.path).relative_to(folder.base).as_posix(), e.bytes) for e in found)
    return _Located(file, size, "", "", [entry.path for entry in entries], tuple(others))


def _match_headers(table: pd.DataFrame, headers: pd.DataFrame, cache: HeaderCache) -> None:
    """Give rows without a file the one file of their series, or of their patient, study and view."""
    # Rejected rows count too: their files may be there and must not be taken for another row's.
    lost = table[(table["file"] == "") & table["View"].str.fullmatch(VIEW_PATTERN)]
    lost = lost.sort_values("reason", kind="stable").drop_duplicates(KEY)
    lost = lost.assign(**{name: lost[name].map(cache.hide) for name in ("PatientID", "StudyUID")})
    series = table["classic_path"].str.extract(SERIES_UID, expand=False).fillna("").map(cache.hide)
    # A copy of another row's file must not be taken for this one's, so a series names its row alone.
    named = headers["series"].isin(set(series) - {""})
    by_series = lost[series[lost.index].isin(set(headers["series"]) - {""})]
    rows, files = by_series.groupby(series).groups, headers[named].groupby("series").groups
    _assign_files(table, headers, rows, files)
    lost, headers = lost.drop(index=by_series.index), headers[~named].reset_index(drop=True)
    _assign_files(table, headers, *_group_by_view(lost, headers))


def _group_by_view(lost: pd.DataFrame, headers: pd.DataFrame) -> tuple[Groups, Groups]:
    """Group rows and files by patient, study, projection and, where it is known, side."""
    headers = _add_keys(headers, lost)
    sides = headers[headers["side"] != ""].groupby(["patient", "study"])["side"].nunique()
    trusted = set(sides.index[sides == 2])
    views = {"projection": lost["View"].map(projection), "side": lost["View"].map(laterality)}
    rows = _group(lost.assign(patient=lost["PatientID"], study=lost["StudyUID"], **views), trusted)
    return rows, _group(headers, trusted)


def _assign_files(table: pd.DataFrame, headers: pd.DataFrame, rows: Groups, files: Groups) -> None:
    """Give a file to its row where a group has one of each; reject the rows of a group that has more.

    Files with one SOPInstanceUID are copies of one.
    """
    details = pd.Series("", table.index, dtype=str)
    names = list(zip(headers["file"], headers["bytes"], strict=True))
    instances = headers["instance"].tolist()
    matches = {}
    for key in rows.keys() & files.keys():
        same = {instances[index] for index in files[key]}
        if len(rows[key]) == 1 and (len(files[key]) == 1 or (len(same) == 1 and "" not in same)):
            matches[rows[key][0]] = [names[index] for index in files[key]]
        else:
            details[rows[key]] = f"{len(rows[key])} rows, {len(files[key])} files"
    if matches:
        table.loc[list(matches), ["file", "bytes"]] = [copies[0] for copies in matches.values()]
        others = {row: tuple(copies[1:]) for row, copies in matches.items()}
        table["copies"] = [others.get(row, copies) for row, copies in table["copies"].items()]
    reject_rows(table, details != "", AMBIGUOUS, details)


def _group(frame: pd.DataFrame, trusted: set[tuple[str, str]]) -> Groups:
    """Group indices by patient, study, projection, and by side in studies where it is trusted."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    columns = (frame[name] for name in ("patient", "study", "projection", "side"))
    for index, patient, study, shows, side in zip(frame.index, *columns, strict=True):
        groups[patient, study, shows, side if (patient, study) in trusted else ""].append(index)
    return groups


def _add_keys(headers: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """Add `study` as the tables name it, and `patient` from the study where the header has none."""
    patients = lost.drop_duplicates(["PatientID", "StudyUID"]).drop_duplicates("StudyUID", keep=False)
    patient_of = patients.set_index("StudyUID")["PatientID"]
    study = headers["study"].where(headers["study"].isin(lost["StudyUID"]), headers["study_uid"])
    patient = headers["patient"].where(headers["patient"] != "", study.map(patient_of).fillna(""))
    return headers.assign(study=study, patient=patient)
