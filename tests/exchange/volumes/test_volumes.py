"""Volumes that were made elsewhere become a synthetic data set."""

from __future__ import annotations

import gzip
import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.data.check import check_dataset
from dbtbench.data.dataset import GRID_BOX, KEY, SPACING, DBTDataset
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.errors import MissingError, UnreadableError, UsageError
from dbtbench.exchange.export import export_dataset
from dbtbench.exchange.volumes import ingest as samples
from dbtbench.exchange.volumes.arrays import read_array
from dbtbench.exchange.volumes.ingest import import_samples
from dbtbench.geometry.resample import area_mean
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.generate import find_augmentation
from dbtbench.workspace import Workspace

nibabel: Any = importlib.import_module("nibabel")  # has no types
GRID = (8, 32, 32)
NATIVE = ["Slice", "X", "Y", "Width", "Height"]


def volume(seed: int = 0, shape: tuple[int, ...] = GRID) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random(shape, np.float32)


def save(path: Path, array: Any, **others: Any) -> None:
    """Save an array in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, volume=array, **others)
    elif path.suffix == ".mat":
        savemat(path, {"volume": array})
    else:
        nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), path)


def table(path: Path, rows: list[dict[str, Any]], **how: Any) -> None:
    pd.DataFrame(rows).to_csv(path, index=False, **how)


def box(file: str, *corners: float, label: str = "cancer") -> dict[str, Any]:
    return {"file": file, **dict(zip(GRID_BOX, corners, strict=True)), "Class": label}


def rejected(dataset: DBTDataset) -> dict[str, str]:
    """Reasons by file."""
    rows = pd.read_csv(dataset.path / "rejected.csv", keep_default_na=False)
    return dict(zip(rows["file"], rows["reason"], strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


# Volumes that dbtbench exported


@pytest.mark.parametrize(("format_", "accuracy"), [("npz", 0), ("nifti", 0), ("dicom", 0.5 / 1023 + 1e-5)])
def test_what_was_exported_comes_back(toy: DBTDataset, tmp_path: Path, format_: str, accuracy: float) -> None:
    export_dataset(toy, tmp_path / "out", format_, "train")
    back, train = import_samples(tmp_path / "out", tmp_path / "gan", toy), toy.select("train")
    np.testing.assert_allclose(back.volumes(), train.volumes(), atol=accuracy)
    same = [*KEY, "label", "slices", "rows", "columns"]
    pd.testing.assert_frame_equal(back.cases[same], train.cases[same])
    np.testing.assert_allclose(back.boxes[GRID_BOX], train.boxes[GRID_BOX])
    assert back.boxes["Class"].tolist() == train.boxes["Class"].tolist()
    assert all(check.ok for check in check_dataset(back.path))


@pytest.mark.parametrize("format_", ["npz", "nifti", "dicom"])
def test_spacing_comes_back_where_it_was_known(toy: DBTDataset, tmp_path: Path, format_: str) -> None:
    known = DBTDataset(toy.path, toy.meta, toy.cases.assign(z_mm=5.0, y_mm=3.5, x_mm=3.0), toy.boxes)
    export_dataset(known, tmp_path / "out", format_, "train")
    back = import_samples(tmp_path / "out", tmp_path / "gan", toy).cases
    assert back[SPACING].drop_duplicates().to_numpy().tolist() == [[5.0, 3.5, 3.0]]
    assert back["pixel_mm"].unique() == pytest.approx(np.sqrt(3.5 * 3.0))


def test_nominal_spacing_does_not_become_known_spacing(toy: DBTDataset, tmp_path: Path) -> None:
    export_dataset(toy, tmp_path / "out", "nifti", "train")
    assert import_samples(tmp_path / "out", tmp_path / "gan", toy).cases[SPACING].isna().all(axis=None)


def test_held_out_volumes_are_not_taken_for_training(toy: DBTDataset, tmp_path: Path) -> None:
    export_dataset(toy, tmp_path / "out", "npz")
    back = import_samples(tmp_path / "out", tmp_path / "gan", toy)
    held_out = toy.cases[toy.cases["split"] != "train"]
    assert back.meta["import_report"]["rejected"] == {"not of the training split": len(held_out)}
    assert not set(back.cases["PatientID"]) & set(held_out["PatientID"])


# What a data set needs to stand in for a generator's


def test_it_is_evaluated_like_any_generators(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    toy = make_toy(work.datasets / "toy", 8)
    export_dataset(toy, tmp_path / "out", "nifti", "train")
    made = import_samples(tmp_path / "out", work.datasets / "gan", toy, derived=True)
    assert find_augmentation(work, "gan", toy).path == made.path
    assert made.synthetic
    for task in ("detection", "realism"):
        smoke = "smoke" if task == "detection" else "default"
        runs = evaluate(work, task, toy, ["gan"], 1, smoke, arms=[])
        record = json.loads((runs[1] / "run.json").read_text())
        assert record["arm"] == record["augmentation"]["generator"] == "gan"
        assert record["augmentation"]["fingerprint"] == made.fingerprint
        assert record["augmentation"]["volumes"] == len(made) == 16
        assert record["scores"]


def test_the_data_set_says_what_is_taken_on_trust(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    save(root / "lcc.npy", volume())
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.meta["split"]["trust"].startswith("taken on trust")
    assert made.split_hash == toy.split_hash
    assert made.meta["source"]["data"] == toy.identity
    assert made.meta["intensity"] == toy.meta["intensity"]


def test_real_data_are_never_replaced(
    make_toy: Callable[..., DBTDataset], root: Path, tmp_path: Path
) -> None:
    real = make_toy(tmp_path / "duke", 2)
    save(root / "lcc.npy", volume())
    with pytest.raises(UsageError, match="'duke' exists and is real"):
        import_samples(root, real.path, real, fresh=True)
    assert len(DBTDataset.open(real.path)) == 8


# Finding volumes


def test_without_a_table_files_are_taken_in_order_and_their_paths_give_the_view(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    names = {
        "LCC.npy": "lcc",
        "a/rmlo/7.nii.gz": "rmlo",
        "a/sample_LMLO-3.npz": "lmlo",
        "lcc/x_rcc2.npy": "rcc",
        "ultralcc.npy": "",
        "view.npy": "",
    }
    for seed, name in enumerate(names):
        save(root / name, volume(seed))
    save(root / ".cache" / "lcc.npy", volume())
    (root / "notes-lcc.txt").write_text("not a volume")
    made = import_samples(root, tmp_path / "gan", toy)
    expected = sorted(name for name, view in names.items() if view)
    assert made.cases["file"].tolist() == expected
    assert made.cases["View"].tolist() == [names[name] for name in expected]
    assert made.cases["PatientID"].tolist() == [f"gan-{index:06d}" for index in range(4)]
    assert rejected(made) == dict.fromkeys(["ultralcc.npy", "view.npy"], "no view in the name")
    np.testing.assert_allclose(made.volumes([0])[0, 0], volume(0), atol=1e-5)


def test_a_table_says_which_volumes_and_what_they_are(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for name in "abcdefg":
        save(root / f"{name}.npy", volume())
    rows = [
        {"file": "b.npy", "View": "RCC", "PatientID": "P1", "StudyUID": "S1", "label": "Actionable"},
        {"file": "a.npy", "View": "lmlo", "PatientID": "P1", "StudyUID": "S1", "label": "benign"},
        {"file": "c.npy", "View": "front"},
        {"file": "d.npy", "View": "lcc", "label": "healthy"},
        {"file": "a.npy", "View": "lcc"},
        {"file": "e.npy", "View": "rcc", "PatientID": "P1", "StudyUID": "S1"},
        {"file": "nowhere.npy", "View": "rcc"},
        {"file": "../../etc/passwd", "View": "rcc"},
        {"file": str(tmp_path / "x.npy"), "View": "rcc"},
        {"file": "C:\\x.npy", "View": "rcc"},
        {"file": "made.txt", "View": "rcc"},
    ]
    (root / "made.txt").write_text("not a volume")
    table(root / "volumes.csv", rows)
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.cases[["file", *KEY, "label"]].to_numpy().tolist() == [
        ["b.npy", "P1", "S1", "rcc", "actionable"],
        ["a.npy", "P1", "S1", "lmlo", "benign"],
    ]
    assert made.meta["import_report"]["rejected"] == {
        "path leaves the folder": 3,
        "not a view": 1,
        "not a label": 1,
        "duplicate row": 1,
        "another volume has its patient, study, view": 1,
        "file not found": 1,
        "unknown format": 1,
    }
    assert all(check.ok for check in check_dataset(made.path))


def test_a_link_out_of_the_folder_is_refused(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    save(tmp_path / "secret.npy", volume())
    save(root / "inside-lcc.npy", volume())
    (root / "link-lcc.npy").symlink_to(tmp_path / "secret.npy")
    (root / "own-rcc.npy").symlink_to(root / "inside-lcc.npy")
    made = import_samples(root, tmp_path / "gan", toy)
    assert rejected(made) == {"link-lcc.npy": "path leaves the folder"}
    assert made.cases["file"].tolist() == ["inside-lcc.npy", "own-rcc.npy"]


@pytest.mark.parametrize(
    ("encoding", "sep", "first"),
    [
        ("utf-8-sig", ",", ""),
        ("latin-1", ";", ""),
        ("latin-1", "\t", ""),
        ("utf-8-sig", ";", "sep=;\r\n"),
        ("utf-16", "\t", ""),
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(
    toy: DBTDataset, root: Path, tmp_path: Path, encoding: str, sep: str, first: str
) -> None:
    for name in ("é.npy", "b.npy"):
        save(root / name, volume())
    tables = {
        "volumes.csv": "FILE,view,Patient ID,StudyUID,Label,DERIVED\né.npy,LCC ,P,S,Cancer,TRUE\n"
        "b.npy,rcc,P,S,,FALSE\nc.npy,rcc,P,S,,FALSE,extra\n",
        "boxes.csv": "File,Z0,y0,x0,z1,y1,x1,class,ad\né.npy,1,2,3,4,5,6,Cancer,WAHR\n"
        "b.npy,1,2,3,4,5,6,cancer,FALSE\nb.npy,1,2,3,4,5,7,cancer,0,extra\n",
    }
    for name, text in tables.items():
        (root / name).write_bytes((first + text.replace(",", sep)).encode(encoding))
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.cases[["file", "View", "label"]].to_numpy().tolist() == [
        ["é.npy", "lcc", "cancer"],
        ["b.npy", "rcc", "cancer"],
    ]
    assert made.boxes["AD"].tolist() == [1, 0]
    assert made.meta["source"]["derived"]
    report = made.meta["import_report"]
    assert report["rejected"] == report["boxes"]["rejected"] == {"more cells than columns": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("volumes.csv", "View\nlcc\n", r"volumes.csv has no column file"),
        ("volumes.csv", 'file,View\n"a.npy,lcc\n', r"volumes.csv is not a CSV file"),
        ("volumes.csv", "file,VIEW,view\na-lcc.npy,lcc,rcc\n", r"volumes.csv has several columns View"),
        ("boxes.csv", "file,X,Y,Class\n", r"boxes.csv has no columns for the place of a box"),
        ("boxes.csv", "", r"boxes.csv has no column file, Class"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_that_names_it(
    toy: DBTDataset, root: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    save(root / "a-lcc.npy", volume())
    (root / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        import_samples(root, tmp_path / "gan", toy)


# Boxes


def test_boxes_are_carried_onto_the_grid(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    save(root / "big-lcc.npy", volume(0, (16, 64, 128)))
    save(root / "sub" / "small-rmlo.npy", volume(1, (4, 16, 16)))
    table(
        tmp_path / "b.csv",
        [box("big-lcc.npy", 2, 4, 8, 6, 20, 40), box("small-rmlo.npy", -1, 0, 0, 2, 4, 20, label="Benign")],
    )
    made = import_samples(root, tmp_path / "gan", toy, boxes=tmp_path / "b.csv")
    assert made.boxes[GRID_BOX].to_numpy().tolist() == [[1, 2, 2, 3, 10, 10], [0, 0, 0, 4, 8, 32]]
    assert made.boxes[NATIVE].to_numpy().tolist() == [[4, 8, 4, 32, 16], [1, 0, 0, 16, 4]]
    assert made.boxes["VolumeSlices"].tolist() == [16, 4]
    assert made.cases["label"].tolist() == ["cancer", "benign"]
    assert made.cases[["slices", "rows", "columns"]].to_numpy().tolist() == [[16, 64, 128], [4, 16, 16]]
    assert all(check.ok for check in check_dataset(made.path))


def test_boxes_in_dbtex_columns_are_pixels_of_the_file(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    save(root / "lcc.npy", volume(0, (16, 64, 128)))
    row = dict(zip(NATIVE, (5, 8, 4, 32, 16), strict=True))
    table(root / "boxes.csv", [{"file": "lcc.npy", **row, "Class": "cancer", "AD": 1}])
    lesion = import_samples(root, tmp_path / "gan", toy).boxes.iloc[0]
    assert lesion[GRID_BOX].tolist() == [1.75, 2, 2, 3.75, 10, 10]  # a quarter of the slices deep
    assert lesion[NATIVE].tolist() == [5, 8, 4, 32, 16]
    assert lesion["AD"] == 1


def test_the_worst_class_of_its_boxes_is_a_volumes_label(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for name in ("a-lcc.npy", "b-lcc.npy"):
        save(root / name, volume())
    corners = (1, 2, 3, 4, 5, 6)
    rows = [box("a-lcc.npy", *corners, label=label) for label in ("benign", "cancer", "actionable")]
    table(root / "boxes.csv", rows)
    assert import_samples(root, tmp_path / "gan", toy).cases["label"].tolist() == ["cancer", "normal"]


def test_every_box_is_in_the_import_report(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for name in ("lcc.npy", "a/rcc.npy", "b/rcc.npy"):
        save(root / name, volume())
    save(root / "dark-lcc.npy", 2 * volume())
    good = (1, 2, 3, 4, 5, 6)
    table(
        root / "boxes.csv",
        [
            box("lcc.npy", *good),
            box("b/rcc.npy", *good),
            box("rcc.npy", *good),
            box("nowhere.npy", *good),
            box("dark-lcc.npy", *good),
            box("lcc.npy", 1, 2, float("nan"), 4, 5, 6),
            box("lcc.npy", 4, 2, 3, 1, 5, 6),
            box("lcc.npy", 8, 2, 3, 9, 5, 6),
            box("lcc.npy", *good, label="lump"),
        ],
    )
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.meta["import_report"]["boxes"] == {
        "rows": 9,
        "imported": 2,
        "rejected": {
            "box lies outside the volume": 1,
            "several volumes have this name": 1,
            "no such volume": 1,
            "its volume was rejected": 1,
            "box has no position": 1,
            "box has no size": 1,
            "not a class": 1,
        },
        "missing": 0,
    }
    assert made.boxes["PatientID"].tolist() == ["gan-000001", "gan-000003"]
    assert all(check.ok for check in check_dataset(made.path))


def test_a_box_moves_with_the_frames_of_a_file_that_stores_them_in_another_order(
    toy: DBTDataset, write_dicom: Any, change_dicom: Any, root: Path, tmp_path: Path
) -> None:
    order = [3, 1, 2, 0, 7, 6, 5, 4]  # the place of each stored frame
    frames = np.zeros((8, 32, 32), np.uint16)
    frames[..., :9] = 200
    frames[5, 4:8, 2:7] = 1023  # a lesion in frame 5, the slice 6

    def place(ds: Any) -> None:
        for number, frame in zip(order, ds.PerFrameFunctionalGroupsSequence, strict=True):
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1.5 * number]
            frame.FrameContentSequence[0].InStackPositionNumber = number + 1

    for name in ("lcc.dcm", "native-lcc.dcm"):
        change_dicom(write_dicom(root / name, frames), place)
    corners = [(5, 4, 2, 6, 8, 7), (4.5, 4, 2, 6, 8, 7), (0, 4, 2, 2, 8, 7), (1, 4, 2, 3, 8, 7)]
    table(root / "boxes.csv", [box("lcc.dcm", *corner) for corner in corners])
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.boxes[["z0", "z1", "Slice"]].to_numpy().tolist() == [[6, 7, 6], [6, 8, 7], [1, 3, 2]]
    assert made.meta["import_report"]["boxes"]["rejected"] == {samples.SCATTERED: 1}
    z, y, x = np.unravel_index(made.volumes([0])[0, 0].argmax(), GRID)
    assert (z, 4 <= y < 8, 2 <= x < 7) == (6, True, True)
    native = {"file": "native-lcc.dcm", "Slice": 5, "X": 2, "Y": 4, "Width": 5, "Height": 4}
    table(root / "boxes.csv", [native | {"Class": "cancer"}])
    made = import_samples(root, tmp_path / "gan-2", toy)
    assert made.boxes[["z0", "z1", "Slice"]].to_numpy().tolist() == [[5.5, 7.5, 6]]
    assert all(check.ok for check in check_dataset(made.path))


def test_a_dicom_file_is_displayed_by_the_laterality_rule_and_its_boxes_with_it(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    frames = np.zeros((8, 32, 32), np.uint16)
    frames[:, 4:8, 20:] = 1023  # a left breast, stored turned by 180°
    write_tomosynthesis(
        root / "lcc.dcm",
        frames,
        view="lcc",
        patient_id="P",
        study_id="S",
        pixel_mm=(3.0, 3.0),
        slice_mm=5.0,
        window=(512.0, 1024.0),
        uid_seed="test",
    )
    table(root / "boxes.csv", [box("lcc.dcm", 0, 4, 20, 8, 8, 32)])
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.cases["flipped"].tolist() == [True]
    assert made.boxes[GRID_BOX].to_numpy().tolist() == [[0, 24, 0, 8, 28, 12]]
    inside = made.volumes()[0, 0][:, 24:28, :12]
    assert inside.min() == 1
    assert made.volumes().sum() == inside.sum()
    assert made.cases[SPACING].to_numpy().tolist() == [[5, 3, 3]]


# Values


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".nii", ".nii.gz"])
def test_each_format_is_read_slices_first(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", volume(0, (3, 4, 5)))
    np.testing.assert_array_equal(read_array(tmp_path / f"a{suffix}").volume, volume(0, (3, 4, 5)))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 1, 3, 4, 5), (3, 4, 5, 1), (1, 1, 4, 5)])
def test_axes_of_length_one_are_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "a.npy", volume(0, shape))
    kept = (1, 4, 5) if shape == (1, 1, 4, 5) else (3, 4, 5)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy").volume, volume(0, shape).reshape(kept))


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int64"])
def test_whole_numbers_are_full_scale_of_their_type(tmp_path: Path, kind: str) -> None:
    largest = np.iinfo(kind).max
    save(tmp_path / "a.npy", np.array([0, largest // 5, largest], kind).reshape(1, 1, 3))
    np.testing.assert_allclose(read_array(tmp_path / "a.npy").volume.ravel(), [0, 0.2, 1], atol=1e-2)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floating_point_numbers_are_intensities(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "a.npy", np.array([0, 0.25, 1], kind).reshape(1, 1, 3))
    assert read_array(tmp_path / "a.npy").volume.ravel().tolist() == [0, 0.25, 1]


def test_a_volume_of_another_size_is_resampled_by_area_means(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    big = volume(0, (12, 80, 96))
    save(root / "lcc.nii.gz", big)
    made = import_samples(root, tmp_path / "gan", toy)
    np.testing.assert_allclose(made.volumes()[0, 0], area_mean(big, (12, 80, 96), GRID), atol=1e-5)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "unpickled"))


def header(shape: tuple[int, ...]) -> bytes:
    """An NPY file that claims a shape and holds ten bytes."""
    said = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said.encode() + bytes(10)


def claimed(shape: tuple[int, ...]) -> bytes:
    """A NIfTI file that claims a shape and holds no voxel."""
    image = nibabel.Nifti2Image(np.zeros((1, 1, 1), np.float32), np.eye(4))
    image.header["dim"][1:4] = shape
    return bytes(image.header.binaryblock) + bytes(4)


def test_what_cannot_be_a_volume_is_a_row_with_its_reason(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    save(root / "good-lcc.npy", volume())
    save(root / "minus-lcc.npy", 2 * volume() - 1)
    save(root / "hounsfield-lcc.nii.gz", -(volume() * 1000).astype(np.int16))
    save(root / "nan-lcc.npy", np.full(GRID, np.nan))
    save(root / "inf-lcc.npz", np.full(GRID, np.inf))
    save(root / "flat-lcc.npy", volume(0, (32, 32)))
    save(root / "four-lcc.npy", volume(0, (2, 8, 32, 32)))
    save(root / "empty-lcc.npy", volume(0, (0, 32, 32)))
    save(root / "complex-lcc.npy", volume().astype(np.complex64))
    save(root / "text-lcc.npy", np.full(GRID, "a"))
    save(root / "object-lcc.npy", np.array([Trap(tmp_path / "trapped")]))
    save(root / "objects-lcc.npz", np.array([Trap(tmp_path / "trapped")]))
    save(root / "spacing-lcc.npz", volume(), spacing=np.array([Trap(tmp_path / "trapped")]))
    np.savez(root / "other-lcc.npz", image=volume())
    (root / "pickle-lcc.npy").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    (root / "pickle-lcc.npz").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    (root / "huge-lcc.npy").write_bytes(header((2**20, 2**20, 2**20)))
    (root / "huge-lcc.nii").write_bytes(claimed((2**12, 2**12, 2**12)))
    (root / "huge-lcc.nii.gz").write_bytes(gzip.compress(claimed((2**12, 2**12, 2**12))))
    (root / "cut-lcc.npy").write_bytes(header((64, 64, 64)))
    (root / "cut-lcc.nii.gz").write_bytes(gzip.compress(claimed((64, 64, 64))))
    (root / "text-lcc.nii.gz").write_text("no NIfTI")
    (root / "text-lcc.dcm").write_text("no DICOM")
    made = import_samples(root, tmp_path / "gan", toy)
    assert made.cases["file"].tolist() == ["good-lcc.npy"]
    assert not (tmp_path / "trapped").exists()
    assert rejected(made) == {
        "minus-lcc.npy": "values are not in [0, 1]",
        "hounsfield-lcc.nii.gz": "values are not in [0, 1]",
        "nan-lcc.npy": "values are not finite",
        "inf-lcc.npz": "values are not finite",
        "flat-lcc.npy": "not three-dimensional",
        "four-lcc.npy": "not three-dimensional",
        "empty-lcc.npy": "no voxels",
        "complex-lcc.npy": "not grey values",
        "text-lcc.npy": "not grey values",
        "object-lcc.npy": "holds Python objects",
        "objects-lcc.npz": "holds Python objects",
        "spacing-lcc.npz": "holds Python objects",
        "other-lcc.npz": "no array named volume",
        "pickle-lcc.npy": "cannot be read",
        "pickle-lcc.npz": "cannot be read",
        "huge-lcc.npy": "absurd size",
        "huge-lcc.nii": "absurd size",
        "huge-lcc.nii.gz": "absurd size",
        "cut-lcc.npy": "cannot be read",
        "cut-lcc.nii.gz": "cannot be read",
        "text-lcc.nii.gz": "cannot be read",
        "text-lcc.dcm": "not a DICOM file",
    }
    details = pd.read_csv(made.path / "rejected.csv").set_index("file")["detail"]
    assert "values in [-1, 1] become intensities as (x + 1) / 2" in details["minus-lcc.npy"]
    report = made.meta["import_report"]
    assert report["rows"] == 23 == report["imported"] + sum(report["rejected"].values())


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for suffix in ("npy", "npz", "mat", "nii", "nii.gz"):
        save(folder / f"a.{suffix}", volume(0, (2, 3, 4)))
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(["npy", "npz", "mat", "nii", "nii.gz"]), data=st.data())
def test_damaged_files_are_volumes_or_have_a_reason(
    originals: Path, tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    content = bytearray((originals / f"a.{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    try:
        found = read_array(path, data.draw(st.sampled_from([None, "lcc", "rmlo"]))).volume
    except UnreadableError as error:
        assert error.reason  # noqa: PT017
    else:
        assert found.ndim == 3
        assert -1e-5 <= found.min() <= found.max() <= 1 + 1e-5


# Continuing


def test_an_import_that_was_killed_continues_to_the_same_bytes(
    toy: DBTDataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        save(root / f"{index}-lcc.npy", volume(index) * (2 if index == 1 else 1))
    table(root / "boxes.csv", [box(f"{index}-lcc.npy", 1, 2, 3, 4, 5, 6) for index in range(6)])
    whole = import_samples(root, tmp_path / "whole" / "gan", toy)
    read, calls = samples._read, list[Path]()

    def dying(path: Path, *rest: Any) -> Any:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(samples, "_read", dying)
    with pytest.raises(KeyboardInterrupt):
        import_samples(root, tmp_path / "gan", toy)
    again = import_samples(root, tmp_path / "gan", toy)
    assert len(calls) == 4 + 6 - 3
    assert again.fingerprint == whole.fingerprint
    assert again.meta == whole.meta
    assert import_samples(root, tmp_path / "gan", toy).path == again.path
    assert len(calls) == 4 + 6 - 3  # finished work is found again


def test_other_files_are_another_data_set(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    save(root / "a-lcc.npy", volume())
    import_samples(root, tmp_path / "gan", toy)
    save(root / "b-lcc.npy", volume())
    with pytest.raises(UsageError, match="'gan' exists"):
        import_samples(root, tmp_path / "gan", toy)
    assert len(import_samples(root, tmp_path / "gan", toy, fresh=True)) == 2


def test_nothing_to_import_is_missing(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for folder, table_, message in (
        (tmp_path / "nowhere", None, "is not a folder"),
        (root, None, "no volume in"),
        (root, Path("boxes-v2.csv"), r"no table boxes-v2\.csv"),
    ):
        with pytest.raises(MissingError, match=message):
            import_samples(folder, tmp_path / "gan", toy, boxes=table_)
    save(root / "a.npy", volume())
    save(root / "b-lcc.npy", -volume())
    with pytest.raises(MissingError, match="none of the 2 volumes") as caught:
        import_samples(root, tmp_path / "gan", toy)
    assert "values are not in [0, 1] (1)" in str(caught.value)
    assert "no view in the name (1)" in str(caught.value)
    assert not (tmp_path / "gan").exists()


# The command


def test_the_command_prints_the_import_report_and_what_is_taken_on_trust(
    make_toy: Callable[..., DBTDataset], root: Path, tmp_path: Path
) -> None:
    make_toy(tmp_path / "work" / "datasets" / "toy", 2)
    save(root / "lcc.npy", volume())
    save(root / "front.npy", volume())
    table(root / "lesions.csv", [box("lcc.npy", 1, 2, 3, 4, 5, 6)])
    command = ["data", "import", "volumes", str(root), "--name", "sampled", "--data", "toy"]
    command += ["--boxes", "lesions.csv", "--workspace", str(tmp_path / "work")]
    text = CliRunner().invoke(cli.app, command).stdout
    assert "saw only the training split of the real data set toy" in text
    assert "volumes: 2 rows = 1 imported + 1 rejected" in text
    assert "1 × no view in the name" in text
    assert "dbtbench evaluate --task detection --aug sampled --data toy" in text
    report = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert (report["rows"], report["imported"]) == (2, 1)
    assert report["boxes"]["imported"] == 1
