from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import KEY, LABELS
from dbtbench.errors import UsageError
from dbtbench.exchange.splits import assign_splits
from dbtbench.exchange.tables import Tables


def tables_of(labels: dict[str, str], split: str = "train") -> Tables:
    rows = [(p, "S", "lcc", label, split, "", "", "", "") for p, label in labels.items()]
    columns = [*KEY, "label", "split", "descriptive_path", "classic_path", "reason", "detail"]
    return Tables(pd.DataFrame(rows, columns=columns), pd.DataFrame(), "")


def together(*tables: Tables) -> Tables:
    return Tables(pd.concat([t.volumes for t in tables], ignore_index=True), pd.DataFrame(), "")


@given(st.dictionaries(st.text("ABC123", min_size=1), st.sampled_from(LABELS), min_size=1), st.integers(0, 9))
def test_every_patient_gets_one_split_and_the_order_of_rows_does_not_matter(
    labels: dict[str, str], seed: int
) -> None:
    splits = assign_splits(tables_of(labels), seed)
    assert splits.keys() == labels.keys()
    assert splits == assign_splits(tables_of(dict(reversed(labels.items()))), seed)


def test_each_class_is_split_in_the_same_shares() -> None:
    labels = {f"P{i}": LABELS[i % 4] for i in range(400)}
    splits = assign_splits(tables_of(labels), 0)
    for label in LABELS:
        mine = [splits[p] for p, x in labels.items() if x == label]
        assert [mine.count(s) for s in ("train", "validation", "test")] == [60, 10, 30]


def test_another_seed_is_another_split() -> None:
    labels = {f"P{i}": "normal" for i in range(100)}
    assert assign_splits(tables_of(labels), 0) != assign_splits(tables_of(labels), 1)


def test_official_splits_are_kept_and_must_not_share_a_patient() -> None:
    train, test = tables_of({"P1": "normal"}), tables_of({"P2": "cancer"}, "test")
    assert assign_splits(together(train, test), 0) == {"P1": "train", "P2": "test"}
    with pytest.raises(UsageError, match="P1 is in two splits"):
        assign_splits(together(train, test, tables_of({"P1": "normal"}, "test")), 0)


def test_rows_that_are_not_imported_have_no_split() -> None:
    rejected = tables_of({"P1": "normal"}, "test")
    rejected.volumes["reason"] = "not a view"
    assert assign_splits(together(tables_of({"P1": "normal"}), rejected), 0) == {"P1": "train"}


def test_lesions_of_a_few_training_patients_are_kept_and_all_normal_ones() -> None:
    labels = {f"P{i:03}": LABELS[i % 4] for i in range(400)}
    tables = tables_of(labels)
    tables = replace(tables, boxes=tables.volumes[tables.volumes["label"].isin(["benign", "cancer"])])
    plain, few, fewer = (assign_splits(tables, 0, few_lesions=n) for n in (None, 20, 8))
    assert "reserve" not in plain.values()
    kept = [
        {p for p in labels if s[p] == "train" and labels[p] in ("benign", "cancer")} for s in (few, fewer)
    ]
    assert [len(k) for k in kept] == [20, 8]
    assert kept[1] < kept[0]
    for patient, split in plain.items():
        moved = split == "train" and labels[patient] in ("benign", "cancer") and patient not in kept[0]
        assert few[patient] == ("reserve" if moved else split)


@pytest.mark.parametrize("n", [0, 2])
def test_more_patients_with_lesions_than_there_are_cannot_be_kept(n: int) -> None:
    tables = together(tables_of({"P1": "cancer"}), tables_of({"P2": "cancer"}, "test"))
    tables = replace(tables, boxes=tables.volumes)
    with pytest.raises(UsageError, match="cannot be kept, there are 1"):
        assign_splits(tables, 0, few_lesions=n)
