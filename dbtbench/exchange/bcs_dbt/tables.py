"""The tables of a BCS-DBT collection: which volumes there are, what they show, and where they lie.

Buda et al., JAMA Network Open 2021;4(8):e2119100; data: DOI 10.7937/E4WT-CD02. The file names drift between
releases (spaces or hyphens, `-v2`, `-PHASE-2`, `-Jan-2024`), so tables are found by keyword and split. What
is wrong with one row is written beside that row; only a table that cannot be used at all is an error.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX, SPLITS
from dbtbench.data.schema import NO_LABEL
from dbtbench.errors import MissingError, UsageError
from dbtbench.geometry.views import VIEW
from dbtbench.runtime.progress import log

CLASSES = [label.capitalize() for label in LABELS]
PATHS = ["descriptive_path", "classic_path"]
COLUMNS = {"labels": CLASSES, "file-paths": PATHS, "boxes": NATIVE_BOX}
"""The columns of each kind of table beside KEY."""
OPTIONAL = "VolumeSlices"
"""Releases before v2 lack it."""
OFFICIAL = tuple(split for split in SPLITS if split != "reserve")
SPLIT_WORDS = {**{split: split for split in OFFICIAL}, "val": "validation"}
VOLUME_COLUMNS = [*KEY, "label", "split", *PATHS, "reason", "detail"]
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}

EXACT = 2**53
"""Whole numbers below it are the same as float64 and as int64."""
IDENTIFIER = r"(?![=+\-@])[^\x00-\x1f\x7f-\x9f]+"
"""No control characters, and nothing that a spreadsheet would execute."""


@dataclass(frozen=True)
class Tables:
    """The three tables of a collection, all splits together.

    Attributes:
        volumes: one row for each row of the labels tables, in their order (train, validation, test), then one
            for each volume that only the file-paths tables name: KEY, `label` and `split` ("" where unknown),
            `descriptive_path`, `classic_path` ("" where there is none), `reason` and `detail` of why the row
            cannot be imported ("" where it can).
        boxes: one row for each row of the boxes tables: KEY, NATIVE_BOX, `reason`, `detail`. Where a cell is
            no number, Subject, AD and VolumeSlices are NaN; the other numbers are 0, with a reason.
        digest: SHA-256 over the bytes of all files.
    """

    volumes: pd.DataFrame
    boxes: pd.DataFrame
    digest: str

    @property
    def official_split(self) -> bool:
        """Whether the tables come in several splits."""
        return bool(self.volumes["split"].nunique() > 1)


def read_tables(root: Path) -> Tables:
    """Find and read the tables in `root`.

    Blank lines are no rows. Views in upper case are mended, with a notice. A split without a boxes table has
    no lesions, which a notice says as well; a split without one of the other two is an error.

    Raises:
        MissingError: when the folder or a table is not there.
        UsageError: when several files could be the same table, or one cannot be read or lacks a column.
    """
    if not root.is_dir():
        raise MissingError(
            f"{root} is not a folder", "name the folder that holds the BCS-DBT tables and images"
        )
    parts: dict[str, list[pd.DataFrame]] = {kind: [] for kind in COLUMNS}
    digest = hashlib.sha256()
    for (kind, split), path in _find(root).items():
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path.name} cannot be read: {error.strerror}", "download it again") from error
        digest.update(f"{kind} {split} {len(raw)}\n".encode() + raw)
        parts[kind].append(_parse(path.name, raw, kind).assign(split=split))
    labels, paths, boxes = (pd.concat(parts[kind], ignore_index=True) for kind in COLUMNS)
    volumes = _volumes(_judge_labels(labels), paths)
    return Tables(volumes, _judge_boxes(boxes, labels), digest.hexdigest())


def mark(table: pd.DataFrame, where: pd.Series, reason: pd.Series | str, detail: pd.Series | str) -> None:
    """Write `reason` and `detail` where a mask holds and no reason is written yet."""
    hit = where & (table["reason"] == "")
    for column, text in (("reason", reason), ("detail", detail)):
        table.loc[hit, column] = text if isinstance(text, str) else text[hit]


def _find(root: Path) -> dict[tuple[str, str], Path]:
    """The file of each (kind, split), kinds in the order of COLUMNS and splits in that of OFFICIAL."""
    candidates: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path.is_file():
            for table in _kind_and_split(path.stem):
                candidates.setdefault(table, []).append(path)
    for (kind, split), paths in candidates.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UsageError(
                f"{len(paths)} files could be the {kind} table of {split}: {names}",
                "leave one of them in the folder",
            )
    for kind in COLUMNS:
        if not any(found == kind for found, _ in candidates):
            raise MissingError(f"no {kind} table in {root}", _expected(kind, "train"))
    splits = [split for split in OFFICIAL if any(found == split for _, found in candidates)]
    for kind, split in [(k, s) for k in COLUMNS for s in splits if (k, s) not in candidates]:
        if kind != "boxes":
            raise MissingError(f"no {kind} table of the split {split} in {root}", _expected(kind, split))
        log.info(f"no boxes table of the split {split}: its volumes are taken to have no lesions")
    return {(k, s): candidates[k, s][0] for k in COLUMNS for s in splits if (k, s) in candidates}


def _kind_and_split(name: str) -> set[tuple[str, str]]:
    """What table a file's name says it is: none, one, or several where it cannot be told."""
    words = f"-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-"
    kinds = [kind for kind in COLUMNS if f"-{kind}-" in words]
    splits = {split for word, split in SPLIT_WORDS.items() if f"-{word}-" in words}
    return {(kind, split) for kind in kinds for split in splits}


def _expected(kind: str, split: str) -> str:
    return f"a file such as BCS-DBT-{kind}-{split}-v2.csv is expected there"


def decoded(name: str, raw: bytes) -> tuple[str, str]:
    """A table's text (UTF-8, else Latin-1), and what separates its cells: comma, semicolon or tab."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.info(f"{name} is not in UTF-8; it is read as Latin-1")
        text = raw.decode("latin-1")
    heading = text.lstrip().partition("\n")[0]
    return text, max(",;\t", key=heading.count)


def _parse(name: str, raw: bytes, kind: str) -> pd.DataFrame:
    """The cells of one table as text: KEY, the kind's columns, and a first `reason` and `detail`."""
    text, separator = decoded(name, raw)
    try:
        # csv, not pandas: pandas drops a whole table for one row with a cell too many.
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
        )
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{name} is not a CSV file: {error}", "download it again") from error
    header = [cell.strip() for cell in rows.pop(0)] if rows else []
    wanted = [*KEY, *COLUMNS[kind]]
    for wrong, columns in (
        ("no column", [c for c in wanted if c not in header and c != OPTIONAL]),
        ("several columns", [c for c in wanted if header.count(c) > 1]),
    ):
        if columns:
            raise UsageError(
                f"{name} has {wrong} {', '.join(columns)}", f"expected once each: {', '.join(wanted)}"
            )
    width = len(header)
    header += [OPTIONAL] * (OPTIONAL in wanted and OPTIONAL not in header)
    cells = [row[:width] + [""] * (len(header) - len(row[:width])) for row in rows]
    table = pd.DataFrame(cells, columns=header, dtype=str)[wanted].apply(lambda column: column.str.strip(" "))
    surplus = pd.Series(["".join(row[width:]).strip() for row in rows], dtype=str)
    table = table.assign(reason="", detail="")
    mark(table, surplus != "", "more cells than columns", surplus)
    _judge_key(name, table)
    return table


def _judge_key(name: str, table: pd.DataFrame) -> None:
    """Mend the case of views, and mark rows whose key cannot be one."""
    for column in ("PatientID", "StudyUID"):
        wrong = ~table[column].str.fullmatch(IDENTIFIER)
        mark(table, wrong, "not an identifier", column + " " + table[column].map(repr))
    text = table["View"]
    views = text.str.strip().str.lower()
    right = views.str.fullmatch(VIEW)
    mended = int((right & (views != text.str.strip())).sum())
    if mended:
        log.info(f"{name}: {mended} views in upper case are read as lower case")
    table["View"] = views.where(right, text)
    mark(table, ~right, "not a view", text)


def _judge_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Add `label` and mark rows that say nothing, say it twice, or contradict each other."""
    numbers = labels[CLASSES].apply(pd.to_numeric, errors="coerce").fillna(-1)
    one = numbers.isin([0, 1]).all(axis=1) & (numbers.sum(axis=1) == 1)
    labels["label"] = numbers.idxmax(axis=1).str.lower().where(one, "")
    mark(labels, ~one, "labels are not one class", _listing(labels, CLASSES))
    said = labels.drop_duplicates([*KEY, "split", "label"])
    disputed = _among(labels, said[said.duplicated([*KEY, "split"])], [*KEY, "split"])
    mark(labels, disputed, "labels contradict each other", labels["label"])
    _mark_duplicates(labels, [*KEY, "split", "label"])
    return labels


def _volumes(labels: pd.DataFrame, paths: pd.DataFrame) -> pd.DataFrame:
    paths = paths.drop_duplicates([*KEY, *PATHS])
    disputed = paths.duplicated(KEY, keep=False)
    first = paths.drop_duplicates(KEY).copy()
    mark(first, disputed, "paths contradict each other", _listing(first, PATHS))
    only = first[~_among(first, labels, KEY)]
    only = only.assign(label="", reason=NO_LABEL, detail=only["reason"])
    named = first[[*KEY, *PATHS]].assign(why=first["reason"], how=first["detail"])
    volumes = labels.merge(named, on=KEY, how="left").fillna(dict.fromkeys([*PATHS, "why", "how"], ""))
    mark(volumes, volumes["why"] != "", volumes["why"], volumes["how"])
    return pd.concat([volumes[VOLUME_COLUMNS], only[VOLUME_COLUMNS]], ignore_index=True)


def _judge_boxes(boxes: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Turn cells into numbers and mark rows that are no box, or no labelled volume's."""
    text = boxes.copy()
    numbers = [column for column in NATIVE_BOX if column != "Class"]
    cells = text[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    boxes[numbers] = cells.where(np.isfinite(cells))
    for reason, columns, least in (
        ("box has no position", ["Slice", "X", "Y"], -np.inf),
        ("box has no size", ["Width", "Height"], 0.0),
    ):
        right = boxes[columns] > least
        mark(boxes, ~right.all(axis=1), reason, _listing(text, columns))
        # Not NaN: one bad row would turn the whole column into floats, and change how the others are written.
        boxes[columns] = boxes[columns].where(right, 0)
    whole = [c for c in numbers if (boxes[c] % 1 == 0).all() and (boxes[c].abs() < EXACT).all()]
    boxes = boxes.astype(dict.fromkeys(whole, "int64"))
    mark(boxes, ~_among(boxes, labels, KEY), NO_LABEL, "")
    _mark_duplicates(boxes, [*KEY, *NATIVE_BOX])
    return boxes[[*KEY, *NATIVE_BOX, "reason", "detail"]]


def _mark_duplicates(table: pd.DataFrame, columns: list[str]) -> None:
    """Mark rows that repeat one that counts; repeating a row that does not count takes nothing away."""
    repeated = table[table["reason"] == ""].duplicated(columns)
    mark(table, repeated.reindex(table.index, fill_value=False), "duplicate row", "")


def _among(table: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Whether each row of `table` has the key of some row of `others`."""
    keys, known = (pd.MultiIndex.from_frame(frame[columns]) for frame in (table, others))
    return pd.Series(keys.isin(known), index=table.index)


def _listing(table: pd.DataFrame, columns: Iterable[str]) -> pd.Series:
    """Each row's cells as text: `Width 0, Height 12`."""
    parts = [f"{column} " + table[column] for column in columns]
    return parts[0].str.cat(parts[1:], sep=", ")


def assign_splits(tables: Tables, seed: int, reserve: float = 0.0) -> dict[str, str]:
    """Put every patient who has a volume to import into a split.

    Where the tables come in several splits, these are used. Otherwise patients are split 60 : 10 : 30 within
    each stratum (a patient's worst label). scikit-learn's stratified splitters refuse strata of one patient,
    which screening data have; here the order within a stratum is that of a hash of seed and PatientID.

    Args:
        tables: the tables.
        seed: seed of the split.
        reserve: share of the training patients of each stratum that is set aside as the split `reserve`.

    Returns:
        `{PatientID: split}`.

    Raises:
        UsageError: when the tables put one patient into two splits, or nothing would be left to train on.
    """
    if not 0 <= reserve < 1:
        raise UsageError(
            f"a reserve of {reserve} cannot be set aside", "--reserve is at least 0 and less than 1"
        )
    volumes = tables.volumes[tables.volumes["reason"] == ""]
    worst = volumes["label"].map(LABELS.index).groupby(volumes["PatientID"]).max()
    splits = _official(volumes) if tables.official_split else _drawn(worst, seed)
    for _, stratum in worst.groupby(worst):
        train = _shuffled([p for p in stratum.index if splits[p] == "train"], f"reserve {seed}")
        splits |= dict.fromkeys(train[: round(reserve * len(train))], "reserve")
    return splits


def _official(volumes: pd.DataFrame) -> dict[str, str]:
    pairs = volumes[["PatientID", "split"]].drop_duplicates()
    twice = pairs[pairs["PatientID"].duplicated()]["PatientID"]
    if len(twice):
        raise UsageError(
            f"{twice.iloc[0]} is in two splits of the tables", "the tables do not belong together"
        )
    return dict(zip(pairs["PatientID"], pairs["split"], strict=True))


def _drawn(worst: pd.Series, seed: int) -> dict[str, str]:
    splits: dict[str, str] = {}
    for _, stratum in worst.groupby(worst):
        order = _shuffled(stratum.index, seed)
        train = round(SHARES["train"] * len(order))
        test = round(SHARES["test"] * len(order))
        for rank, patient in enumerate(order):
            in_train, in_test = rank < train, rank >= len(order) - test
            splits[patient] = "train" if in_train else "test" if in_test else "validation"
    return splits


def _shuffled(patients: Iterable[str], seed: object) -> list[str]:
    return sorted(patients, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
