"""A file is its row's: by patient, study, series, view and number of slices; else its next copy is taken."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from dbtbench.data.check import as_text, check_dataset
from dbtbench.data.contradictions import NO_BOX, NO_CLASS, OTHER_CLASS, UNEXPECTED_BOX
from dbtbench.data.dataset import DBTDataset
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.errors import MissingError
from dbtbench.exchange.bcs_dbt import header_cache
from dbtbench.exchange.bcs_dbt.identity import SEVERAL, UNKNOWN
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import SLICES, ImportSettings
from dbtbench.exchange.import_report import UNREAD

SIZE = (4, 32, 32)


@dataclass
class Made:
    """A collection of small files: one per row, in the archive's classic layout."""

    root: Path
    labels: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)

    def add(self, patient: str, view: str, study: str = "", label: str = "normal", **header: Any) -> Path:
        """Add a row and its file; `header` changes what the file says."""
        study = study or patient.replace("P", "S")
        number = len(self.labels)
        uid = f"1.2.{patient[1:]}.{study[1:]}"
        file = self.root / "images" / patient / uid / f"{uid}.{number}" / "1-1.dcm"
        frames = np.random.default_rng(number).integers(1, 1024, SIZE).astype(np.uint16)
        frames[:, :, 0 if view[0] == "r" else -1] = 0
        named: dict[str, Any] = {
            "view": view,
            "patient_id": patient,
            "study_id": study,
            "uid_seed": str(number),
        }
        write_tomosynthesis(file, frames, pixel_mm=(0.1, 0.1), slice_mm=1.0, window=(512, 1024), **named)
        self.change(file, **{"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.{number}"} | header)
        key = f"{patient},{study},{view}"
        self.labels.append(f"{key},{','.join(str(int(label == n)) for n in CLASSES)}")
        self.paths.append(f"{key},,{file.relative_to(self.root).as_posix()}")
        return file

    @staticmethod
    def change(file: Path, **header: Any) -> None:
        dataset = pydicom.dcmread(file)
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)

    def load(self, name: str = "d") -> DBTDataset:
        """Write the tables and import them."""
        for kind, heading, rows in (
            ("labels", ",".join(CLASSES), self.labels),
            ("file-paths", "descriptive_path,classic_path", self.paths),
            ("boxes", "Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices", self.boxes),
        ):
            text = "\n".join([f"PatientID,StudyUID,View,{heading}", *rows]) + "\n"
            (self.root / f"{kind}-train.csv").write_text(text)
        return import_bcs_dbt(self.root, self.root.parent / name, ImportSettings(SIZE))


CLASSES = ("normal", "actionable", "benign", "cancer")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    collection = Made(tmp_path / "root")
    for number in range(5):
        collection.add(f"P{number}", "lcc")
    return collection


def swap(one: Path, other: Path) -> None:
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def rejected(data: DBTDataset) -> dict[str, int]:
    return dict(data.meta["import_report"]["rejected"])


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        (("P7", "lcc"), ("P8", "lcc"), "patient"),
        (("P7", "lcc", "S71"), ("P7", "lcc", "S72"), "study"),
        (("P7", "rcc"), ("P7", "rcc1"), "series"),
    ],
)
def test_files_that_changed_places_are_rejected(made: Made, one: Any, other: Any, part: str) -> None:
    swap(made.add(*one), made.add(*other))
    data = made.load()
    assert rejected(data) == {f"the file's header names another {part}": 2}
    assert len(data) == 5


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ({"PatientID": "P99"}, "patient"),
        ({"StudyID": "S99", "StudyInstanceUID": "1.2.99"}, "study"),
        ({"SeriesInstanceUID": "1.2.99"}, "series"),
    ],
)
def test_a_name_of_no_row_is_another_volumes_unless_most_files_are_renamed(
    made: Made, header: dict[str, str], part: str
) -> None:
    made.add("P7", "lcc", **header)
    assert rejected(made.load()) == {f"the file's header names another {part}": 1}
    for number, file in enumerate(sorted(made.root.rglob("*.dcm"))):
        made.change(file, **{key: f"{value}.{number}" for key, value in header.items()})
    data = made.load("renamed")
    assert rejected(data) == {}
    assert data.meta["import_report"]["notices"] == {UNKNOWN.format(part): 6}


def test_headers_without_names_are_no_contradiction(made: Made) -> None:
    made.add("P7", "lcc", PatientID="", StudyID="", StudyInstanceUID="", SeriesInstanceUID="")
    data = made.load()
    assert (rejected(data), data.meta["import_report"]["notices"]) == ({}, {})


def test_another_view_is_rejected(made: Made) -> None:
    file = made.add("P7", "lcc")
    dataset = pydicom.dcmread(file)
    dataset.ViewCodeSequence[0].CodeValue = "399368009"
    dataset.save_as(file)
    assert rejected(made.load()) == {"the file's header names another view": 1}


def test_one_patient_under_two_names_is_noticed(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    for number, file in enumerate(sorted(made.root.rglob("*.dcm"))):
        made.change(file, PatientID=f"H{number // 2}")
    data = made.load()
    assert data.meta["import_report"]["notices"] == {SEVERAL: 4, UNKNOWN.format("patient"): 1}
    assert f"4 × {SEVERAL}" in capsys.readouterr().err


def copy_of(made: Made, file: Path, content: bytes) -> Path:
    """Put another copy below a manifest folder; the one outside it is the first."""
    other = made.root / "manifest-1" / file.relative_to(made.root)
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(content)
    return other


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-500], lambda raw: b"", lambda raw: raw.replace(b"P7", b"P1") + b"\0\0"]
)
def test_the_next_copy_is_taken(made: Made, damage: Callable[[bytes], bytes]) -> None:
    file = made.add("P7", "lcc")
    whole = made.load("whole")
    raw = file.read_bytes()
    other = copy_of(made, file, raw)
    file.write_bytes(damage(raw))
    data = made.load()
    assert data.cases["sha256"].tolist() == whole.cases["sha256"].tolist()
    assert data.cases["file"].iloc[-1] == other.relative_to(made.root).as_posix()
    file.write_bytes(raw)
    again = made.load()  # the first copy is whole again, as in a new import
    pd.testing.assert_frame_equal(again.cases, whole.cases)


def test_an_import_of_copies_continues_without_reading_any_twice(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in sorted(made.root.rglob("*.dcm")):
        copy_of(made, file, file.read_bytes())
        file.write_bytes(file.read_bytes()[:-500])
    monkeypatch.setattr("dbtbench.exchange.engine.DatasetWriter.finish", None)
    with pytest.raises(TypeError):
        made.load()
    monkeypatch.undo()
    monkeypatch.setattr("dbtbench.exchange.engine.read_volume", None)
    assert len(made.load()) == 5


def test_where_no_copy_is_right_the_first_one_s_reason_counts(made: Made) -> None:
    file = made.add("P7", "lcc")
    copy_of(made, file, b"x" * 500)
    file.write_bytes(file.read_bytes()[:-500])
    assert rejected(made.load()) == {"file ends too early": 1}


def test_copies_are_found_by_their_headers(made: Made) -> None:
    file = made.add("P7", "lcc")
    raw = file.read_bytes()
    file.unlink()
    (made.root / "images" / "a").write_bytes(raw[:-500])
    (made.root / "images" / "b").write_bytes(raw)
    assert made.load().cases["file"].tolist()[-1] == "images/b"


def test_the_number_of_slices_is_that_of_the_boxes(made: Made) -> None:
    for patient, slices in (("P7", (73,)), ("P8", (73, 4)), ("P9", ("",))):
        made.add(patient, "lcc", label="cancer")
        key = f"{patient},{patient.replace('P', 'S')},lcc"
        made.boxes += [f"{key},0,1,2,3,{4 + n},5,cancer,0,{count}" for n, count in enumerate(slices)]
    data = made.load()
    assert rejected(data) == {SLICES: 1}
    assert data.meta["import_report"]["boxes"]["rejected"] == {UNREAD: 1, SLICES: 1}
    assert data.boxes[["PatientID", "VolumeSlices"]].to_numpy().tolist() == [["P8", 4], ["P9", 4]]


def test_a_box_stays_on_its_frame_where_frames_are_put_in_order(made: Made) -> None:
    file = made.add("P7", "lcc", label="cancer")
    made.boxes.append("P7,S7,lcc,0,1,2,3,4,5,cancer,0,4")
    plain = made.load("plain")
    dataset = pydicom.dcmread(file)
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1], frames[2] = frames[2], frames[1]
    dataset.save_as(file)
    data = made.load()
    assert plain.boxes["Slice"].tolist() == [1]
    assert data.boxes[["Slice", "z0"]].to_numpy().tolist() == [[2, plain.boxes["z0"][0] + 1]]
    frame = data.volumes([5])[0, 0, int(data.boxes["Slice"][0])]
    np.testing.assert_array_equal(frame, plain.volumes([5])[0, 0, 1])


def test_labels_and_boxes_that_contradict_each_other_are_counted(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    for patient, label, cls in (
        ("P6", "cancer", ""),
        ("P7", "normal", "cancer"),
        ("P8", "cancer", "benign"),
        ("P9", "cancer", "Malignant"),
    ):
        made.add(patient, "lcc", label=label)
        if cls:
            made.boxes.append(f"{patient},{patient.replace('P', 'S')},lcc,0,1,2,3,4,5,{cls},0,4")
    data = made.load()
    found = {NO_BOX: 1, UNEXPECTED_BOX: 1, OTHER_CLASS: 1, NO_CLASS: 1}
    assert data.meta["import_report"]["notices"] == found
    assert len(data) == 9
    err = capsys.readouterr().err
    text = as_text("d", check_dataset(data.path))
    for notice in found:
        assert f"1 × {notice}" in err
        assert f"notice  1 × {notice}" in text
    assert "case 5 (P6 lcc): cancer" in text
    assert text.endswith("d: all checks passed")


# The cache of headers


def test_headers_are_kept_as_keyed_digests_until_the_import_ends(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []
    save = header_cache.HeaderCache.save

    def watch(self: header_cache.HeaderCache) -> None:
        save(self)
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o600
        kept.append(self.path.read_bytes())

    monkeypatch.setattr(header_cache.HeaderCache, "save", watch)
    made.load()
    assert kept
    assert not any(word in kept[-1] for word in (b"P1", b"S1", b"1.2.1.1", b"1-1.dcm", b"images"))
    assert not list(made.root.parent.glob(".*.json"))
    for file in made.root.rglob("*.dcm"):
        file.write_bytes(b"x" * 500)
    with pytest.raises(MissingError):
        made.load("none")
    assert not list(made.root.parent.glob(".*.json"))
