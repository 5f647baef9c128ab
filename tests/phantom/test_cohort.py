"""Collections in the layout of BCS-DBT."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray

from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import LABELS
from dbtbench.errors import UsageError
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.phantom.acquisition import Geometry
from dbtbench.phantom.anatomy import Breast
from dbtbench.phantom.axes import Shares
from dbtbench.phantom.cohort import (
    ENRICHED,
    SCREENING,
    VIEWS,
    CollectionSummary,
    draw_patients,
    measure_contrast,
    write_collection,
)
from dbtbench.phantom.simulation import PRESETS, Box, simulate

PATIENTS = 5
TABLES = [f"BCS-DBT-{name}-train-v2.csv" for name in ("file-paths", "labels", "boxes", "axes")]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> CollectionSummary:
    return write_collection(tmp_path_factory.mktemp("phantom") / "one", "tiny", PATIENTS, seed=3, jobs=1)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"BCS-DBT-{name}-train-v2.csv")


def test_patients_do_not_depend_on_how_many_there_are() -> None:
    few, many = draw_patients(4, 0, {"cancer": 1}), draw_patients(40, 0, {"cancer": 1})
    assert few == many[:4]
    assert draw_patients(4, 1, {"cancer": 1}) != few


def test_labels_are_shuffled_and_follow_the_seed() -> None:
    labels = [[p.label for p in draw_patients(20, seed, ENRICHED)] for seed in (0, 0, 1)]
    assert labels[0] == labels[1] != labels[2]
    assert labels[0] != sorted(labels[0], key=LABELS.index)


def test_tables_have_the_columns_of_bcs_dbt(collection: CollectionSummary) -> None:
    key = ["PatientID", "StudyUID", "View"]
    assert list(table(collection.root, "file-paths")) == [*key, "descriptive_path", "classic_path"]
    assert list(table(collection.root, "labels")) == [*key, "Normal", "Actionable", "Benign", "Cancer"]
    assert list(table(collection.root, "boxes")) == (
        [*key, "Subject", "Slice", "X", "Y", "Width", "Height", "Class", "AD", "VolumeSlices"]
    )


def test_every_volume_has_its_file_and_one_label(collection: CollectionSummary) -> None:
    paths, labels = table(collection.root, "file-paths"), table(collection.root, "labels")
    assert len(paths) == len(labels) == 4 * PATIENTS
    assert all((collection.root / file).is_file() for file in paths["descriptive_path"])
    assert (labels[["Normal", "Actionable", "Benign", "Cancer"]].sum(axis=1) == 1).all()
    assert paths["PatientID"].iloc[0] == "DBT-P00001"
    assert paths["StudyUID"].iloc[-1] == "DBT-S00005"


def test_a_lesion_shows_in_both_views_of_one_breast(collection: CollectionSummary) -> None:
    boxes, labels = table(collection.root, "boxes"), table(collection.root, "labels")
    assert len(boxes) == collection.boxes > 0
    for _, of_patient in boxes.groupby("PatientID"):
        assert sorted(of_patient["View"]) in (["lcc", "lmlo"], ["rcc", "rmlo"])
        assert len(of_patient[["Class", "AD"]].drop_duplicates()) == 1
    marked = labels[(labels["Benign"] == 1) | (labels["Cancer"] == 1)]
    assert set(zip(marked["PatientID"], marked["View"], strict=True)) == set(
        zip(boxes["PatientID"], boxes["View"], strict=True)
    )


def test_boxes_lie_inside_their_volume(collection: CollectionSummary) -> None:
    boxes = table(collection.root, "boxes")
    assert (boxes[["Width", "Height"]] >= 2).all(axis=None)
    assert (boxes[["X", "Y", "Slice"]] >= 0).all(axis=None)
    assert (boxes["X"] + boxes["Width"] <= 64).all()
    assert (boxes["Y"] + boxes["Height"] <= 64).all()
    assert (boxes["Slice"] < boxes["VolumeSlices"]).all()
    assert (boxes["VolumeSlices"] == 8).all()


def test_a_recalled_study_is_actionable_in_all_views_without_boxes() -> None:
    (patient,) = draw_patients(1, 0, {"actionable": 1})
    assert {patient.label_of(view) for view in ("lcc", "lmlo", "rcc", "rmlo")} == {"actionable"}
    assert patient.lesion is not None
    assert patient.lesion.kind == "asymmetry"


def test_the_official_rule_recovers_the_displayed_orientation(collection: CollectionSummary) -> None:
    """Image laterality is R if the first column of frame 0 sums to less than the last; both axes flip if the
    view's laterality is the other one (Duke's reader). Stored as they are, some files disagree."""
    turned = 0
    expected = {p.patient_id: p for p in draw_patients(PATIENTS, 3, ENRICHED)}
    for row in table(collection.root, "file-paths").itertuples():
        pixels = pydicom.dcmread(collection.root / row.descriptive_path).pixel_array
        image = "r" if pixels[0, :, 0].sum() < pixels[0, :, -1].sum() else "l"
        flipped = image != row.View[0]
        assert flipped == (row.View in expected[row.PatientID].rotated)
        turned += flipped
        displayed = pixels[:, ::-1, ::-1] if flipped else pixels
        assert brightest_edge(displayed) == row.View[0]
    assert turned > 0


def brightest_edge(frames: NDArray[np.uint16]) -> str:
    return "l" if frames[..., :20].sum() > frames[..., -20:].sum() else "r"


def test_about_fifteen_per_cent_are_stored_rotated() -> None:
    rotated = [len(p.rotated) for p in draw_patients(500, 0, {"normal": 1})]
    assert sum(rotated) / 2000 == pytest.approx(0.15, abs=0.03)


def test_the_same_seed_gives_the_same_bytes_on_two_processes(
    collection: CollectionSummary, tmp_path: Path
) -> None:
    again = write_collection(tmp_path / "two", "tiny", PATIENTS, seed=3, jobs=2)
    assert digests(again.root) == digests(collection.root)
    assert (again.patients, again.volumes) == (collection.patients, collection.volumes)


def test_finished_files_are_kept_and_missing_ones_are_made_again(tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    write_collection(root, "tiny", 1, jobs=1)
    before = digests(root)
    lost, kept = root / "DBT-P00001/DBT-S00001/rcc/1-1.dcm", root / "DBT-P00001/DBT-S00001/lcc/1-1.dcm"
    lost.unlink()
    (root / TABLES[1]).unlink()
    written = kept.stat().st_mtime_ns
    write_collection(root, "tiny", 1, jobs=1)
    assert digests(root) == before
    assert kept.stat().st_mtime_ns == written


def test_a_folder_made_with_other_settings_is_refused(collection: CollectionSummary) -> None:
    with pytest.raises(UsageError, match=r"another phantom \(its seed, mix differs"):
        write_collection(collection.root, "tiny", PATIENTS, seed=4, mix=SCREENING)


def test_a_folder_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text('{"version": 1, "preset": "tiny", "device": "cpu"}')
    with pytest.raises(UsageError, match="was written by version 1 of the phantom, this is version"):
        write_collection(tmp_path, "tiny", 1)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / TABLES[0]).write_text("somebody's")
    with pytest.raises(UsageError, match="is not empty"):
        write_collection(tmp_path, "tiny", 1)
    assert [path.name for path in tmp_path.iterdir()] == [TABLES[0]]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"preset": "huge", "patients": 1}, "no preset named 'huge'"),
        ({"preset": "tiny", "patients": 0}, "patients 0"),
        ({"preset": "tiny", "patients": 1, "jobs": 0}, "0 jobs"),
        ({"preset": "tiny", "patients": 1, "seed": -1}, "seed -1"),
        ({"preset": "tiny", "patients": 1, "mix": {"malignant": 1.0}}, "no label named 'malignant'"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path: Path, settings: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        write_collection(tmp_path / "x", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def test_denser_lesions_change_the_views_that_have_one_and_no_others(
    collection: CollectionSummary, tmp_path: Path
) -> None:
    dense = write_collection(tmp_path / "dense", "tiny", PATIENTS, seed=3, axes={"conspicuity": {3.0: 1}})
    patients = draw_patients(PATIENTS, 3, ENRICHED)

    def pixels(root: Path, file: str) -> NDArray[np.uint16]:
        return pydicom.dcmread(root / file).pixel_array

    views = [(patient, view) for patient in patients for view in VIEWS]
    changed = [
        (patient.number, view)
        for patient, view in views
        if not np.array_equal(
            pixels(collection.root, patient.path(view)), pixels(dense.root, patient.path(view))
        )
    ]
    assert changed == [(patient.number, view) for patient, view in views if patient.lesion_in(view)]
    assert changed


def test_axes_are_met_by_share_and_recorded_for_every_volume(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    axes: dict[str, Shares] = {
        "density": {"b": 1, "d": 1},
        "dose": {0.5: 1, 1.0: 1},
        "lesion_kind": {"mass": 1},
        "lesion_size": {12.0: 1},
        "conspicuity": {2.0: 1},
    }
    root = tmp_path_factory.mktemp("axes") / "phantom"
    write_collection(root, "tiny", 4, mix={"normal": 1, "cancer": 1}, axes=axes, jobs=1)
    made = table(root, "axes")
    assert sorted(made.groupby("PatientID")["breast_density"].first()) == ["b", "b", "d", "d"]
    assert sorted(made.groupby("PatientID")["dose"].first()) == [0.5, 0.5, 1, 1]
    boxed = made["lesion_kind"].notna()
    assert boxed.sum() == len(table(root, "boxes")) == 4
    assert set(made["lesion_kind"].dropna()) == {"mass"}
    assert set(made["lesion_size_mm"].dropna()) == {12}
    assert made.loc[boxed, ["lesion_contrast", "lesion_contrast_imaged"]].notna().all(axis=None)
    assert made.loc[~boxed, made.columns[5:]].isna().all(axis=None)
    contrasts = [p.lesion.contrast for p in draw_patients(4, 0, {"normal": 1, "cancer": 1}, axes) if p.lesion]
    assert made["lesion_contrast"].dropna().unique() == pytest.approx([2 * c for c in contrasts], abs=5e-4)
    dataset = import_bcs_dbt(root, root.parent / "made", ImportSettings())
    columns = ["PatientID", "View", *AXIS_COLUMNS]
    pd.testing.assert_frame_equal(dataset.cases[columns], made[columns], check_dtype=False)


def test_a_quarter_of_the_dose_has_between_two_and_four_times_the_noise(scattered: Breast) -> None:
    clean, full, quarter = (
        simulate(PRESETS["tiny"], scattered, "lcc", None, [0], Geometry(quanta=Geometry.quanta * dose))
        for dose in (1e6, 1.0, 0.25)
    )
    tissue = clean > 250
    noise = [(noisy[tissue].astype(float) - clean[tissue]).std() for noisy in (full, quarter)]
    assert 2 < noise[1] / noise[0] < 4  # quanta alone would give 2, electronic noise alone 4


def test_contrast_is_measured_inside_the_box_against_a_ring_in_the_breast() -> None:
    image = np.full((60, 60), 0.3, np.float32)
    image[:, 40:] = 0.0  # air: no surroundings
    rows, columns = np.indices(image.shape) + 0.5
    image[np.hypot((rows - 20) / 10, (columns - 30) / 8) <= 1] = 0.5
    assert measure_contrast(image, Box(0, 22, 10, 16, 20)) == pytest.approx(0.2)
    assert measure_contrast(image, Box(0, 2, 40, 10, 10)) == 0
    assert np.isnan(measure_contrast(np.zeros((9, 9), np.float32), Box(0, 3, 3, 3, 3)))
