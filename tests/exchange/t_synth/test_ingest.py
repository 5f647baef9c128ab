"""The import of T-SYNTH: boxes where the masses are, and a reason for everything that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.check import check_dataset
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.t_synth import ingest, reconstruction, window
from dbtbench.exchange.t_synth.examples import CONTRADICTION, UNKNOWN_FOLDER
from dbtbench.exchange.t_synth.finding import DICOM_ONLY, NO_HEADER, NO_PLACE, NOT_LESION_FREE, SEVERAL
from dbtbench.exchange.t_synth.header import BAD_HEADER, BAD_PLACE, OUTSIDE
from dbtbench.exchange.t_synth.ingest import import_t_synth
from dbtbench.exchange.t_synth.reconstruction import NOT_FINITE, ONE_VALUE, TOO_LARGE, WRONG_LENGTH
from dbtbench.runtime.pool import Pool

WriteExample = Callable[..., Path]
GRID = (6, 40, 30)
"""That of the files, as displayed."""


@pytest.fixture(scope="module")
def imported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    return import_t_synth(small, tmp_path_factory.mktemp("imported") / "t-synth", GRID)


def content(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def test_the_report_counts_the_whole_collection_and_the_checks_pass(imported: DBTDataset) -> None:
    report = imported.meta["import_report"]
    assert (report["rows"], report["imported"], report["missing"], report["rejected"]) == (9000, 10, 8990, {})
    assert (report["boxes"]["rows"], report["boxes"]["imported"]) == (4500, 5)
    assert [check.name for check in check_dataset(imported.path) if not check.ok] == []
    left = {entry.name for entry in imported.path.parent.iterdir()}
    assert left == {"t-synth", ".t-synth.lock"}


def test_labels_axes_and_splits_come_from_the_folders(imported: DBTDataset) -> None:
    cases = imported.cases
    odd = cases["StudyUID"].str[-3:].astype(int) % 2 == 1
    assert (cases["label"] == odd.map({True: "cancer", False: "normal"})).all()
    assert (imported.positive == odd).all()
    axes = cases[["breast_density", "mass_radius_mm", "mass_density"]].drop_duplicates()
    assert axes.to_numpy().tolist() == [["fatty", 5.0, 1.06], ["dense", 7.0, 1.1]]
    assert cases.groupby("PatientID")["split"].nunique().eq(1).all()
    assert dict(cases.groupby("split").size()) == {"train": 6, "test": 2, "validation": 2}
    assert set(cases["View"]) == {"lcc"}
    assert cases[["z_mm", "y_mm", "x_mm"]].drop_duplicates().to_numpy().tolist() == [[1.0, 2.0, 2.0]]


def test_the_box_is_where_the_ball_is(imported: DBTDataset) -> None:
    for case in imported.boxes["case"]:
        bright = np.argwhere(imported.volumes([case])[0, 0] > 0.9)
        [box] = imported.boxes_of(case)
        low, high = bright.min(axis=0), bright.max(axis=0) + 1
        np.testing.assert_allclose([low[1:], high[1:]], [box[1:3], box[4:6]], atol=0.5)
        counts = np.bincount(bright[:, 0])
        widest = np.flatnonzero(counts == counts.max()).mean() + 0.5  # a few slices are equally wide
        assert box[0] <= widest <= box[3]
    assert imported.boxes["Width"].value_counts().to_dict() == {
        5.0: 4,
        7.0: 1,
    }  # twice the radius, 2 mm a pixel


def test_the_chest_wall_is_at_the_left_and_the_lowest_row_is_the_first_of_the_file(
    imported: DBTDataset, small: Path
) -> None:
    volume = imported.volumes()[:, 0].mean(axis=(0, 1))
    assert volume[:, 0].mean() > 0.3 > 0.05 > volume[:, -1].mean()
    case = imported.cases.iloc[1]
    raw = np.fromfile(small / case["file"]).reshape(6, 30, 40)
    low, high = imported.meta["intensity"]["low"], imported.meta["intensity"]["high"]
    for row, column in ((0, 0), (39, 29), (17, 5)):
        expected = np.clip((raw[2, column, 39 - row] - low) / (high - low), 0, 1)
        assert imported.volumes([case["case"]])[0, 0, 2, row, column] == pytest.approx(expected, abs=1e-4)


def test_the_window_is_that_of_the_training_volumes(imported: DBTDataset, small: Path) -> None:
    train = imported.cases.loc[imported.cases["split"] == "train", "file"]
    values = np.concatenate(
        [np.fromfile(small / file).reshape(6, -1)[[0, 1, 3, 4, 5]].ravel() for file in train]
    )
    intensity = imported.meta["intensity"]
    assert intensity["measured_on"] == "6 training volumes"
    assert [intensity["low"], intensity["high"]] == pytest.approx(
        np.quantile(values, [0.005, 0.995]), rel=1e-3
    )


def test_the_number_of_processes_changes_nothing(imported: DBTDataset, small: Path, tmp_path: Path) -> None:
    with Pool(2) as pool:
        again = import_t_synth(small, tmp_path / "t-synth", GRID, pool)
    assert content(again.path) == content(imported.path)


def test_a_call_that_was_stopped_is_continued_to_the_same_bytes(
    imported: DBTDataset, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What no handler catches."""

    read, count = reconstruction.read_reconstruction, iter(range(100))

    def read_three(*given: object) -> object:
        if next(count) == 3:
            raise Killed
        return read(*given)  # type: ignore[arg-type]

    measured: list[object] = []
    measure = window.measure_window

    def measure_and_count(*given: object) -> object:
        measured.append(given)
        return measure(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest, "measure_window", measure_and_count)
    monkeypatch.setattr(ingest, "read_reconstruction", read_three)
    with pytest.raises(Killed):
        import_t_synth(small, tmp_path / "t-synth", GRID)
    assert list(tmp_path.glob(".t-synth.*.window.json"))
    again = import_t_synth(small, tmp_path / "t-synth", GRID)
    assert next(count) == 4 + 10 - 3  # three were kept
    assert len(measured) == 1
    assert content(again.path) == content(imported.path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"t-synth", ".t-synth.lock"}


def test_what_comes_later_is_added_under_the_first_window(
    root: Path, tmp_path: Path, write_example: WriteExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = import_t_synth(root, tmp_path / "t-synth", GRID)
    raw = write_example(root, 9)
    raw.with_suffix(".loc").rename(tmp_path / "later")
    second = import_t_synth(root, tmp_path / "t-synth", GRID)
    assert second.meta["import_report"]["rejected"] == {NO_PLACE: 1}
    (tmp_path / "later").rename(raw.with_suffix(".loc"))
    write_example(root, 11)
    third = import_t_synth(root, tmp_path / "t-synth", GRID)
    assert len(third) == len(first) + 2
    assert third.meta["intensity"] == first.meta["intensity"]
    assert third.split_hash == first.split_hash
    assert (
        third.cases[third.cases["case"].isin(first.cases["case"])]["sha256"].tolist()
        == first.cases["sha256"].tolist()
    )
    monkeypatch.setattr(ingest, "read_reconstruction", None)  # nothing is read any more
    assert import_t_synth(root, tmp_path / "t-synth", GRID).fingerprint == third.fingerprint
    with pytest.raises(UsageError, match="other settings"):
        import_t_synth(root, tmp_path / "t-synth", (3, 20, 15))


def replace(suffix: str, old: str, new: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        file = raw.with_suffix(suffix)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def set_values(value: float, everywhere: bool = False) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        values = np.fromfile(raw)
        values[slice(None) if everywhere else 1234] = value
        values.tofile(raw)

    return change


def cut(raw: Path) -> None:
    with raw.open("r+b") as file:
        file.truncate(raw.stat().st_size - 8)


def leave_dicom_only(raw: Path) -> None:
    (raw.parent / "DICOM_dbt").mkdir()
    raw.rename(raw.parent / "DICOM_dbt" / "000.dcm")


def copy_elsewhere(raw: Path) -> None:
    root = next(folder for folder in raw.parents if folder.name == "ROOT")
    shutil.copytree(raw.parent, root / "again" / raw.parent.relative_to(root))


def link_to_the_outside(raw: Path) -> None:
    outside = raw.rename(raw.parents[9] / f"outside {raw.name}")
    raw.symlink_to(outside)


def rename_folder(raw: Path) -> None:
    raw.parent.rename(raw.parent.with_name("999"))


WRONG: dict[int, tuple[str, Callable[[Path], object]]] = {
    11: (WRONG_LENGTH, cut),
    12: (WRONG_LENGTH, replace(".mhd", "40 30 6", "40 30 7")),
    13: (NOT_FINITE, set_values(np.nan)),
    14: (NOT_FINITE, set_values(-np.inf)),
    15: (TOO_LARGE, set_values(1e7)),
    16: (ONE_VALUE, set_values(0.25, everywhere=True)),
    17: (NO_HEADER, lambda raw: raw.with_suffix(".mhd").unlink()),
    18: (BAD_HEADER, replace(".mhd", "DimSize", "Size")),
    19: (BAD_HEADER, replace(".mhd", "MET_DOUBLE", "MET_SHORT")),
    20: (NOT_LESION_FREE, lambda raw: raw.with_suffix(".loc").write_text("1 2 3\n")),
    21: (NO_PLACE, lambda raw: raw.with_suffix(".loc").unlink()),
    23: (BAD_PLACE, lambda raw: raw.with_suffix(".loc").write_text("somewhere\n")),
    25: (OUTSIDE, lambda raw: raw.with_suffix(".loc").write_text("40 2 3\n")),
    27: (OUTSIDE, lambda raw: raw.with_suffix(".loc").write_text("1 2 6\n")),
    29: (DICOM_ONLY, leave_dicom_only),
    31: (SEVERAL, copy_elsewhere),
    33: ("path leaves the folder", link_to_the_outside),
    35: ("not downloaded", lambda raw: raw.unlink()),
}


def test_everything_wrong_is_counted_with_its_reason_and_the_rest_is_imported(
    root: Path, tmp_path: Path, write_example: WriteExample
) -> None:
    for number, (_, spoil) in WRONG.items():
        spoil(write_example(root, number))
    rename_folder(write_example(root, 41))
    shutil.copytree(
        root / "device_data_VICTREPhantoms_spic_1.1", root / "device_data_VICTREPhantoms_spic_hard"
    )
    (root / "link").symlink_to(tmp_path)
    (root / "harmless").symlink_to(root / "device_data_VICTREPhantoms_spic_1.1")
    copy = write_example(root / "cview", 5)  # a synthesised 2-D image of a phantom that is there
    cut(copy)
    write_example(root, 301)  # further phantoms than were published
    made = import_t_synth(root, tmp_path / "t-synth", GRID)
    rejected = made.read_rejected()
    volumes = rejected[rejected["table"] != "boxes"].set_index("StudyUID")["reason"]
    assert {number: volumes[f"fatty-5.0-1.06-{number:03d}"] for number in WRONG} == {
        number: reason for number, (reason, _) in WRONG.items()
    }
    elsewhere = rejected[rejected["PatientID"].isna()]
    assert sorted(zip(elsewhere["reason"], elsewhere["file"], strict=True)) == [
        (
            CONTRADICTION,
            "device_data_VICTREPhantoms_spic_1.06/fatty/2/5.0/SIM/D2_5.0_fatty.41/999/reconstruction41.raw",
        ),
        *(
            (
                UNKNOWN_FOLDER,
                f"device_data_VICTREPhantoms_spic_hard/dense/2/7.0/SIM/D2_7.0_dense.{n}/{n}/reconstruction{n}.raw",
            )
            for n in (1, 2)
        ),
        ("path leaves the folder", "link"),
    ]
    report = made.meta["import_report"]
    assert (report["rows"], report["imported"]) == (9005, 11)
    assert report["boxes"]["rejected"] == {"its volume was rejected": 12}
    assert [check.name for check in check_dataset(made.path) if not check.ok] == []


def test_a_part_of_the_collection_is_named_alike_and_without_training_volumes_the_others_are_measured(
    small: Path, tmp_path: Path, imported: DBTDataset
) -> None:
    part = small / "device_data_VICTREPhantoms_spic_1.06/fatty/2/5.0/SIM/D2_5.0_fatty.3"
    made = import_t_synth(part, tmp_path / "t-synth", GRID)
    whole = imported.cases.set_index("StudyUID")
    pd.testing.assert_series_equal(
        made.cases.set_index("StudyUID").loc["fatty-5.0-1.06-003"].drop(["file", "sha256"]),
        whole.loc["fatty-5.0-1.06-003"].drop(["file", "sha256"]),
    )
    assert made.meta["intensity"]["measured_on"] == "1 volumes, none of them for training"


def test_nothing_at_all_is_an_error_that_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is not a folder"):
        import_t_synth(tmp_path / "nowhere", tmp_path / "t-synth", GRID)
    with pytest.raises(MissingError, match=r"none of the 9000 volumes .* not downloaded \(9000\)") as caught:
        import_t_synth(tmp_path, tmp_path / "t-synth", GRID)
    assert "SIM.zip" in str(caught.value.hint)
    assert not list(tmp_path.glob(".*.json"))


def test_the_command_makes_the_same_data_set(small: Path, tmp_path: Path, imported: DBTDataset) -> None:
    words = ["data", "import", "t-synth", str(small), "--grid", "6x40x30", "--jobs", "1", "--json"]
    result = CliRunner().invoke(app, [*words, "--workspace", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == imported.meta["import_report"]
    made = DBTDataset.open(tmp_path / "datasets" / "t-synth")
    assert made.fingerprint == imported.fingerprint


def test_a_reserve_is_set_aside_from_the_training_phantoms(
    small: Path, tmp_path: Path, imported: DBTDataset
) -> None:
    made = import_t_synth(small, tmp_path / "t-synth", GRID, reserve=0.5)
    before = imported.cases.set_index("case")["split"]
    after = made.cases.set_index("case")["split"]
    assert set(before[after == "reserve"]) <= {"train"}
    assert (before[after != "reserve"] == after[after != "reserve"]).all()
    assert made.meta["split"]["reserve"] == 0.5
