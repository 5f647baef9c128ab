"""The tables of a BCS-DBT collection: which volumes there are, what they show, and where they lie.

Buda et al., JAMA Network Open 2021;4(8):e2119100; data: DOI 10.7937/E4WT-CD02. The file names drift between
releases (spaces or hyphens, `-v2`, `-PHASE-2`, `-Jan-2024`), so tables are found by keyword and split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from dbtbench.data.dataset import KEY, LABELS, SPLITS
from dbtbench.errors import MissingError, UsageError

KEYWORDS = {"paths": "file-paths", "labels": "labels", "boxes": "boxes"}
COLUMNS = {
    "paths": [*KEY, "descriptive_path", "classic_path"],
    "labels": [*KEY, *(label.capitalize() for label in LABELS)],
    "boxes": [*KEY, "Subject", "Slice", "X", "Y", "Width", "Height", "Class", "AD"],
}
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


@dataclass(frozen=True)
class Tables:
    """The three tables of a collection, all splits together.

    Attributes:
        labels: one row a volume, in the order of the files: KEY, `label`, `split` (of the file's name).
        paths: KEY, `descriptive_path`, `classic_path`.
        boxes: one row a lesion, with `VolumeSlices` (NaN where the release lacks it).
        digest: SHA-256 over the bytes of all files.
    """

    labels: pd.DataFrame
    paths: pd.DataFrame
    boxes: pd.DataFrame
    digest: str

    @property
    def official_split(self) -> bool:
        """Whether the tables come in several splits."""
        return len(set(self.labels["split"])) > 1


def read_tables(root: Path) -> Tables:
    """Find and read the tables in `root`.

    Raises:
        MissingError: when the folder or one of the three tables is not there.
        UsageError: when two files could be the same table, a column is missing, or a label is not one-hot.
    """
    if not root.is_dir():
        raise MissingError(
            f"{root} is not a folder", "name the folder that holds the BCS-DBT tables and images"
        )
    files = {kind: _find(root, kind) for kind in KEYWORDS}
    tables = {kind: _read(kind, found) for kind, found in files.items()}
    digest = hashlib.sha256()
    for found in files.values():
        for path in found.values():
            digest.update(path.read_bytes())
    labels = tables["labels"]
    labels["label"] = _labels(labels)
    boxes = tables["boxes"]
    if "VolumeSlices" not in boxes:
        boxes["VolumeSlices"] = float("nan")
    return Tables(labels[[*KEY, "label", "split"]], tables["paths"], boxes, digest.hexdigest())


def _find(root: Path, kind: str) -> dict[str, Path]:
    """The files of one table by split."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("*.csv")):
        name = path.stem.lower().replace(" ", "-").replace("_", "-")
        split = next((s for s in SPLITS if f"-{s}" in name), None)
        if f"-{KEYWORDS[kind]}-" not in f"-{name}-" or split is None:
            continue
        if split in found:
            raise UsageError(
                f"two {KEYWORDS[kind]} tables of {split}: {found[split].name} and {path.name}",
                "move one of them out of the folder",
            )
        found[split] = path
    if not found:
        raise MissingError(
            f"no {KEYWORDS[kind]} table in {root}",
            f"a file such as BCS-DBT-{KEYWORDS[kind]}-train-v2.csv is expected there",
        )
    return found


def _read(kind: str, files: dict[str, Path]) -> pd.DataFrame:
    parts = []
    for split, path in files.items():
        try:
            part = pd.read_csv(
                path, dtype=dict.fromkeys([*KEY, "descriptive_path", "classic_path", "Class"], str)
            )
        except (ValueError, UnicodeDecodeError) as error:
            raise UsageError(f"{path.name} cannot be read: {error}", "download it again") from error
        missing = [name for name in COLUMNS[kind] if name not in part]
        if missing:
            raise UsageError(
                f"{path.name} has no column {', '.join(missing)}", f"expected: {', '.join(COLUMNS[kind])}"
            )
        part["View"] = part["View"].str.strip().str.lower()
        parts.append(part.assign(split=split))
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


def _labels(table: pd.DataFrame) -> pd.Series:
    columns = COLUMNS["labels"][len(KEY) :]
    wrong = table[(table[columns].sum(axis=1) != 1) | ~table[columns].isin([0, 1]).all(axis=1)]
    if len(wrong):
        row = wrong.iloc[0]
        raise UsageError(
            f"the labels of {row.PatientID} {row.StudyUID} {row.View} are not one class",
            "one of Normal, Actionable, Benign, Cancer must be 1 and the others 0",
        )
    return table[columns].idxmax(axis=1).str.lower()


def assign_splits(tables: Tables, seed: int) -> dict[str, str]:
    """Put every patient into train, validation or test.

    Where the tables come in several splits, these are used. Otherwise patients are split 60 : 10 : 30 within
    each stratum (a patient's worst label). scikit-learn's stratified splitters refuse strata of one patient,
    which screening data have; here the order within a stratum is that of a hash of seed and PatientID.

    Args:
        tables: the tables.
        seed: seed of the split.

    Returns:
        `{PatientID: split}`.

    Raises:
        UsageError: when the tables put one patient into two splits.
    """
    labels = tables.labels
    if tables.official_split:
        pairs = labels[["PatientID", "split"]].drop_duplicates()
        twice = pairs[pairs["PatientID"].duplicated()]["PatientID"]
        if len(twice):
            raise UsageError(
                f"{twice.iloc[0]} is in two splits of the tables", "the tables do not belong together"
            )
        return dict(zip(pairs["PatientID"], pairs["split"], strict=True))
    worst = labels["label"].map(LABELS.index).groupby(labels["PatientID"]).max()
    splits: dict[str, str] = {}
    for _, stratum in worst.groupby(worst):
        order = sorted(stratum.index, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
        train = round(SHARES["train"] * len(order))
        test = round(SHARES["test"] * len(order))
        for rank, patient in enumerate(order):
            in_train, in_test = rank < train, rank >= len(order) - test
            splits[patient] = "train" if in_train else "test" if in_test else "validation"
    return splits


def locate(root: Path, *candidates: object) -> Path | None:
    """The first of a volume's paths that exists under `root`.

    Raises:
        ValueError: when a path leads out of `root` (absolute, `..`, or a link out).
    """
    base = root.resolve()
    for text in candidates:
        if not isinstance(text, str) or not text.strip():
            continue
        relative = PurePosixPath(text.strip())
        if relative.is_absolute() or PureWindowsPath(text).is_absolute():
            raise ValueError("path leaves the collection")
        path = (base / relative).resolve()
        if not path.is_relative_to(base):
            raise ValueError("path leaves the collection")
        if path.is_file():
            return path
    return None
