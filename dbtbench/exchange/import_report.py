"""The report of an import: each row of the tables was imported, rejected for a reason, or is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.data.contradictions import find_contradictions
from dbtbench.data.dataset import KEY, REJECTED_COLUMNS
from dbtbench.data.schema import NO_LABEL, NOT_DOWNLOADED
from dbtbench.data.writer import Entry
from dbtbench.errors import MissingError
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import log

UNREAD = "its volume was rejected"
OUTSIDE = "box lies outside the volume"
INSIDE = "name the real folder: no path and no link may lead out of it"
HINTS = {
    "labels are not one class": "of Normal, Actionable, Benign and Cancer one is 1, and the others are 0",
    "labels contradict each other": "leave one row per volume in the labels table",
    "no decoder is installed": "`dbtbench doctor` lists the decoders",
    "no row in the file-paths table": "labels and file-paths need the same PatientID, StudyUID and View",
    "no row in the labels table": "labels and file-paths need the same PatientID, StudyUID and View",
    "no window": "`--window none` takes the stored values as they are",
    "not a DICOM file": "were the downloads finished? compare the sizes of the files with the archive's",
    "not a label": "a label is normal, actionable, benign or cancer",
    "not a view": "a view is lcc, lmlo, rcc or rmlo, with a number or without",
    "not an identifier": "keep PatientID and StudyUID as text; a spreadsheet rounds long numbers",
    "path leaves the collection": INSIDE,
    "path leaves the folder": INSIDE,
    "several rows name this file": "give each volume its own file",
    "the process that read it died": "try again with `--jobs 1`; it may be short of memory",
}
"""Advice when nothing was imported, by the most frequent reason."""


def make_rejected_row(
    table: str, key: Mapping[str, Any], reason: str, detail: str, file: str = "", size: int | None = None
) -> dict[str, Any]:
    """Make a row of rejected.csv."""
    named = {name: key[name] for name in KEY}
    return {"table": table, **named, "file": file, "bytes": size, "reason": reason, "detail": detail}


def summarise_import(
    volumes: pd.DataFrame,
    boxes: pd.DataFrame,
    entries: Mapping[int, Entry],
    root: Path,
    hints: Mapping[str, str],
    path: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Count what became of each row of an import's tables.

    Args:
        volumes: one row per volume of the tables; `reason` and `detail` say why it was not read, `notice`,
            if there is that column, what is odd about its file.
        boxes: one row per box of the tables.
        entries: the volumes that were read, by their row.
        root: the folder they were read from.
        hints: what to look at when nothing was imported, by reason; those of `HINTS` are known.
        path: the data set's folder.

    Returns:
        The import report, {rows, imported, rejected: {reason: n}, missing, boxes: {…}, notices: {text: n}},
        and the rows of rejected.csv that no entry has.

    Raises:
        MissingError: when no volume was imported; `PATH.rejected.csv`, next to where the data set would be,
            then has a row for each.
    """
    ordered = [entries[index] for index in sorted(entries)]
    rejected = _list_rejected(volumes, boxes, ordered)
    report = _count_rows(volumes, boxes, ordered, rejected) | {"notices": _count_notices(volumes, ordered)}
    table = path.with_name(f"{path.name}.rejected.csv")
    if report["imported"]:
        for text, count in report["notices"].items():
            log.info(f"{path.name}: {count} × {text}")
        table.unlink(missing_ok=True)
        return report, rejected
    rows = [row for entry in ordered for row in entry["rejected"]] + rejected
    write_text(table, csv_text(pd.DataFrame(rows, columns=REJECTED_COLUMNS, dtype=object)))
    raise _explain_nothing(report, rows, root, {**HINTS, **hints}, table)


def _list_rejected(
    volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Iterable[Entry]
) -> list[dict[str, Any]]:
    """List the volumes that were not read and the boxes that were not imported with a volume.

    Args:
        volumes: of the tables, with their files.
        boxes: of the tables.
        entries: the volumes that were read.

    Returns:
        Rows of rejected.csv.
    """
    rows = [
        make_rejected_row(
            "file-paths" if row.reason == NO_LABEL else "labels",
            row._asdict(),
            row.reason,
            row.detail,
            row.file,
            row.bytes if row.file else None,
        )
        for row in volumes[volumes["reason"] != ""].itertuples()
    ]
    imported = {tuple(entry["case"][name] for name in KEY) for entry in entries if entry["case"]}
    absent = volumes.loc[volumes["reason"] == NOT_DOWNLOADED, KEY]
    missing = set(absent.itertuples(index=False, name=None))
    for box in boxes.to_dict("records"):
        key = tuple(box[name] for name in KEY)
        if box["reason"]:
            rows.append(make_rejected_row("boxes", box, box["reason"], box["detail"]))
        elif key not in imported:
            rows.append(make_rejected_row("boxes", box, NOT_DOWNLOADED if key in missing else UNREAD, ""))
    return rows


def _count_rows(
    volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Iterable[Entry], rejected: list[dict[str, Any]]
) -> dict[str, Any]:
    """Make the report: {rows, imported, rejected: {reason: n}, missing, boxes: {…}}."""
    all_rejected = [row for entry in entries for row in entry["rejected"]] + rejected

    def count(rows: int, imported: int, is_box: bool) -> dict[str, Any]:
        reasons = Counter(row["reason"] for row in all_rejected if (row["table"] == "boxes") == is_box)
        missing = reasons.pop(NOT_DOWNLOADED, 0)
        return {
            "rows": rows,
            "imported": imported,
            "rejected": dict(reasons.most_common()),
            "missing": missing,
        }

    report = count(len(volumes), sum(entry["case"] is not None for entry in entries), False)
    return report | {"boxes": count(len(boxes), sum(len(entry["boxes"]) for entry in entries), True)}


def _count_notices(volumes: pd.DataFrame, entries: Iterable[Entry]) -> dict[str, int]:
    """Count the imported volumes whose file, or whose label and boxes, should be looked at."""
    cases = pd.DataFrame([entry["case"] for entry in entries if entry["case"]], columns=["case", "label"])
    boxes = pd.DataFrame([box for entry in entries for box in entry["boxes"]], columns=["case", "Class"])
    notices: dict[str, int] = {}
    if "notice" in volumes:
        of_files = volumes.loc[volumes.index.isin(cases["case"]), "notice"]
        notices |= Counter(of_files[of_files != ""]).most_common()
    return notices | {text: len(found) for text, found in find_contradictions(cases, boxes).items()}


def _explain_nothing(
    report: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    root: Path,
    hints: Mapping[str, str],
    table: Path,
) -> MissingError:
    """Explain why no volume was imported: the most frequent reasons, and the first detail of the first."""
    reasons = Counter(report["rejected"]) + Counter({NOT_DOWNLOADED: report["missing"]})
    most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    reason = next(iter(reasons.most_common(1)), ("", 0))[0]
    details = (row["detail"] for row in rows if (row["reason"], row["table"] == "boxes") == (reason, False))
    first = next(filter(None, details), "")
    message = f"none of the {report['rows']} volumes of {root} was imported: {most or 'the tables are empty'}"
    hint = "; ".join(filter(None, [hints.get(reason, ""), f"row by row: {table}"]))
    return MissingError(f"{message}; the first: {first}" if first else message, hint)
