"""The tables of volumes that were made elsewhere: their files, views, labels and boxes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.dataset import GRID_BOX, KEY, LABELS
from dbtbench.data.words import is_identifier
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.csv_columns import TRUTH, read_bytes, read_rows
from dbtbench.exchange.import_report import UNREAD
from dbtbench.exchange.locating import locate_file
from dbtbench.exchange.tables import reject_rows
from dbtbench.exchange.volumes.arrays import SUFFIXES
from dbtbench.geometry.views import VIEW_PATTERN

NATIVE = ["Slice", "X", "Y", "Width", "Height"]
OF_VOLUME = [*KEY, "label", "split", "derived"]
"""Columns of the table of volumes that may be missing."""
OF_BOX = ["AD", *GRID_BOX, *NATIVE]
"""Columns of the table of boxes that may be missing; it has one of the two kinds of places."""
VIEW_WORD = re.compile(r"(?<![a-z])(?:lcc|lmlo|rcc|rmlo)(?![a-z])")
HELD_OUT = "not of the training split"


@dataclass(frozen=True)
class SampleTables:
    """Volumes and boxes that are to be imported.

    Attributes:
        volumes: one row per volume: KEY, `file` (relative to the folder), `bytes` (-1 where there is none),
            `label`, and `reason` and `detail` of why it cannot be imported ("" where it can).
        boxes: one row per box: KEY and number (`volume`) of its volume's row, its numbers (`GRID_BOX` in
            voxels of the file's array, or `NATIVE` in its pixels), `Class`, `AD`, `text` (the numbers as they
            stand), `reason`, `detail`.
        digests: SHA-256 of each table's file.
        derived: whether a cell `derived` says that these are changed training volumes, as in an export of
            some.
    """

    volumes: pd.DataFrame
    boxes: pd.DataFrame
    digests: dict[str, str]
    derived: bool = False


def read_sample_tables(
    root: Path, name: str, boxes: Path | None = None, cases: Path | None = None
) -> SampleTables:
    """Find the volumes below a folder, and read the tables about them.

    Without a table of volumes there is one for each file with a known suffix, in the order of their paths.
    Where no view is given, it is the last of the words lcc, lmlo, rcc and rmlo in the file's path; where no
    label is given, it is the worst class of the volume's boxes, else normal.

    Args:
        root: the folder.
        name: of the data set: `NAME-000012` is the patient of a volume without a PatientID.
        boxes: the table of boxes, relative to here or to `root`; `root/boxes.csv` when None.
        cases: the table of volumes, relative to here or to `root`; `root/volumes.csv` when None.

    Raises:
        MissingError: when the folder, or a table that is named, is not there, or there is no volume.
        UsageError: when a table cannot be read or lacks a column.
    """
    if not root.is_dir():
        raise MissingError(f"{root} is not a folder", "name the folder that holds the volumes")
    cases, boxes = _find_table(root, cases, "volumes.csv"), _find_table(root, boxes, "boxes.csv")
    named = _list_files(root)
    if cases:
        named = read_rows(cases.name, read_bytes(cases), ["file", *OF_VOLUME], OF_VOLUME).to_dict("records")
    if not named:
        known = ", ".join((".dcm", *SUFFIXES))
        raise MissingError(f"no volume in {cases or root}", f"files that are read: {known}")
    volumes = pd.DataFrame([_make_row(root, name, index, given) for index, given in enumerate(named)])
    for columns, reason in (
        (["file"], "duplicate row"),
        (KEY, "another volume has its patient, study, view"),
    ):
        repeated = volumes[volumes["reason"] == ""].duplicated(columns)
        reject_rows(volumes, repeated.reindex(volumes.index, fill_value=False), reason, volumes["file"])
    table = _make_empty_boxes()
    if boxes:
        rows = read_rows(boxes.name, read_bytes(boxes), ["file", "Class", *OF_BOX], OF_BOX)
        table = _check_boxes(rows, boxes, volumes)
    good = table[table["reason"] == ""]
    worst = {volume: max(found, key=LABELS.index) for volume, found in good.groupby("volume")["Class"]}
    volumes["label"] = [label or worst.get(index, LABELS[0]) for index, label in enumerate(volumes["label"])]
    files = [path for path in (cases, boxes) if path]
    digests = {path.name: hashlib.sha256(read_bytes(path)).hexdigest() for path in files}
    derived = any(_read_truth(row.get("derived", "")) in ("1", "yes") for row in named)
    return SampleTables(volumes, table, digests, derived)


def _find_table(root: Path, given: Path | None, usual: str) -> Path | None:
    """Find the table that is meant; None if there is none."""
    if given is None:
        return root / usual if (root / usual).is_file() else None
    for path in (given, root / given):
        if path.is_file():
            return path
    raise MissingError(f"no table {given}", f"it is looked for here and in {root}")


def _read_truth(cell: str) -> str:
    """Write the words of `TRUTH` as 1 and 0, and any other in lower case."""
    return TRUTH.get(cell.lower(), cell.lower())


def _list_files(root: Path) -> list[dict[str, str]]:
    """List the files below a folder that may be volumes, by path."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [
        {"file": file}
        for file in sorted(path.as_posix() for path in found if not _is_hidden(path))
        if file.lower().endswith((".dcm", *SUFFIXES))
    ]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _make_row(root: Path, name: str, index: int, given: Mapping[str, str]) -> dict[str, Any]:
    """Make one row of `SampleTables.volumes`."""
    file, size, reason = locate_file(root, given["file"])
    words = VIEW_WORD.findall(file.lower())
    view = given.get("View", "").lower() or (words[-1] if words else "")
    patient = given.get("PatientID", "") or f"{name}-{index:06d}"
    label, split = given.get("label", "").lower(), given.get("split", "").lower()
    study = given.get("StudyUID", "") or patient
    wrong = next((repr(text) for text in (patient, study) if not is_identifier(text)), "")
    problems = [
        (bool(given.get("reason")), given.get("reason", ""), given.get("detail", "")),
        (reason != "", reason, given["file"]),
        (wrong != "", "not an identifier", wrong),
        (view == "", "no view in the name", file),
        (not re.fullmatch(VIEW_PATTERN, view), "not a view", view),
        (label not in ("", *LABELS), "not a label", label),
        (split not in ("", "train"), HELD_OUT, split),
    ]
    reason, detail = next(((why, what) for wrong, why, what in problems if wrong), ("", ""))
    key = dict(zip(KEY, (patient, study, view), strict=True))
    return {**key, "file": file, "bytes": size, "label": label, "reason": reason, "detail": detail}


def _make_empty_boxes() -> pd.DataFrame:
    return pd.DataFrame(columns=[*KEY, "volume", "Class", "reason", "detail"], dtype=object)


def _check_boxes(table: pd.DataFrame, path: Path, volumes: pd.DataFrame) -> pd.DataFrame:
    """Find the volume of each box, and reject rows that are no box."""
    columns = next((form for form in (GRID_BOX, NATIVE) if set(form) <= set(table.columns)), None)
    if columns is None:
        raise UsageError(
            f"{path.name} has no columns for the place of a box",
            f"needed: {', '.join(GRID_BOX)}; or {', '.join(NATIVE)}",
        )
    numbers = table[columns].apply(pd.to_numeric, errors="coerce").astype(float)
    owners = _find_owners(table["file"], volumes)
    rows = volumes[KEY].reindex([volume for volume, _ in owners]).fillna("").reset_index(drop=True)
    classes = table["Class"].str.lower()
    distorted = 0
    if "AD" in table:
        distorted = pd.to_numeric(table["AD"].map(_read_truth), errors="coerce").fillna(0)
    boxes = rows.assign(
        volume=[volume for volume, _ in owners],
        **numbers,
        Class=classes,
        AD=distorted,
        text=[", ".join(cells) for cells in table[columns].itertuples(index=False)],
        reason=table["reason"],
        detail=table["detail"],
    )
    lost = pd.Series([reason for _, reason in owners], dtype=str)
    reject_rows(boxes, lost != "", lost, table["file"])
    reject_rows(boxes, ~np.isfinite(numbers).all(axis=1), "box has no position", boxes["text"])
    reject_rows(boxes, ~_have_sizes(numbers), "box has no size", boxes["text"])
    reject_rows(boxes, ~classes.isin(LABELS), "not a class", classes)
    refused = boxes["volume"].isin(volumes.index[volumes["reason"] != ""])
    reject_rows(boxes, refused, UNREAD, table["file"])
    return boxes


def _have_sizes(numbers: pd.DataFrame) -> pd.Series:
    """Find the boxes that have a size along every axis they name."""
    if "Width" in numbers:
        return (numbers[["Width", "Height"]] > 0).all(axis=1)
    low, high = numbers[GRID_BOX[:3]].to_numpy(), numbers[GRID_BOX[3:]].to_numpy()
    return pd.Series((low < high).all(axis=1), index=numbers.index)


def _find_owners(files: Iterable[str], volumes: pd.DataFrame) -> list[tuple[int, str]]:
    """Find each box's volume by the path, or the file name, that the box gives; else -1 and the reason."""
    by_path = {file: index for index, file in reversed(list(volumes["file"].items()))}
    by_name: dict[str, list[int]] = {}
    for file, index in by_path.items():
        by_name.setdefault(PurePosixPath(file).name, []).append(index)
    owners = []
    for text in files:
        named = PurePosixPath(text.replace("\\", "/")).as_posix()
        found = [by_path[named]] if named in by_path else by_name.get(named, [])
        if len(found) == 1:
            owners.append((found[0], ""))
        else:
            owners.append((-1, "several volumes have this name" if found else "no such volume"))
    return owners
