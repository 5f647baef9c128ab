from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from dbtbench.data import ingest
from dbtbench.data.dataset import NATIVE_BOX, DBTDataset
from dbtbench.data.dicom import image_laterality
from dbtbench.data.ingest import ImportSettings, import_bcs_dbt
from dbtbench.errors import MissingError, UsageError


@pytest.fixture(scope="module")
def imported(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    return import_bcs_dbt(collection, tmp_path_factory.mktemp("datasets") / "phantom", ImportSettings())


@pytest.fixture
def copy(collection: Path, tmp_path: Path) -> Path:
    """A collection that a test may damage."""
    return Path(shutil.copytree(collection, tmp_path / "copy"))


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.dcm"))


def test_every_row_of_the_tables_is_imported(imported: DBTDataset, collection: Path) -> None:
    labels = pd.read_csv(collection / "BCS-DBT-labels-train-v2.csv")
    assert imported.cases["PatientID"].tolist() == labels["PatientID"].tolist()
    assert imported.cases["View"].tolist() == labels["View"].tolist()
    assert imported.meta["rejected"] == 0
    assert imported.grid == (8, 64, 64)


def test_volumes_are_windowed_and_as_displayed(imported: DBTDataset, collection: Path) -> None:
    rotated = 0
    for case in imported.cases.itertuples():
        stored = pydicom.dcmread(collection / case.file)
        window = stored.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        low = float(window.WindowCenter) - float(window.WindowWidth) / 2
        expected = np.clip((stored.pixel_array.astype(float) - low) / float(window.WindowWidth), 0, 1)
        expected = expected[:, ::-1, ::-1] if case.flipped else expected
        volume = imported.volumes([case.case])[0, 0]
        np.testing.assert_allclose(volume, expected, atol=1e-4)  # the grid is the phantom's own
        assert image_laterality((volume[0] * 1000).astype(np.uint16)) == case.View[0]
        rotated += case.flipped
    assert 0 < rotated < len(imported)


def test_boxes_keep_their_native_columns_and_lie_in_the_grid(imported: DBTDataset, collection: Path) -> None:
    table = pd.read_csv(collection / "BCS-DBT-boxes-train-v2.csv")
    assert len(imported.boxes) == len(table) > 0
    pd.testing.assert_frame_equal(imported.boxes[NATIVE_BOX], table[NATIVE_BOX], check_dtype=False)
    for box in imported.boxes.itertuples():
        assert 0 <= box.z0 < box.z1 <= 8
        assert (box.x0, box.x1, box.y0, box.y1) == (box.X, box.X + box.Width, box.Y, box.Y + box.Height)


def test_a_coarser_grid_holds_area_means(collection: Path, imported: DBTDataset, tmp_path: Path) -> None:
    small = import_bcs_dbt(collection, tmp_path / "small", ImportSettings((4, 32, 16)))
    means = imported.volumes()[:, 0].reshape(-1, 4, 2, 32, 2, 16, 4).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(small.volumes()[:, 0], means, atol=1e-4)
    np.testing.assert_allclose(small.boxes["x1"], imported.boxes["x1"] / 4)


def test_torchio_is_the_other_way_to_resample(collection: Path, imported: DBTDataset, tmp_path: Path) -> None:
    other = import_bcs_dbt(collection, tmp_path / "t", ImportSettings((8, 32, 32), "torchio"))
    assert other.meta["intensity"] == {"window": "dicom", "resample": "torchio"}
    area = imported.volumes()[:, 0].reshape(-1, 8, 32, 2, 32, 2).mean(axis=(3, 5))
    correlation = np.corrcoef(other.volumes().ravel(), area.ravel())[0, 1]
    assert correlation > 0.97
    with pytest.raises(UsageError, match="'nearest'"):
        ImportSettings(resample="nearest")


def test_what_cannot_be_read_is_a_row_with_its_reason_and_the_import_goes_on(
    copy: Path, tmp_path: Path
) -> None:
    missing, text, cut, other = files(copy)[:4]
    missing.unlink()
    text.write_text("no DICOM")
    cut.write_bytes(cut.read_bytes()[:-3000])
    wrong = pydicom.dcmread(other)
    wrong.file_meta.MediaStorageSOPClassUID = wrong.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    wrong.save_as(other)
    dataset = import_bcs_dbt(copy, tmp_path / "d", ImportSettings())
    rejected = pd.read_csv(dataset.path / "rejected.csv")
    assert len(dataset) + len(rejected) == 16
    reasons = dict(zip(rejected["file"], rejected["reason"], strict=True))
    assert reasons.pop(cut.relative_to(copy).as_posix())  # the decoder's own words
    assert reasons == {
        missing.relative_to(copy).as_posix(): "file not found",
        text.relative_to(copy).as_posix(): "not a DICOM file",
        other.relative_to(copy).as_posix(): "not Breast Tomosynthesis Image Storage",
    }


def test_a_path_out_of_the_collection_is_rejected(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.dcm"
    shutil.move(files(copy)[0], outside)
    paths = copy / "BCS-DBT-file-paths-train-v2.csv"
    table = pd.read_csv(paths)
    table.loc[0, ["descriptive_path", "classic_path"]] = ["../outside.dcm", str(outside)]
    table.to_csv(paths, index=False)
    dataset = import_bcs_dbt(copy, tmp_path / "d", ImportSettings())
    assert pd.read_csv(dataset.path / "rejected.csv")["reason"].tolist() == ["path leaves the collection"]


def test_an_import_where_nothing_is_readable_is_an_error(copy: Path, tmp_path: Path) -> None:
    for file in files(copy):
        file.unlink()
    with pytest.raises(MissingError, match=r"none of the 16 volumes.*file not found \(16\)"):
        import_bcs_dbt(copy, tmp_path / "d", ImportSettings())


def test_an_import_that_was_killed_continues_to_the_same_bytes(
    collection: Path, imported: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = ingest.read_volume, []

    def dying(path: Path, view: str, settings: ImportSettings) -> object:
        calls.append(path)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return read(path, view, settings)

    monkeypatch.setattr(ingest, "read_volume", dying)
    with pytest.raises(KeyboardInterrupt):
        import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings())
    again = import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings())
    assert len(calls) == 7 + 16 - 6
    assert again.fingerprint == imported.fingerprint
    stored = sorted(p for p in imported.path.rglob("*") if p.is_file())
    assert [p.read_bytes() for p in stored] == [
        (again.path / p.relative_to(imported.path)).read_bytes() for p in stored
    ]


def test_a_finished_import_is_found_again(
    collection: Path, imported: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "read_volume", None)
    assert import_bcs_dbt(collection, imported.path, ImportSettings()).fingerprint == imported.fingerprint
    with pytest.raises(UsageError, match="other settings"):
        import_bcs_dbt(collection, imported.path, ImportSettings(seed=1))
