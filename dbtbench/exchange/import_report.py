"""The report of an import: each row of the tables was imported, rejected for a reason, or is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import NO_LABEL, NOT_DOWNLOADED
from dbtbench.data.writer import Entry
from dbtbench.errors import MissingError

UNREAD = "its volume was rejected"
OUTSIDE = "box lies outside the volume"


def make_rejected_row(
    table: str, key: Mapping[str, Any], reason: str, detail: str, file: str = "", size: int | None = None
) -> dict[str, Any]:
    """Make a row of rejected.csv."""
    named = {name: key[name] for name in KEY}
    return {"table": table, **named, "file": file, "bytes": size, "reason": reason, "detail": detail}


def summarise_import(
    volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Mapping[int, Entry], root: Path, hint: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Count what became of each row of an import's tables.

    Args:
        volumes: one row per volume of the tables; `reason` and `detail` say why it was not read.
        boxes: one row per box of the tables.
        entries: the volumes that were read, by their row.
        root: the folder they were read from.
        hint: what to look at when nothing was imported.

    Returns:
        The import report, {rows, imported, rejected: {reason: n}, missing, boxes: {…}}, and the rows of
        rejected.csv that no entry has.

    Raises:
        MissingError: when no volume was imported.
    """
    ordered = [entries[index] for index in sorted(entries)]
    rejected = _list_rejected(volumes, boxes, ordered)
    report = _count_rows(volumes, boxes, ordered, rejected)
    _check_not_empty(report, root, hint)
    return report, rejected


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


def _check_not_empty(report: Mapping[str, Any], root: Path, hint: str) -> None:
    """Refuse to make a data set of nothing.

    Raises:
        MissingError: when no volume was imported.
    """
    if report["imported"]:
        return
    reasons = Counter(report["rejected"]) + Counter({NOT_DOWNLOADED: report["missing"]})
    most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    raise MissingError(
        f"none of the {report['rows']} volumes of {root} was imported: {most or 'the tables are empty'}",
        hint,
    )
