"""The patient-level split of a collection: the official one, or one by a hash of seed and patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pandas as pd

from dbtbench.data.dataset import LABELS
from dbtbench.errors import UsageError
from dbtbench.exchange.tables import Tables

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


def assign_splits(
    tables: Tables, seed: int, reserve: float = 0.0, few_lesions: int | None = None
) -> dict[str, str]:
    """Put every patient who has a volume to import into a split.

    Where the tables come in several splits, these are used. Otherwise patients are split 60 : 10 : 30 within
    each stratum (a patient's worst label). scikit-learn's stratified splitters refuse strata of one patient,
    which screening data have; here the order within a stratum is that of a hash of seed and PatientID.

    Args:
        tables: the tables.
        seed: seed of the split.
        reserve: share of the training patients of each stratum that is set aside as the split `reserve`.
        few_lesions: number of training patients with boxes that are kept, the others go to the reserve; all
            when None.

    Returns:
        `{PatientID: split}`.

    Raises:
        UsageError: when the tables put one patient into two splits, nothing would be left to train on, or
            fewer training patients have boxes than are to be kept.
    """
    if not 0 <= reserve < 1:
        raise UsageError(
            f"a reserve of {reserve} cannot be set aside", "--reserve is at least 0 and less than 1"
        )
    volumes = tables.volumes[tables.volumes["reason"] == ""]
    worst = volumes["label"].map(LABELS.index).groupby(volumes["PatientID"]).max()
    splits = _read_official(volumes) if tables.official_split else _draw_split(worst, seed)
    for _, stratum in worst.groupby(worst):
        train = _shuffle([p for p in stratum.index if splits[p] == "train"], f"reserve {seed}")
        splits |= dict.fromkeys(train[: round(reserve * len(train))], "reserve")
    if few_lesions is not None:
        with_boxes = tables.boxes.loc[tables.boxes["reason"] == "", "PatientID"].unique()
        train = _shuffle([p for p in with_boxes if splits.get(p) == "train"], f"few lesions {seed}")
        if not 1 <= few_lesions <= len(train):
            raise UsageError(
                f"{few_lesions} training patients with lesions cannot be kept, there are {len(train)}",
                "--few-lesions is at least 1 and no more than there are",
            )
        splits |= dict.fromkeys(train[few_lesions:], "reserve")
    return splits


def _read_official(volumes: pd.DataFrame) -> dict[str, str]:
    pairs = volumes[["PatientID", "split"]].drop_duplicates()
    twice = pairs[pairs["PatientID"].duplicated()]["PatientID"]
    if len(twice):
        raise UsageError(
            f"{twice.iloc[0]} is in two splits of the tables", "the tables do not belong together"
        )
    return dict(zip(pairs["PatientID"], pairs["split"], strict=True))


def _draw_split(worst: pd.Series, seed: int) -> dict[str, str]:
    splits: dict[str, str] = {}
    for _, stratum in worst.groupby(worst):
        order = _shuffle(stratum.index, seed)
        train = round(SHARES["train"] * len(order))
        test = round(SHARES["test"] * len(order))
        for rank, patient in enumerate(order):
            in_train, in_test = rank < train, rank >= len(order) - test
            splits[patient] = "train" if in_train else "test" if in_test else "validation"
    return splits


def _shuffle(patients: Iterable[str], seed: object) -> list[str]:
    return sorted(patients, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
