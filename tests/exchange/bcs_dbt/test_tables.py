from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unicodedata import category

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX
from dbtbench.data.schema import NO_LABEL
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.bcs_dbt.tables import read_tables
from dbtbench.exchange.splits import assign_splits
from dbtbench.exchange.tables import Tables

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "bcs-dbt"
PATHS = "PatientID,StudyUID,View,descriptive_path,classic_path\n"
LABEL = "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"
BOX = "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices\n"
NORMAL = "P1,S1,lcc,1,0,0,0\n"
A_PATH = "P1,S1,lcc,a.dcm,b.dcm\n"


def write(
    root: Path, labels: str = NORMAL, paths: str = A_PATH, boxes: str = "", split: str = "train"
) -> None:
    (root / f"BCS-DBT-labels-{split}-v2.csv").write_text(LABEL + labels)
    (root / f"BCS-DBT-file-paths-{split}-v2.csv").write_text(PATHS + paths)
    (root / f"BCS-DBT-boxes-{split}-v2.csv").write_text(BOX + boxes)


def read(root: Path, labels: str = NORMAL, paths: str = A_PATH, boxes: str = "") -> Tables:
    write(root, labels, paths, boxes)
    return read_tables(root)


def reasons(table: pd.DataFrame) -> list[str]:
    return [str(reason) for reason in table["reason"]]


# Which files the tables are


@pytest.mark.parametrize(
    "names",
    [
        ("BCS-DBT labels-train.csv", "BCS-DBT file-paths-train.csv", "BCS-DBT boxes-train.csv"),
        (
            "BCS-DBT-labels-train-v2.csv",
            "BCS-DBT-file-paths-train-v2.csv",
            "boxes-train-v2-PHASE-2-Jan-2024.csv",
        ),
        ("bcs_dbt_TRAIN_labels.CSV", "file_paths train.csv", "Boxes (train).csv"),
    ],
)
def test_tables_are_found_whatever_their_release_calls_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, text in zip(names, (LABEL + NORMAL, PATHS, BOX), strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "._BCS-DBT labels-train.csv").write_bytes(b"\0\5\x16\7")  # macOS leaves such next to files
    assert read_tables(tmp_path).volumes["split"].tolist() == ["train"]


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(["BCS", "DBT", "v2", "PHASE", "2", "Jan-2024", "(1)"]), max_size=4),
    split=st.sampled_from(["train", "validation", "val", "test"]),
    marks=st.lists(st.sampled_from(" -_"), min_size=9, max_size=9),
    spelt=st.sampled_from([str.lower, str.upper, str.title]),
    shuffled=st.randoms(use_true_random=False),
)
def test_keyword_and_split_alone_decide(
    words: list[str], split: str, marks: list[str], spelt: Callable[[str], str], shuffled: Random
) -> None:
    with TemporaryDirectory() as folder:
        for kind, text in (("labels", LABEL + NORMAL), ("file-paths", PATHS), ("boxes", BOX)):
            parts = [*words, kind, split]
            shuffled.shuffle(parts)
            name = "".join(part + mark for part, mark in zip(parts, marks, strict=False))
            Path(folder, f"{spelt(name)}.csv").write_text(text)
        found = read_tables(Path(folder)).volumes["split"].tolist()
    assert found == ["validation" if split == "val" else split]


def test_several_files_for_one_table_are_an_error_that_names_all(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("BCS-DBT labels-train.csv", "labels_train_v1.csv"):
        shutil.copy(tmp_path / "BCS-DBT-labels-train-v2.csv", tmp_path / name)
    with pytest.raises(UsageError, match="3 files could be the labels table of train") as error:
        read_tables(tmp_path)
    for name in ("BCS-DBT labels-train.csv", "labels_train_v1.csv", "BCS-DBT-labels-train-v2.csv"):
        assert name in str(error.value)


@pytest.mark.parametrize("kind", ["labels", "boxes", "file-paths"])
def test_a_table_that_is_nowhere_is_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    next(tmp_path.glob(f"*{kind}*")).unlink()
    with pytest.raises(MissingError, match=f"no {kind} table in"):
        read_tables(tmp_path)


@pytest.mark.parametrize("kind", ["labels", "file-paths"])
def test_a_split_needs_labels_and_file_paths(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    write(tmp_path, "P2,S2,lcc,1,0,0,0\n", "", split="validation")
    next(tmp_path.glob(f"*{kind}-validation*")).unlink()
    with pytest.raises(MissingError, match=f"no {kind} table of the split validation"):
        read_tables(tmp_path)


def test_a_split_without_boxes_is_one_without_lesions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    write(tmp_path, "P2,S2,lcc,1,0,0,0\n", "", split="test")
    next(tmp_path.glob("*boxes-test*")).unlink()
    assert len(read_tables(tmp_path).volumes) == 2
    assert "no boxes table of the split test" in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nowhere"):
        read_tables(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PatientID,StudyUID,View,Normal\n", "no column Actionable, Benign, Cancer"),
        (LABEL.replace("View", "View,View"), "several columns View"),
        ("<html>Service unavailable</html>", "no column PatientID"),
        ("", "no column PatientID"),
        (LABEL + 'P1,S1,"lcc,1,0,0,0\n' + NORMAL, "not a CSV file"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "BCS-DBT-labels-train-v2.csv").write_text(text)
    with pytest.raises(UsageError, match=f"labels-train-v2.csv.*{message}"):
        read_tables(tmp_path)


# How they are written


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_dialects_make_no_difference(tmp_path: Path, separator: str, end: str, encoding: str) -> None:
    text = {
        "labels": '\nPatientID, StudyUID , View,Normal,Actionable,Benign,Cancer\nP1 , "S1", lcc ,0,0,0,1\n',
        "file-paths": PATHS + 'P1,S1,lcc,"a;b,c.dcm",\n',
        "boxes": BOX + "P1,S1,lcc,0,3,10,20,30,40,cancer,1,60\n\n,,,,\n",
    }
    for kind, table in text.items():
        table = table.replace('"a;b,c.dcm"', '"A"').replace(",", separator).replace('"A"', '"a;b,c.dcm"')
        (tmp_path / f"{kind}-train.csv").write_bytes(table.replace("\n", end).encode(encoding))
    tables = read_tables(tmp_path)
    assert tables.volumes.to_numpy().tolist() == [
        ["P1", "S1", "lcc", "cancer", "train", "a;b,c.dcm", "", "", ""]
    ]
    assert tables.boxes.to_numpy().tolist() == [
        ["P1", "S1", "lcc", 0, 3, 10, 20, 30, 40, "cancer", 1, 60, "", ""]
    ]


GOOD = LABEL.replace("PatientID", "Patient ID").upper() + "P1,S1,lcc,FALSE,FALSE,FALSE,TRUE\n"


@pytest.mark.parametrize(
    "raw",
    [
        ("sep=;\r\n" + GOOD.replace(",", ";")).encode(),
        ('"sep=|"\n' + GOOD.replace(",", "|")).encode(),
        ("\ufeffSEP=\t\r\n" + GOOD.replace(",", "\t")).encode(),
        ("\ufeff" + GOOD.replace(",", "\t")).encode("utf-16-le"),
        ("\ufeff" + GOOD).encode("utf-16-be"),
        ("sep=;,,,\n" + GOOD.replace(",", ";")).encode(),
        GOOD.replace(",", '","').replace("\n", '"\n"')[:-1].join(['"', ""]).encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.replace("FALSE", "falsch").replace("TRUE", "WAHR").encode(),
        GOOD.replace("FALSE", "0,0").replace("TRUE", "1,0").replace("0,0", "@").replace("1,0", "!")
        .replace(",", ";").replace("@", "0,0").replace("!", "1,0").encode(),
    ],
    ids=["sep", "quoted sep", "tab", "UTF-16", "UTF-16 BE", "wide sep", "quotes", "CR", "German", "commas"],
)  # fmt: skip
def test_tables_are_read_as_spreadsheets_save_them(
    tmp_path: Path, raw: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    (tmp_path / "BCS-DBT-labels-train-v2.csv").write_bytes(raw)
    volumes = read_tables(tmp_path).volumes
    assert volumes[[*KEY, "label", "reason"]].to_numpy().tolist() == [["P1", "S1", "lcc", "cancer", ""]]
    assert capsys.readouterr().err == ""


def test_a_utf_16_table_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "BCS-DBT-labels-train-v2.csv").write_bytes(("\ufeff" + GOOD).encode("utf-16-le")[:-1])
    with pytest.raises(UsageError, match=r"labels-train-v2\.csv is not whole UTF-16"):
        read_tables(tmp_path)


def test_a_heading_in_another_case_counts_only_where_none_is_right(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "BCS-DBT-labels-train-v2.csv"
    path.write_text("view," + LABEL + "x," + NORMAL)
    assert read_tables(tmp_path).volumes["View"].tolist() == ["lcc"]
    path.write_text(LABEL.replace("View", "view,VIEW") + NORMAL)
    with pytest.raises(UsageError, match="several columns View"):
        read_tables(tmp_path)


def test_latin_1_is_read_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    path = tmp_path / "BCS-DBT-file-paths-train-v2.csv"
    path.write_bytes((PATHS + "P1,S1,lcc,Größe.dcm,b.dcm\n").encode("latin-1"))
    assert read_tables(tmp_path).volumes["descriptive_path"].tolist() == ["Größe.dcm"]
    assert "file-paths-train-v2.csv is not in UTF-8" in capsys.readouterr().err


def test_order_of_columns_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "BCS-DBT-labels-train-v2.csv").write_text(
        "Age,Cancer,Benign,View,Normal,Actionable,StudyUID,PatientID\n50,0,0,lcc,0,1,S1,P1\n"
    )
    volume = read_tables(tmp_path).volumes.iloc[0]
    assert (*volume[KEY], volume["label"], volume["reason"]) == ("P1", "S1", "lcc", "actionable", "")


def test_the_digest_is_over_the_bytes_of_every_table(tmp_path: Path) -> None:
    before = read(tmp_path, boxes="P1,S1,lcc,0,3,10,20,30,40,cancer,1,60\n").digest
    assert read_tables(tmp_path).digest == before
    for path in tmp_path.glob("*.csv"):
        text = path.read_bytes()
        path.write_bytes(text.replace(b"lcc", b"rcc"))
        assert read_tables(tmp_path).digest != before
        path.write_bytes(text)


# Reasons of rows


def test_upper_case_views_are_lowered_with_one_notice_per_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = read(tmp_path, "P1,S1,LCC,1,0,0,0\nP1,S1,RMlo,1,0,0,0\nP1,S1,rcc,1,0,0,0\n")
    assert tables.volumes["View"].tolist() == ["lcc", "rmlo", "rcc"]
    assert tables.volumes["descriptive_path"].tolist() == ["a.dcm", "", ""]
    assert capsys.readouterr().err == (
        "BCS-DBT-labels-train-v2.csv: 2 views in upper case are read as lower case\n"
    )


@pytest.mark.parametrize("view", ["lcc", "rcc1", "lmlo2", "rmlo10", " RCC1 ", "\trcc", "rcc\xa0"])
def test_views_may_have_a_number(tmp_path: Path, view: str) -> None:
    volumes = read(tmp_path, f"P1,S1,{view},1,0,0,0\n", "").volumes
    assert volumes[["View", "reason"]].to_numpy().tolist() == [[view.strip().lower(), ""]]


@pytest.mark.parametrize("view", ["", "cc", "xcc", "lccx", "lml", "l cc", "lcc\u0661", "=lcc", "XCC"])
def test_other_views_are_none(tmp_path: Path, view: str) -> None:
    volumes = read(tmp_path, f"P1,S1,{view},1,0,0,0\n", "").volumes
    assert volumes[["View", "reason", "detail"]].to_numpy().tolist() == [[view, "not a view", view]]


@pytest.mark.parametrize(
    "text",
    ["", "=1+1", "+1", "-1", "@SUM(A1)", "\tP1", '"\rP1"', "P\x001", '"P\n1"', "P\x7f", "1.23E+11", "1E+05"],
)
@pytest.mark.parametrize("column", ["PatientID", "StudyUID"])
def test_identifiers_neither_execute_nor_control(tmp_path: Path, text: str, column: str) -> None:
    row = {"PatientID": "P1", "StudyUID": "S1"} | {column: text}
    labels = f"{row['PatientID']},{row['StudyUID']},lcc,1,0,0,0\n" + NORMAL.replace("lcc", "rcc")
    tables = read(tmp_path, labels, "", f"{row['PatientID']},{row['StudyUID']},lcc,0,1,1,1,1,1,benign,0,9\n")
    assert reasons(tables.volumes) == ["not an identifier", ""]
    assert reasons(tables.boxes) == ["not an identifier"]


@pytest.mark.parametrize("cells", ["0,0,0,0", "1,0,0,1", "2,-1,0,0", "1,0,0,", "yes,0,0,0", "1", "nan,1,0,0"])
def test_labels_are_one_class(tmp_path: Path, cells: str) -> None:
    volumes = read(tmp_path, f"P1,S1,lcc,{cells}\nP1,S1,rcc,1.0,0,0.0,0\n").volumes
    assert reasons(volumes) == ["labels are not one class", ""]
    assert volumes["label"].tolist() == ["", "normal"]


def test_a_cell_too_many_is_the_row_s_own_problem(tmp_path: Path) -> None:
    labels, paths = (
        "P1,S1,lcc,1,0,0,0,,\nP1,S1,rcc,1,0,0,0,9\nP1,S1,lmlo,1,0,0,0\n",
        "P1,S1,lmlo,A, B.dcm,b.dcm\n",
    )
    volumes = read(tmp_path, labels, paths).volumes
    assert reasons(volumes) == ["", "more cells than columns", "more cells than columns"]
    assert volumes["detail"].tolist() == ["", "the heading has 7", "the heading has 5"]


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    volumes = read(tmp_path, NORMAL + NORMAL.replace("lcc", "LCC") + NORMAL).volumes
    assert reasons(volumes) == ["", "duplicate row", "duplicate row"]


def test_a_row_that_repeats_a_broken_one_stands(tmp_path: Path) -> None:
    assert reasons(read(tmp_path, NORMAL.replace("\n", ",9\n") + NORMAL).volumes)[1] == ""


def test_labels_that_contradict_each_other_are_all_refused(tmp_path: Path) -> None:
    labels = NORMAL + "P1,S1,lcc,0,0,0,1\n" + NORMAL + NORMAL.replace("lcc", "rcc")
    assert reasons(read(tmp_path, labels).volumes) == ["labels contradict each other"] * 3 + [""]


def test_paths_that_contradict_each_other_are_refused_and_repeated_ones_are_one(tmp_path: Path) -> None:
    labels = NORMAL + NORMAL.replace("lcc", "rcc")
    paths = A_PATH * 2 + "P1,S1,rcc,c.dcm,\nP1,S1,RCC,d.dcm,\n"
    volumes = read(tmp_path, labels, paths).volumes
    assert reasons(volumes) == ["", "paths contradict each other"]
    assert volumes["descriptive_path"].tolist() == ["a.dcm", "c.dcm"]


def test_volumes_that_only_the_paths_name_come_last(tmp_path: Path) -> None:
    paths = "P0,S0,lcc,z.dcm,\nP0,S0,lcc,z.dcm,\n=P0,S0,lcc,y.dcm,\n" + A_PATH
    volumes = read(tmp_path, NORMAL, paths).volumes
    assert volumes["PatientID"].tolist() == ["P1", "P0", "=P0"]
    assert reasons(volumes) == ["", NO_LABEL, NO_LABEL]
    assert volumes["detail"].tolist() == ["", "", "not an identifier"]
    assert volumes[["label", "split"]].to_numpy().tolist()[1] == ["", "train"]


def test_rows_keep_the_order_of_the_files_and_of_the_splits(tmp_path: Path) -> None:
    for split, patient in (("test", "P3"), ("validation", "P2"), ("train", "P1")):
        rows = "".join(NORMAL.replace("P1", patient).replace("lcc", view) for view in ("rcc", "lcc"))
        write(tmp_path, rows, "", split=split)
    volumes = read_tables(tmp_path).volumes
    assert volumes["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert volumes["View"].tolist() == ["rcc", "lcc"] * 3


# Boxes


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ("0,3,10,20,30,40", ""),
        ("0,3,10,20,0,40", "box has no size"),
        ("0,3,10,20,30,-1", "box has no size"),
        ("0,3,10,20,inf,40", "box has no size"),
        ("0,3,10,20,,40", "box has no size"),
        ("0,3,10,twenty,30,40", "box has no position"),
        ("0,nan,10,20,30,40", "box has no position"),
        ("0,3,1e999,20,30,40", "box has no position"),
        ("0,,,,,", "box has no position"),
    ],
)
def test_a_box_has_a_position_and_a_size(tmp_path: Path, numbers: str, reason: str) -> None:
    other = "P1,S1,lcc,1,4,11,21,31,41,benign,0,60\n"
    boxes = read(tmp_path, boxes=f"P1,S1,lcc,{numbers},cancer,1,60\n{other}").boxes
    assert reasons(boxes) == [reason, ""]
    assert boxes.iloc[1][NATIVE_BOX].tolist() == [1, 4, 11, 21, 31, 41, "benign", 0, 60]
    assert (boxes[["Slice", "X", "Y", "Width", "Height"]].dtypes == "int64").all()


def test_a_box_needs_a_labelled_volume_and_counts_once(tmp_path: Path) -> None:
    box = "P1,S1,LCC,0,3,10,20,30,40,cancer,1,60\n"
    boxes = read(tmp_path, boxes=box + box + box.replace("S1", "S2") + box.replace("10", "11")).boxes
    assert reasons(boxes) == ["", "duplicate row", NO_LABEL, ""]


def test_the_first_release_has_no_volume_slices(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "BCS-DBT-boxes-train-v2.csv"
    path.write_text(BOX.replace(",VolumeSlices", "") + "P1,S1,lcc,0,3,10,20,30,40,cancer,1\n")
    boxes = read_tables(tmp_path).boxes
    assert reasons(boxes) == [""]
    assert np.isnan(boxes["VolumeSlices"]).all()


def test_numbers_out_of_all_proportion_do_no_harm(tmp_path: Path) -> None:
    boxes = read(tmp_path, boxes="P1,S1,lcc,0,3,1e300,99999999999999999999999,30,40,cancer,inf,inf\n").boxes
    assert boxes[["X", "Y"]].to_numpy().tolist() == [[1e300, 1e23]]
    assert boxes[["AD", "VolumeSlices"]].isna().all(axis=None)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.text(max_size=6) | st.sampled_from(["P1", "lcc", "1", "0"]), max_size=14), max_size=6
    )
)
def test_any_row_has_an_outcome(rows: list[list[str]]) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    text = "\n".join(quoted) + "\n"
    with TemporaryDirectory() as folder:
        for kind, header in (("labels", LABEL), ("file-paths", PATHS), ("boxes", BOX)):
            Path(folder, f"{kind}-train.csv").write_bytes((header + text).encode("utf-8", "surrogatepass"))
        tables = read_tables(Path(folder))
    written = sum(any(cell.strip() for cell in row) for row in rows)
    assert len(tables.boxes) == written == (tables.volumes["reason"] != NO_LABEL).sum()
    for row in tables.volumes[tables.volumes["reason"] == ""].itertuples():
        assert row.label in LABELS
        assert all(category(character) != "Cc" for character in row.PatientID + row.StudyUID)


def many(root: Path, patients: int = 60) -> Tables:
    """Tables of patients with one volume each: two thirds normal, one third cancer."""
    kinds = ["0,0,0,1" if number % 3 == 0 else "1,0,0,0" for number in range(patients)]
    labels = "".join(f"P{number},S{number},lcc,{kind}\n" for number, kind in enumerate(kinds))
    paths = "".join(f"P{number},S{number},lcc,{number}.dcm,\n" for number in range(patients))
    return read(root, labels, paths)


def test_a_reserve_is_taken_from_the_training_patients_of_each_label(tmp_path: Path) -> None:
    tables = many(tmp_path)
    plain, half, more = (assign_splits(tables, 0, share) for share in (0.0, 0.5, 0.75))
    moved = {patient for patient in plain if plain[patient] != half[patient]}
    assert plain == assign_splits(tables, 0)
    assert {(plain[patient], half[patient]) for patient in moved} == {("train", "reserve")}
    labels = tables.volumes.set_index("PatientID")["label"]
    for label, train in (("normal", 24), ("cancer", 12)):
        assert sum(labels[patient] == label for patient in moved) == train / 2
    assert moved < {patient for patient in more if more[patient] == "reserve"}


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_reserve_must_leave_something_to_train_on(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="cannot be set aside"):
        assign_splits(many(tmp_path), 0, share)


# The real ones


@pytest.mark.skipif(not REAL.is_dir(), reason="the real BCS-DBT tables are not next to this checkout")
def test_the_real_tables_give_the_published_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for table in REAL.glob("*.csv"):
        shutil.copy(table, tmp_path)
    labels = pd.read_csv(next(tmp_path.glob("*labels*")), dtype=str)
    paths = labels[KEY].assign(descriptive_path=labels.index.astype(str) + ".dcm", classic_path="")
    paths.to_csv(tmp_path / "BCS-DBT file-paths-train-v2.csv", index=False)
    tables = read_tables(tmp_path)
    volumes, boxes = tables.volumes, tables.boxes
    assert capsys.readouterr().err == ""
    assert set(volumes["reason"]) == set(boxes["reason"]) == {""}
    assert volumes[KEY].to_numpy().tolist() == labels[KEY].to_numpy().tolist()
    assert volumes["descriptive_path"].tolist() == [f"{i}.dcm" for i in range(19148)]
    assert volumes["PatientID"].nunique() == 4362
    assert len(volumes.drop_duplicates(["PatientID", "StudyUID"])) == 4838
    counts = {"normal": 18232, "actionable": 716, "benign": 124, "cancer": 76}
    assert volumes["label"].value_counts().to_dict() == counts
    assert (len(boxes), len(boxes.drop_duplicates(KEY))) == (224, 200)
    assert boxes["Class"].value_counts().to_dict() == {"benign": 137, "cancer": 87}
    assert int(boxes["AD"].sum()) == 77
    assert set(assign_splits(tables, 0).values()) == {"train", "validation", "test"}
