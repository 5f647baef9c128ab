"""The comparison of each file's header with the row that it was found for.

A header may lack its patient, study or series, or name one that no row does: their owner renamed either. A
file is another volume's when its header names what another row has, or shows another view; and, where most
headers name what their rows do, when it names what no row does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from dbtbench.exchange.bcs_dbt.finding import SERIES_UID
from dbtbench.exchange.bcs_dbt.header_cache import Header, HeaderCache
from dbtbench.exchange.bcs_dbt.header_index import find_state, read_headers
from dbtbench.exchange.tables import reject_rows
from dbtbench.geometry.views import projection
from dbtbench.runtime.pool import Pool

PARTS = {"patient": ("patient",), "study": ("study", "study_uid"), "series": ("series",)}
"""The parts of a volume's name, and the values of a header that may have it."""
OTHER = "the file's header names another {}"
UNKNOWN = "header names a {} of no row"
SEVERAL = "header names one patient for rows of several"
STUDY_UID = r"/(\d+(?:\.\d+)+)/[^/]+/[^/]*$"
"""The study in a classic path."""

Names = Mapping[str, frozenset[str]]
"""The names of a patient, a study and a series, in keyed digests."""


def compare_files(root: Path, volumes: pd.DataFrame, pool: Pool, cache: HeaderCache) -> pd.DataFrame:
    """Reject rows whose file is another volume's, or give them the first copy that is not.

    Args:
        root: the folder of the collection.
        volumes: with their files, from `find_files`.
        pool: the workers that read headers.
        cache: of the headers that were read.

    Returns:
        The volumes, with `notice`: what is odd about a file that was not rejected ("" for most).
    """
    wanted = volumes[volumes["reason"] == ""]
    copies = {row.Index: [(row.file, row.bytes), *row.copies] for row in wanted.itertuples()}
    base = root.resolve()
    states = {file: find_state(base / file) for found in copies.values() for file, _ in found}
    headers = read_headers(base, {file: state for file, state in states.items() if state}, pool, cache)
    by_file: dict[str, Header] = dict(zip(headers["file"], headers.to_dict("records"), strict=True))
    names = _name_rows(volumes, cache)
    judge = _Judge(names.values(), [(names[i], by_file.get(found[0][0], {})) for i, found in copies.items()])
    reasons, notices = {}, {}
    for index, view in wanted["View"].items():
        verdicts = [
            judge.compare(names[index], projection(view), by_file.get(file, {})) for file, _ in copies[index]
        ]
        own = [place for place, (other, _) in enumerate(verdicts) if not other]
        if own:
            copies[index] = [copies[index][place] for place in own]
            notices[index] = verdicts[own[0]][1]
        else:
            reasons[index] = OTHER.format(verdicts[0][0])
    table = volumes.assign(notice=pd.Series(notices, volumes.index, dtype=str).fillna(""))
    if copies:
        table.loc[list(copies), ["file", "bytes"]] = [found[0] for found in copies.values()]
        table["copies"] = [tuple(copies[i][1:]) if i in copies else () for i in table.index]
    other = pd.Series(reasons, table.index, dtype=str).fillna("")
    reject_rows(table, other != "", other, "")
    renamed = table[table["notice"] == UNKNOWN.format("patient")]
    patients = renamed.groupby(renamed["file"].map(lambda file: by_file[file]["patient"]))["PatientID"]
    table.loc[renamed.index[patients.transform("nunique") > 1], "notice"] = SEVERAL
    return table


class _Judge:
    """The comparison of headers with rows, given all rows and the headers of their first files."""

    def __init__(self, rows: Collection[Names], pairs: Collection[tuple[Names, Header]]) -> None:
        self._known = {part: frozenset[str]().union(*(row[part] for row in rows)) for part in PARTS}
        self._renamed = set()
        """Parts that most headers name otherwise than any row."""
        for part in PARTS:
            both = [(row[part], _name_header(header)[part]) for row, header in pairs]
            agree = sum(bool(row & named) for row, named in both)
            unknown = sum(bool(row and named and not named & self._known[part]) for row, named in both)
            if agree <= unknown:
                self._renamed.add(part)

    def compare(self, row: Names, view: str, header: Header) -> tuple[str, str]:
        """Name the part of a header that is another volume's ("" for none), and what is odd about it."""
        named = _name_header(header)
        unlike = [part for part in PARTS if row[part] and named[part] and not row[part] & named[part]]
        for part in unlike:
            if part not in self._renamed or named[part] & self._known[part]:
                return part, ""
        if header.get("projection", "") not in ("", view):
            return "view", ""
        return "", UNKNOWN.format(unlike[0]) if unlike else ""


def _name_rows(table: pd.DataFrame, cache: HeaderCache) -> dict[int, Names]:
    """Name the patient, study and series of each row, as headers in the cache do."""
    path = table["classic_path"].str.replace("\\", "/")
    study, series = (path.str.extract(uid, expand=False).fillna("") for uid in (STUDY_UID, SERIES_UID))
    columns = (table["PatientID"], table["StudyUID"], study, series)
    rows = zip(table.index, *(column.map(cache.hide) for column in columns), strict=True)
    return {
        index: {
            "patient": frozenset({patient} - {""}),
            "study": frozenset({uid, label} - {""}),
            "series": frozenset({own} - {""}),
        }
        for index, patient, label, uid, own in rows
    }


def _name_header(header: Header) -> Names:
    return {part: frozenset(header.get(key, "") for key in keys) - {""} for part, keys in PARTS.items()}
