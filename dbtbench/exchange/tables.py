"""The tables that a reader of a collection hands to the import engine, and the checks of their rows.

A row that cannot be imported is not dropped: its `reason` and `detail` say why, and the import counts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX, SPLITS
from dbtbench.data.schema import NO_LABEL
from dbtbench.data.words import is_identifier
from dbtbench.geometry.views import VIEW_PATTERN
from dbtbench.runtime.progress import log

EXACT = 2**53
"""Whole numbers below it are the same as float64 and as int64."""
OFFICIAL = tuple(split for split in SPLITS if split != "reserve")
"""Splits that tables may name."""
NO_REASON = {"reason": "", "detail": ""}
USUAL = {"Subject": 0, "AD": 0, "VolumeSlices": np.nan}
"""Values of the columns of a box that a reader may leave out; the number of slices is then the file's."""


@dataclass(frozen=True)
class Tables:
    """Volumes and boxes of a collection, all splits together; `check_tables` makes them.

    Attributes:
        volumes: one row per volume, in the order of the store: KEY, `label` and `split` ("" where unknown),
            `file` (relative to the collection's folder) or the columns that the reader's own finder of files
            needs, `reason` and `detail` of why the row cannot be imported ("" where it can).
        boxes: one row per box: KEY, NATIVE_BOX, `reason`, `detail`. Where a cell is no number, Subject, AD
            and VolumeSlices are NaN; the other numbers are 0, with a reason.
        digest: SHA-256 over the bytes of the tables' files; another digest is another data set.
        boxes_displayed: whether boxes are in pixels of the volume as displayed, and not of the file's own
            array, which may be stored rotated by 180°.
    """

    volumes: pd.DataFrame
    boxes: pd.DataFrame
    digest: str
    boxes_displayed: bool = True

    @property
    def official_split(self) -> bool:
        """True when the tables come in several splits."""
        return bool(self.volumes["split"].nunique() > 1)


def check_tables(
    volumes: pd.DataFrame, boxes: pd.DataFrame, digest: str, boxes_displayed: bool = True
) -> Tables:
    """Check every row, and write the reason into each one that cannot be imported.

    Args:
        volumes: as in `Tables`; `split`, `reason` and `detail` may be left out.
        boxes: KEY, Slice, X, Y, Width, Height and Class, as text or numbers; `Subject`, `AD`, `VolumeSlices`,
            `reason` and `detail` may be left out.
        digest: see `Tables`.
        boxes_displayed: see `Tables`.
    """
    volumes = _fill(volumes, {"split": "", **NO_REASON})
    check_keys(volumes, "the table of volumes")
    reject_rows(volumes, ~volumes["label"].isin(LABELS), "not a label", volumes["label"])
    split = volumes["split"]
    reject_rows(volumes, (split != "").any() & ~split.isin(OFFICIAL), "not a split", split)
    reject_duplicates(volumes, [*KEY, "split"])
    boxes = _fill(boxes, {**USUAL, **NO_REASON})
    check_keys(boxes, "the table of boxes")
    return Tables(volumes, _check_boxes(boxes, volumes), digest, boxes_displayed)


def _fill(table: pd.DataFrame, usual: dict[str, float | str]) -> pd.DataFrame:
    """Number the rows and add the columns that are not there."""
    return table.reset_index(drop=True).assign(**{k: v for k, v in usual.items() if k not in table})


def reject_rows(
    table: pd.DataFrame, where: pd.Series, reason: pd.Series | str, detail: pd.Series | str
) -> None:
    """Write `reason` and `detail` where a mask holds and no reason is written yet."""
    hit = where & (table["reason"] == "")
    for column, text in (("reason", reason), ("detail", detail)):
        table.loc[hit, column] = text if isinstance(text, str) else text[hit]


def reject_duplicates(table: pd.DataFrame, columns: list[str]) -> None:
    """Reject rows that repeat one that counts; a row that does not count may be repeated."""
    repeated = table[table["reason"] == ""].duplicated(columns)
    reject_rows(table, repeated.reindex(table.index, fill_value=False), "duplicate row", "")


def check_keys(table: pd.DataFrame, name: str) -> None:
    """Read views in upper case as lower case, and reject rows whose key cannot be one.

    Args:
        table: has KEY, `reason` and `detail`; it is changed.
        name: of the table, for the notice.
    """
    for column in ("PatientID", "StudyUID"):
        wrong = ~table[column].map(is_identifier).astype(bool)
        reject_rows(table, wrong, "not an identifier", column + " " + table[column].map(repr))
    text = table["View"]
    views = text.str.strip().str.lower()
    right = views.str.fullmatch(VIEW_PATTERN)
    lowered = int((right & (views != text.str.strip())).sum())
    if lowered:
        log.info(f"{name}: {lowered} views in upper case are read as lower case")
    table["View"] = views.where(right, text)
    reject_rows(table, ~right, "not a view", text)


def _check_boxes(boxes: pd.DataFrame, volumes: pd.DataFrame) -> pd.DataFrame:
    """Turn cells into numbers, and reject rows that are no box, or no labelled volume's."""
    numbers = [column for column in NATIVE_BOX if column != "Class"]
    text = boxes[numbers].astype(str)
    cells = boxes[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    boxes[numbers] = cells.where(np.isfinite(cells))
    for reason, columns, least in (
        ("box has no position", ["Slice", "X", "Y"], -np.inf),
        ("box has no size", ["Width", "Height"], 0.0),
    ):
        right = boxes[columns] > least
        reject_rows(boxes, ~right.all(axis=1), reason, join_cells(text, columns))
        # Not NaN: one bad row would turn the whole column into floats, and change how the others are written.
        boxes[columns] = boxes[columns].where(right, 0)
    whole = [c for c in numbers if (boxes[c] % 1 == 0).all() and (boxes[c].abs() < EXACT).all()]
    boxes = boxes.astype(dict.fromkeys(whole, "int64"))
    reject_rows(boxes, ~has_key_of(boxes, volumes[volumes["reason"] != NO_LABEL], KEY), NO_LABEL, "")
    reject_duplicates(boxes, [*KEY, *NATIVE_BOX])
    return boxes[[*KEY, *NATIVE_BOX, "reason", "detail"]]


def has_key_of(table: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Find the rows of `table` whose key some row of `others` has too."""
    keys, known = (pd.MultiIndex.from_frame(frame[columns]) for frame in (table, others))
    return pd.Series(keys.isin(known), index=table.index)


def join_cells(table: pd.DataFrame, columns: Iterable[str]) -> pd.Series:
    """Write each row's cells as text: `Width 0, Height 12`."""
    parts = [f"{column} " + table[column] for column in columns]
    return parts[0].str.cat(parts[1:], sep=", ")
