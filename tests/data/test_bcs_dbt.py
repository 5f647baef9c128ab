from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.bcs_dbt import Tables, assign_splits, locate, read_tables
from dbtbench.data.dataset import LABELS
from dbtbench.errors import MissingError, UsageError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "bcs-dbt"
PATHS = "PatientID,StudyUID,View,descriptive_path,classic_path\n"
LABEL = "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"
BOX = "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD\n"


def write(root: Path, split: str = "train", labels: str = "P1,S1,lcc,1,0,0,0\n") -> None:
    (root / f"BCS-DBT file-paths-{split}-v2.csv").write_text(PATHS + "P1,S1,lcc,a.dcm,b.dcm\n")
    (root / f"BCS-DBT labels-{split}.csv").write_text(LABEL + labels)
    (root / f"BCS-DBT-boxes-{split}-v2-PHASE-2-Jan-2024.csv").write_text(BOX)


def test_tables_are_found_whatever_their_release_calls_them(tmp_path: Path) -> None:
    write(tmp_path)
    tables = read_tables(tmp_path)
    assert tables.labels[["PatientID", "View", "label", "split"]].to_numpy().tolist() == [
        ["P1", "lcc", "normal", "train"]
    ]
    assert tables.boxes["VolumeSlices"].isna().all()


def test_views_are_lower_case_and_repeated_rows_count_once(tmp_path: Path) -> None:
    write(tmp_path, labels="P1,S1,LCC,1,0,0,0\nP1,S1,lcc,1,0,0,0\n")
    assert read_tables(tmp_path).labels["View"].tolist() == ["lcc"]


def test_two_files_for_one_table_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path)
    shutil.copy(tmp_path / "BCS-DBT labels-train.csv", tmp_path / "BCS-DBT-labels-train-v2.csv")
    with pytest.raises(UsageError, match=r"BCS-DBT labels-train\.csv and BCS-DBT-labels-train-v2\.csv"):
        read_tables(tmp_path)


@pytest.mark.parametrize("kind", ["labels", "boxes", "file-paths"])
def test_a_missing_table_is_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    next(tmp_path.glob(f"*{kind}*")).unlink()
    with pytest.raises(MissingError, match=kind):
        read_tables(tmp_path)


def test_a_missing_folder_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nowhere"):
        read_tables(tmp_path / "nowhere")
    write(tmp_path)
    (tmp_path / "BCS-DBT labels-train.csv").write_text("PatientID,StudyUID,View,Normal\n")
    with pytest.raises(UsageError, match="Actionable, Benign, Cancer"):
        read_tables(tmp_path)


@pytest.mark.parametrize("row", ["P1,S1,lcc,0,0,0,0", "P1,S1,lcc,1,0,0,1", "P1,S1,lcc,2,-1,0,0"])
def test_a_label_that_is_not_one_class_is_an_error(tmp_path: Path, row: str) -> None:
    write(tmp_path, labels=row + "\n")
    with pytest.raises(UsageError, match="P1 S1 lcc"):
        read_tables(tmp_path)


def tables_of(labels: dict[str, str], split: str = "train") -> Tables:
    rows = [
        {"PatientID": p, "StudyUID": "S", "View": "lcc", "label": x, "split": split}
        for p, x in labels.items()
    ]
    return Tables(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(), "")


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


def test_official_splits_are_kept_and_must_not_share_a_patient(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "test", "P2,S2,rcc,0,0,0,1\n")
    assert assign_splits(read_tables(tmp_path), 0) == {"P1": "train", "P2": "test"}
    write(tmp_path, "test", "P1,S2,rcc,0,0,0,1\n")
    with pytest.raises(UsageError, match="P1 is in two splits"):
        assign_splits(read_tables(tmp_path), 0)


def test_the_first_path_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.dcm").touch()
    assert locate(tmp_path, "a.dcm", "sub/b.dcm") == (tmp_path / "sub" / "b.dcm").resolve()
    assert locate(tmp_path, "a.dcm", float("nan")) is None


@pytest.mark.parametrize("path", ["../secret.dcm", "/etc/passwd", "sub/../../secret.dcm", "C:\\secret.dcm"])
def test_a_path_out_of_the_collection_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.dcm").touch()
    with pytest.raises(ValueError, match="leaves"):
        locate(root, path)


def test_a_link_out_of_the_collection_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.dcm").touch()
    (root / "link.dcm").symlink_to(tmp_path / "secret.dcm")
    with pytest.raises(ValueError, match="leaves"):
        locate(root, "link.dcm")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real BCS-DBT tables are not beside this checkout")
def test_the_real_tables_give_the_published_counts(tmp_path: Path) -> None:
    for table in REAL.glob("*.csv"):
        shutil.copy(table, tmp_path)
    (tmp_path / "BCS-DBT file-paths-train-v2.csv").write_text(PATHS)
    tables = read_tables(tmp_path)
    counts = {"normal": 18232, "actionable": 716, "benign": 124, "cancer": 76}
    assert tables.labels["label"].value_counts().to_dict() == counts
    assert tables.labels["PatientID"].nunique() == 4362
    assert (len(tables.boxes), len(tables.boxes.drop_duplicates(["StudyUID", "View"]))) == (224, 200)
