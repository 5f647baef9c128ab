"""A data set leaves as files that other programs read, and comes back."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.data.dataset import GRID_BOX, KEY, SPACING, DBTDataset
from dbtbench.data.spacing import spacing_of
from dbtbench.data.verification import split_digest
from dbtbench.data.writer import DatasetWriter
from dbtbench.errors import UsageError
from dbtbench.exchange import export
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.exchange.export import export_dataset
from dbtbench.exchange.volumes.ingest import import_samples
from dbtbench.geometry.orientation import affine_of
from dbtbench.pipeline import generate
from dbtbench.workspace import Workspace

nibabel: Any = importlib.import_module("nibabel")  # has no types
torchio: Any = importlib.import_module("torchio")
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
FORMATS = tuple(export.SUFFIXES)


@pytest.fixture(scope="module")
def synthetic(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """The toy's training split, as if a generator had drawn it."""
    root = tmp_path_factory.mktemp("made")
    export_dataset(toy, root / "files", "npz", "train")
    return import_samples(root / "files", root / "gan", toy)


def measured(dataset: DBTDataset, **spacing: float) -> DBTDataset:
    """The data set, with known distances between its voxels."""
    return replace(dataset, cases=dataset.cases.assign(**spacing))


def file_of(out: Path, dataset: DBTDataset, row: int = 0) -> Path:
    return out / str(pd.read_csv(out / "volumes.csv")["file"][row])


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize("format_", FORMATS)
def test_every_volume_is_a_file_and_the_tables_say_what_it_shows(
    toy: DBTDataset, tmp_path: Path, format_: str
) -> None:
    files = export_dataset(toy, tmp_path / "out", format_)
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    volumes, boxes = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("volumes", "boxes"))
    pd.testing.assert_frame_equal(
        volumes[[*KEY, "label", "split"]], toy.cases[[*KEY, "label", "split"]], check_dtype=False
    )
    assert all((tmp_path / "out" / file).is_file() for file in volumes["file"])
    owners = boxes.merge(volumes, on="file")
    assert owners["PatientID"].tolist() == toy.boxes["PatientID"].tolist()
    np.testing.assert_allclose(boxes[GRID_BOX], toy.boxes[GRID_BOX])
    assert boxes["Class"].tolist() == toy.boxes["Class"].tolist()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_data_set_gives_the_same_bytes(toy: DBTDataset, tmp_path: Path, format_: str) -> None:
    for name in ("a", "b"):
        export_dataset(toy, tmp_path / name, format_, "validation")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("grid", [(1, 32, 32), (3, 47, 33)])
@pytest.mark.parametrize("drawn", [False, True])
def test_dciodvfy_finds_no_error_in_any_view(
    make_toy: Callable[..., DBTDataset], tmp_path: Path, grid: tuple[int, int, int], drawn: bool
) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    dataset = make_toy(tmp_path / "toy", 2, grid)
    if drawn:
        export_dataset(dataset, tmp_path / "npz", "npz", "train")
        dataset = import_samples(tmp_path / "npz", tmp_path / "a-rather-long-generator-name", dataset)
    export_dataset(dataset, tmp_path / "out", "dicom")
    for row, view in enumerate(VIEWS):
        path = file_of(tmp_path / "out", dataset, row)
        assert f"-{view}." in path.name
        done = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
        assert "BreastTomosynthesisImage" in done.stdout + done.stderr
        assert "Error" not in done.stdout + done.stderr


def derivation(dataset: pydicom.Dataset) -> pydicom.Dataset:
    item: pydicom.Dataset = dataset.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0]
    return item


def test_a_synthetic_file_says_that_it_is_and_what_drew_it(synthetic: DBTDataset, tmp_path: Path) -> None:
    export_dataset(synthetic, tmp_path / "out", "dicom")
    file = pydicom.dcmread(file_of(tmp_path / "out", synthetic))
    assert file.ImageType[0] == "DERIVED"
    said = derivation(file)
    assert said.DerivationDescription.startswith("synthetic: drawn by gan (version 1, run ")
    assert "not a patient" in said.DerivationDescription
    assert said.DerivationCodeSequence[0].CodeMeaning == "Drawn by a generative model"
    assert file.PatientIdentityRemoved == "YES"


def test_a_real_file_says_that_it_is_derived_and_nothing_of_being_synthetic(
    toy: DBTDataset, tmp_path: Path
) -> None:
    export_dataset(toy, tmp_path / "out", "dicom")
    path = file_of(tmp_path / "out", toy)
    file = pydicom.dcmread(path)
    assert file.ImageType[0] == "DERIVED"
    said = derivation(file)
    assert said.DerivationDescription.startswith(
        "resampled to 8 x 32 x 32 voxels and windowed (none), from the data set toy"
    )
    assert said.DerivationCodeSequence[0].CodeMeaning == "Spatial resampling"
    assert "PatientIdentityRemoved" not in file
    assert "synthetic" not in str(file).lower()


def test_uids_are_those_of_the_data_set_and_the_case(
    toy: DBTDataset, synthetic: DBTDataset, tmp_path: Path
) -> None:
    export_dataset(toy, tmp_path / "real", "dicom", "train")
    export_dataset(synthetic, tmp_path / "drawn", "dicom")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in tmp_path.glob("*/*.dcm")]
    assert len(set(uids)) == len(uids) == 2 * len(synthetic)  # the same patients, studies and views


@pytest.mark.parametrize("window", ["dicom", "duke", "none"])
def test_dicom_files_come_back_as_a_collection(toy: DBTDataset, tmp_path: Path, window: str) -> None:
    export_dataset(toy, tmp_path / "out", "dicom")
    back = import_bcs_dbt(tmp_path / "out", tmp_path / "back", ImportSettings(toy.grid, window=window))
    assert back.meta["import_report"]["imported"] == len(toy)
    assert back.meta["split"]["kind"] == "official"
    order = back.cases.merge(toy.cases, on=KEY, suffixes=("", "_toy"))
    assert order["split"].tolist() == order["split_toy"].tolist()
    assert order["label"].tolist() == order["label_toy"].tolist()
    np.testing.assert_allclose(back.volumes(), toy.volumes(order["case_toy"]), atol=0.5 / 1023 + 2e-5)
    boxes = back.boxes.merge(toy.boxes, on=KEY, suffixes=("", "_toy"))
    assert len(boxes) == len(toy.boxes) == back.meta["import_report"]["boxes"]["imported"]
    in_plane = ["y0", "x0", "y1", "x1"]
    np.testing.assert_allclose(boxes[in_plane], boxes[[f"{name}_toy" for name in in_plane]], atol=1e-4)
    middle = (boxes["z0_toy"] + boxes["z1_toy"]) / 2  # the tables name one slice and give it half a voxel
    np.testing.assert_allclose((boxes["z0"] + boxes["z1"]) / 2, middle, atol=0.5)


def test_boxes_turn_with_a_volume_that_the_official_reader_turns(tmp_path: Path) -> None:
    """Readers that go by the pixels turn a volume that shows the other breast than its view says."""
    grid, rng = (4, 32, 32), np.random.default_rng(0)
    volume = np.linspace(0.9, 0.1, 32) * np.ones(grid) + 0.05 * rng.random(grid)
    case: dict[str, Any] = {
        "PatientID": "P1",
        "StudyUID": "S1",
        "View": "rcc",
        "label": "cancer",
        "split": "train",
    }
    case |= dict(zip(("slices", "rows", "columns"), grid, strict=True)) | {"flipped": False, "file": ""}
    box = dict(zip(GRID_BOX, (1.0, 2.0, 3.0, 3.0, 8.0, 11.0), strict=True)) | {"Class": "cancer", "AD": 1}
    native = {"Subject": 0, "Slice": 2, "X": 3, "Y": 2, "Width": 8, "Height": 6, "VolumeSlices": 4}
    with DatasetWriter(tmp_path / "odd", grid, 1, {}) as writer:
        writer.add(0, volume.astype(np.float32), case, [box | native])
        meta: dict[str, Any] = {"intensity": {}, "source": {"kind": "toy"}, "split": {}}
        odd = writer.finish(meta, split_digest({"P1": "train"}))
    export_dataset(odd, tmp_path / "out", "dicom")
    back = import_bcs_dbt(tmp_path / "out", tmp_path / "back", ImportSettings(grid))
    assert back.cases["flipped"].tolist() == [True]
    np.testing.assert_allclose(back.volumes()[..., ::-1, ::-1], odd.volumes(), atol=1e-3)
    assert back.boxes[["y0", "x0", "y1", "x1"]].to_numpy().tolist() == [[24, 21, 30, 29]]
    assert back.boxes["AD"].tolist() == [1]


@pytest.mark.parametrize(("row", "view"), list(enumerate(VIEWS)))
def test_nifti_is_read_by_nibabel_and_torchio(toy: DBTDataset, tmp_path: Path, row: int, view: str) -> None:
    known = measured(toy, z_mm=5.0, y_mm=3.5, x_mm=3.0)
    export_dataset(known, tmp_path / "out", "nifti", "train")
    path = file_of(tmp_path / "out", known, row)
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), toy.volumes([row])[0, 0].T)
    assert image.header.get_zooms() == (3.0, 3.5, 5.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["descrip"].item() == b""
    # Columns of a left breast run forwards; rows run to the middle of the body and slices to the tube.
    front, middle = ("A", "R") if view[0] == "l" else ("P", "L")
    assert nibabel.aff2axcodes(image.affine) == (front, middle, "S")
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)
    torch_image = torchio.ScalarImage(path)
    np.testing.assert_array_equal(torch_image.numpy()[0], toy.volumes([row])[0, 0].T)
    np.testing.assert_allclose(torch_image.spacing, (3.0, 3.5, 5.0), rtol=1e-6)
    assert torch_image.orientation == nibabel.aff2axcodes(image.affine)


@pytest.mark.parametrize("view", VIEWS)
def test_nifti_and_dicom_say_the_same_place(toy: DBTDataset, tmp_path: Path, view: str) -> None:
    """An index's place in the body, from the DICOM header (PS3.3 C.7.6.2.1.1) and from the affine."""
    known = measured(toy, z_mm=5.0, y_mm=3.5, x_mm=3.0)
    export_dataset(known, tmp_path / "out", "dicom", "train")
    file = pydicom.dcmread(file_of(tmp_path / "out", known, VIEWS.index(view)))
    shared = file.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    corner = file.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient
    row, column = 3, 7
    left_posterior = np.array(corner, float) + cosines[0] * 3.0 * column + cosines[1] * 3.5 * row
    right_anterior = affine_of(view, (5.0, 3.5, 3.0)) @ [column, row, 2, 1]
    np.testing.assert_allclose(right_anterior[:3], left_posterior * [-1, -1, 1], atol=1e-3)


def test_spacing_is_the_stored_voxels_own_or_the_original_pixels_or_nominal() -> None:
    case = {"slices": 60, "rows": 2400, "columns": 1920}
    grid = (8, 64, 64)
    nan = float("nan")
    spacing, nominal = spacing_of(case, grid)
    assert spacing == pytest.approx((7.5, 3.75, 3.0))
    assert nominal
    unknown = {**case, "pixel_mm": nan, "z_mm": nan, "y_mm": nan, "x_mm": nan}
    assert spacing_of(unknown, grid) == spacing_of(case, grid)
    assert spacing_of(unknown | {"pixel_mm": 0.2}, grid) == ((7.5, 7.5, 6.0), True)
    assert spacing_of(unknown | {"z_mm": 6.0, "y_mm": 4.0, "x_mm": 2.0}, grid) == ((6.0, 4.0, 2.0), False)


def test_nominal_spacing_is_called_so(toy: DBTDataset, tmp_path: Path) -> None:
    export_dataset(toy, tmp_path / "nifti", "nifti", "train")
    image = nibabel.load(file_of(tmp_path / "nifti", toy))
    assert image.header["descrip"].item() == b"nominal spacing"
    assert image.header.get_zooms() == (7.0, 7.0, 1.0)  # the toy knows its pixels
    export_dataset(toy, tmp_path / "dicom", "dicom", "train")
    file = pydicom.dcmread(file_of(tmp_path / "dicom", toy))
    assert derivation(file).DerivationDescription.endswith("; nominal spacing")


def test_npz_holds_plain_arrays_and_no_time(toy: DBTDataset, tmp_path: Path) -> None:
    export_dataset(measured(toy, z_mm=5.0, y_mm=3.5, x_mm=3.0), tmp_path / "out", "npz")
    path = file_of(tmp_path / "out", toy)
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["boxes", "spacing", "volume"]
        np.testing.assert_array_equal(arrays["volume"], toy.volumes([0])[0, 0])
        assert arrays["volume"].dtype == np.float32
        np.testing.assert_array_equal(arrays["spacing"], [5.0, 3.5, 3.0])
        np.testing.assert_array_equal(arrays["boxes"], toy.boxes_of(0))
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_synthetic_case_has_the_spacing_of_the_case_it_was_drawn_after(
    toy: DBTDataset, tmp_path: Path
) -> None:
    known = measured(toy, z_mm=toy.cases["case"] + 0.5, y_mm=3.5, x_mm=float("nan"))
    work = Workspace(tmp_path)
    fitted = replace(generate.fit(work, "classic", toy), data=known)
    drawn = generate.draw(work, fitted, n=4).cases
    assert drawn["z_mm"].tolist() == (drawn["source"] + 0.5).tolist()
    assert drawn["y_mm"].tolist() == [3.5] * 4
    assert drawn["x_mm"].isna().all()
    before = replace(known, cases=toy.cases.drop(columns=SPACING))
    assert generate.draw(work, replace(fitted, data=before), n=3).cases[SPACING].isna().all(axis=None)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_that_was_killed_continues_to_the_same_bytes(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    export_dataset(toy, tmp_path / "whole", format_)
    write, calls = export.WRITERS[format_], list[Path]()

    def dying(path: Path, *rest: Any) -> None:
        calls.append(path)
        if len(calls) == 7:
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setitem(export.WRITERS, format_, dying)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(toy, tmp_path / "out", format_)
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in calls[:6]}
    assert not (tmp_path / "out" / "volumes.csv").exists()
    export_dataset(toy, tmp_path / "out", format_)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_a_folder_that_holds_something_else_is_refused(
    toy: DBTDataset, synthetic: DBTDataset, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no export"):
        export_dataset(toy, tmp_path / "full", "npz")
    with pytest.raises(UsageError, match=r"thesis\.txt is a file"):
        export_dataset(toy, tmp_path / "full" / "thesis.txt", "npz")
    export_dataset(toy, tmp_path / "out", "npz", "test")
    for dataset, format_, split, changed in (
        (synthetic, "npz", None, "data, fingerprint, source, split"),
        (toy, "nifti", "test", "format"),
        (toy, "npz", "train", "split"),
    ):
        with pytest.raises(UsageError, match=rf"holds another export \(its {changed} differs\)"):
            export_dataset(dataset, tmp_path / "out", format_, split)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    toy: DBTDataset, synthetic: DBTDataset, make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    small = make_toy(tmp_path / "small", 1, (4, 16, 32))
    for dataset, format_, split, message in (
        (toy, "png", None, "no format named 'png'"),
        (toy, "npz", "holdout", "no split named 'holdout'"),
        (synthetic, "npz", "test", "gan has no volume in the split test"),
        (small, "dicom", None, r"small: DICOM files need at least 32 × 32 pixels, not 16 × 32"),
    ):
        with pytest.raises(UsageError, match=message):
            export_dataset(dataset, tmp_path / "out", format_, split)
    assert not (tmp_path / "out").exists()


def test_hostile_names_stay_in_the_folder_and_inside_their_attributes(
    toy: DBTDataset, tmp_path: Path
) -> None:
    name = "../" * 3 + "=cmd\\^ö" + "x" * 80
    odd = replace(toy, cases=toy.cases.assign(PatientID=name, StudyUID=name)).take(toy.cases["case"] == 0)
    files = export_dataset(odd, tmp_path / "out", "dicom")
    assert {path.resolve().parent for path in files} == {(tmp_path / "out").resolve()}
    file = pydicom.dcmread(next((tmp_path / "out").glob("*.dcm")))
    assert len(file.StudyID) <= 16
    assert len(file.PatientID) <= 64


def test_the_command_says_what_it_wrote(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    make_toy(tmp_path / "work" / "datasets" / "toy", 2)
    command = ["data", "export", "--data", "toy", "--format", "npz", "--out", str(tmp_path / "out")]
    command += ["--workspace", str(tmp_path / "work")]
    done = CliRunner().invoke(cli.app, [*command, "--json"])
    found = json.loads(done.stdout)
    assert found == {"volumes": 8, "files": 11, "out": str(tmp_path / "out")}
    assert len(list((tmp_path / "out").iterdir())) == 11
    text = CliRunner().invoke(cli.app, command).stdout
    assert "toy: 8 volumes, 11 files in" in text
    assert "dbtbench data import volumes" in text
