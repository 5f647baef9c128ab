"""The tables of a BCS-DBT collection: its volumes, their labels and boxes, and the paths of their files.

Buda et al., JAMA Network Open 2021;4(8):e2119100; data: DOI 10.7937/E4WT-CD02. The file names drift between
releases (spaces or hyphens, `-v2`, `-PHASE-2`, `-Jan-2024`), so tables are found by keyword and split. A
row that is wrong gets a reason; only a table that cannot be used at all is an error.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX
from dbtbench.data.schema import NO_LABEL
from dbtbench.data.words import is_identifier
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.csv_columns import TRUTH, read_bytes, read_rows
from dbtbench.exchange.tables import (
    OFFICIAL,
    Tables,
    check_keys,
    check_tables,
    has_key_of,
    join_cells,
    reject_duplicates,
    reject_rows,
)
from dbtbench.runtime.progress import log

CLASSES = [label.capitalize() for label in LABELS]
PATHS = ["descriptive_path", "classic_path"]
COLUMNS = {"labels": CLASSES, "file-paths": PATHS, "boxes": NATIVE_BOX, "axes": AXIS_COLUMNS}
"""The columns of each kind of table, besides KEY. The phantom has the fourth."""
RELEASED = ("labels", "file-paths", "boxes")
"""The kinds that real releases have."""
OPTIONAL = {"boxes": ["VolumeSlices"], "axes": AXIS_COLUMNS}
"""Columns that a table may lack: those of boxes before v2 have no `VolumeSlices`."""
SPLIT_WORDS = {**{split: split for split in OFFICIAL}, "val": "validation"}
VOLUME_COLUMNS = [*KEY, "label", "split", *PATHS, "reason", "detail"]


def read_tables(root: Path) -> Tables:
    """Find and read the tables in `root`.

    Blank lines are no rows. Views in upper case are read as lower case, with a notice. A split without a
    boxes table has no lesions; a notice says so. A split without one of the other two is an error.

    Returns:
        Volumes: a row for each row of the labels tables (train, validation, test), then one for each volume
        that only the file-paths tables name, with `descriptive_path` and `classic_path` ("" where there is
        none). Boxes: a row for each row of the boxes tables.

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
    for (kind, split), path in _find_tables(root).items():
        raw = read_bytes(path)
        digest.update(f"{kind} {split} {len(raw)}\n".encode() + raw)
        table = read_rows(path.name, raw, [*KEY, *COLUMNS[kind]], OPTIONAL.get(kind, ()))
        check_keys(table, path.name)
        parts[kind].append(table.assign(split=split))
    labels, paths, boxes = (pd.concat(parts[kind], ignore_index=True) for kind in RELEASED)
    volumes = _join_paths(_check_labels(labels), paths)
    if parts["axes"]:
        volumes = _join_axes(volumes, pd.concat(parts["axes"], ignore_index=True))
    return check_tables(volumes, boxes, digest.hexdigest())


def _find_tables(root: Path) -> dict[tuple[str, str], Path]:
    """Find the file of each (kind, split), kinds in the order of COLUMNS and splits in that of OFFICIAL."""
    candidates: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path.is_file():
            for table in _guess_kind_and_split(path.stem):
                candidates.setdefault(table, []).append(path)
    for (kind, split), paths in candidates.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UsageError(
                f"{len(paths)} files could be the {kind} table of {split}: {names}",
                "leave one of them in the folder",
            )
    for kind in RELEASED:
        if not any(found == kind for found, _ in candidates):
            raise MissingError(f"no {kind} table in {root}", _hint_at_name(kind, "train"))
    splits = [split for split in OFFICIAL if any(found == split for _, found in candidates)]
    for split in splits:
        for kind in ("labels", "file-paths"):
            if (kind, split) not in candidates:
                raise MissingError(
                    f"no {kind} table of the split {split} in {root}", _hint_at_name(kind, split)
                )
    for split in [split for split in splits if ("boxes", split) not in candidates]:
        log.info(f"no boxes table of the split {split}: its volumes are taken to have no lesions")
    return {(k, s): candidates[k, s][0] for k in COLUMNS for s in splits if (k, s) in candidates}


def _guess_kind_and_split(name: str) -> set[tuple[str, str]]:
    """Guess from a file's name which table it is: none, one, or several where the name is ambiguous."""
    words = f"-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-"
    kinds = [kind for kind in COLUMNS if f"-{kind}-" in words]
    splits = {split for word, split in SPLIT_WORDS.items() if f"-{word}-" in words}
    return {(kind, split) for kind in kinds for split in splits}


def _hint_at_name(kind: str, split: str) -> str:
    return f"a file such as BCS-DBT-{kind}-{split}-v2.csv is expected there"


def _check_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Add `label`, and reject rows that name no class or several, are repeated, or contradict each other."""
    cells = labels[CLASSES].map(lambda cell: TRUTH.get(cell.lower(), cell.replace(",", ".")))
    numbers = cells.apply(pd.to_numeric, errors="coerce").fillna(-1)
    one = numbers.isin([0, 1]).all(axis=1) & (numbers.sum(axis=1) == 1)
    labels["label"] = numbers.idxmax(axis=1).str.lower().where(one, "")
    reject_rows(labels, ~one, "labels are not one class", join_cells(labels, CLASSES))
    distinct = labels.drop_duplicates([*KEY, "split", "label"])
    disputed = has_key_of(labels, distinct[distinct.duplicated([*KEY, "split"])], [*KEY, "split"])
    reject_rows(labels, disputed, "labels contradict each other", labels["label"])
    reject_duplicates(labels, [*KEY, "split", "label"])
    return labels


def _join_paths(labels: pd.DataFrame, paths: pd.DataFrame) -> pd.DataFrame:
    """Give every labelled volume its paths, and add the volumes that only the paths name."""
    paths = paths.drop_duplicates([*KEY, *PATHS])
    disputed = paths.duplicated(KEY, keep=False)
    first = paths.drop_duplicates(KEY).copy()
    reject_rows(first, disputed, "paths contradict each other", join_cells(first, PATHS))
    only = first[~has_key_of(first, labels, KEY)]
    only = only.assign(label="", reason=NO_LABEL, detail=only["reason"])
    named = first[[*KEY, *PATHS]].assign(why=first["reason"], how=first["detail"])
    volumes = labels.merge(named, on=KEY, how="left").fillna(dict.fromkeys([*PATHS, "why", "how"], ""))
    reject_rows(volumes, volumes["why"] != "", volumes["why"], volumes["how"])
    return pd.concat([volumes[VOLUME_COLUMNS], only[VOLUME_COLUMNS]], ignore_index=True)


def _join_axes(volumes: pd.DataFrame, axes: pd.DataFrame) -> pd.DataFrame:
    """Give every volume its axes: texts that could be identifiers, finite numbers, and None for the rest."""
    axes = axes[axes["reason"] == ""].drop_duplicates(KEY)[[*KEY, *AXIS_COLUMNS]]
    joined = volumes.merge(axes, on=KEY, how="left")
    for name in AXIS_COLUMNS:
        cells = joined[name]
        if name not in ("breast_density", "lesion_kind"):
            cells = pd.to_numeric(cells, errors="coerce").astype(float)
            right = np.isfinite(cells)
        else:
            right = cells.map(lambda cell: isinstance(cell, str) and is_identifier(cell)).astype(bool)
        joined[name] = cells.astype(object).where(right, None)
    return joined
