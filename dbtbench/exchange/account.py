"""The account of an import: what became of each row of the tables."""

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


def rejected_row(
    table: str, key: Mapping[str, Any], reason: str, detail: str, file: str = "", size: int | None = None
) -> dict[str, Any]:
    """A row of rejected.csv."""
    named = {name: key[name] for name in KEY}
    return {"table": table, **named, "file": file, "bytes": size, "reason": reason, "detail": detail}


def settle(
    volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Mapping[int, Entry], root: Path, hint: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Close an import's account.

    Args:
        volumes: one row a volume of the tables, with `reason` and `detail` of why it was not read.
        boxes: one row a box of the tables.
        entries: what was read, by its row.
        root: the folder it was read from.
        hint: what to look at when nothing was imported.

    Returns:
        The account, {rows, imported, rejected: {reason: n}, missing, boxes: {…}}, and the rows of
        rejected.csv that no entry has.

    Raises:
        MissingError: when no volume was imported.
    """
    ordered = [entries[index] for index in sorted(entries)]
    rejected = _left_out(volumes, boxes, ordered)
    account = _account_of(volumes, boxes, ordered, rejected)
    _check_some(account, root, hint)
    return account, rejected


def _left_out(volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Rows of rejected.csv for what was not even read, and for boxes without a volume that was imported.

    Args:
        volumes: what `find_files` made of the tables' volumes.
        boxes: of the tables.
        entries: what was read.
    """
    rows = [
        rejected_row(
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
            rows.append(rejected_row("boxes", box, box["reason"], box["detail"]))
        elif key not in imported:
            rows.append(rejected_row("boxes", box, NOT_DOWNLOADED if key in missing else UNREAD, ""))
    return rows


def _account_of(
    volumes: pd.DataFrame, boxes: pd.DataFrame, entries: Iterable[Entry], rejected: list[dict[str, Any]]
) -> dict[str, Any]:
    """What became of the rows of the tables: {rows, imported, rejected: {reason: n}, missing, boxes: {…}}."""
    all_rejected = [row for entry in entries for row in entry["rejected"]] + rejected

    def of(rows: int, imported: int, is_box: bool) -> dict[str, Any]:
        reasons = Counter(row["reason"] for row in all_rejected if (row["table"] == "boxes") == is_box)
        missing = reasons.pop(NOT_DOWNLOADED, 0)
        return {
            "rows": rows,
            "imported": imported,
            "rejected": dict(reasons.most_common()),
            "missing": missing,
        }

    account = of(len(volumes), sum(entry["case"] is not None for entry in entries), False)
    return account | {"boxes": of(len(boxes), sum(len(entry["boxes"]) for entry in entries), True)}


def _check_some(account: Mapping[str, Any], root: Path, hint: str) -> None:
    """Refuse to make a data set of nothing; the hint says what to look at.

    Raises:
        MissingError: when no volume was imported.
    """
    if account["imported"]:
        return
    reasons = Counter(account["rejected"]) + Counter({NOT_DOWNLOADED: account["missing"]})
    most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    raise MissingError(
        f"none of the {account['rows']} volumes of {root} was imported: {most or 'the tables are empty'}",
        hint,
    )
