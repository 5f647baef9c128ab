"""A phantom collection shaped like BCS-DBT, with everything in it that the real one has or could have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import pandas as pd
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dbtbench.data.dataset import DBTDataset

COLLECTION = "manifest-1617905855234/Breast-Cancer-Screening-DBT"
LABELS = "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer"
PATHS = "PatientID,StudyUID,View,descriptive_path,classic_path"
BOXES = "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD"
NORMAL = "1,0,0,0"


@dataclass
class Collection:
    """A collection that is being written: rows of its tables by split, and files in the archive's layout."""

    root: Path
    sources: list[Path]
    labels: dict[str, list[str]] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    boxes: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0

    def volume(
        self,
        view: str,
        *,
        split: str = "train",
        label: str | None = NORMAL,
        patient: str | None = None,
        named: str | None = None,
        stored: str | None = "descriptive",
        change: Callable[[Path], None] | None = None,
        table_view: str | None = None,
    ) -> str:
        """One row of each table, and a file: KEY as text."""
        self.count += 1
        patient = patient or f"DBT-P{self.count:05d}"
        study, number = f"DBT-S{self.count:05d}", 20000 + self.count
        folder = f"Breast-Cancer-Screening-DBT/{patient}"
        descriptive = f"{folder}/01-01-2000-{study}-MAMMO SCREENING-{number}/{number}.000000-32081/1-1.dcm"
        classic = f"{folder}/1.2.826.{number}/1.2.826.{number}.1/1-1.dcm"
        where = {
            "descriptive": descriptive,
            "NA": descriptive.replace("-32081", "-NA-32081"),
            "classic": classic,
            "elsewhere": f"moved/{number}.dcm",
        }
        if stored is not None:
            file = self.root / "manifest-1617905855234" / where[stored]
            file.parent.mkdir(parents=True, exist_ok=True)
            source = next(s for s in self.sources if s.parent.name == view[:4].rstrip("12"))
            dataset = pydicom.dcmread(source)
            dataset.PatientID, dataset.StudyID = patient, study
            dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality = "L"
            dataset.save_as(file)
            if change is not None:
                change(file)
        key = f"{patient},{study},{table_view or view}"
        if label is not None:
            self.labels.setdefault(split, []).append(f"{key},{label}")
        self.paths.setdefault(split, []).append(f"{key},{named or descriptive},{named or classic}")
        return f"{patient},{study},{view}"

    def box(
        self, key: str, numbers: str = "4,20,30,10,12", split: str = "train", cls: str = "cancer"
    ) -> None:
        self.boxes.setdefault(split, []).append(f"{key},0,{numbers},{cls},0")

    def write(self) -> None:
        """The tables under the names, and in the encodings, that releases have had."""
        write = (self.root / "BCS-DBT labels-train-v2.csv").write_text
        write("\n".join([LABELS, *self.labels["train"]]) + "\n")
        (self.root / "BCS-DBT file-paths-train-v2.csv").write_text(
            "\n".join([PATHS, *self.paths["train"]]) + "\n"
        )
        rows = [f"{row},8" for row in self.boxes["train"]]
        (self.root / "BCS-DBT-boxes-train-v2.csv").write_text("\n".join([f"{BOXES},VolumeSlices", *rows]))
        text = "\r\n".join([LABELS, *self.labels["validation"]]).replace(",", ";")
        (self.root / "BCS-DBT-labels-validation-PHASE-2-Jan-2024.csv").write_bytes(
            b"\xef\xbb\xbf" + text.encode()
        )
        (self.root / "BCS-DBT-file-paths-validation-v2.csv").write_text(
            "\n".join([PATHS, *self.paths["validation"]])
        )
        (self.root / "BCS-DBT-boxes-validation-v2-PHASE-2-Jan-2024.csv").write_text(
            "\n".join([BOXES, *self.boxes["validation"]])
        )
        (self.root / "bcs_dbt_labels_TEST_phase_2.csv").write_text(
            "\n".join([f"{LABELS},Größe", *(f"{row},ü" for row in self.labels["test"])]), encoding="latin-1"
        )
        (self.root / "BCS-DBT-file-paths-test.csv").write_text("\n".join([PATHS, *self.paths["test"]]))


def edit(**attributes: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        dataset = pydicom.dcmread(file)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)

    return change


def without(keyword: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        dataset = pydicom.dcmread(file)
        delattr(dataset, keyword)
        dataset.save_as(file)

    return change


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3000])


def text(file: Path) -> None:
    file.write_text("this is no DICOM file\n" * 100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garble(file: Path) -> None:
    """Spoil the quantisation marker of the last frame's codestream."""
    raw = bytearray(file.read_bytes())
    start = raw.rindex(b"\xff\x5c")
    raw[start : start + 4] = bytes(4)
    file.write_bytes(raw)


def link_out(file: Path) -> None:
    outside = file.parents[6] / f"{file.parent.name}.dcm"
    shutil.move(file, outside)
    file.symlink_to(outside)


def as_syntax(syntax: pydicom.uid.UID) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        dataset = pydicom.dcmread(file)
        frames = dataset.pixel_array
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = frames.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
        if syntax == JPEGLosslessSV1:
            dataset.PixelData = encapsulate(
                [bytes(imagecodecs.ljpeg_encode(f, bitspersample=10)) for f in frames]
            )
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, encoding_plugin={JPEGLSLossless: "pyjpegls"}.get(syntax, "pylibjpeg"))
        dataset.save_as(file)

    return change


def plant(made: Collection) -> None:
    """Every quirk once; the comments say what is to become of it."""
    # imported: 14
    made.volume("lcc", stored="NA")
    made.volume("lmlo", stored="classic")
    made.volume("rcc", table_view="RCC")
    made.volume("rmlo2")
    made.volume("rcc1", split="test")
    made.volume("lcc", stored="elsewhere")
    for syntax in (JPEGLSLossless, JPEGLosslessSV1, RLELossless, ExplicitVRLittleEndian):
        made.volume("rcc", change=as_syntax(syntax))
    twice = made.volume("lcc", label="0,1,0,0", split="validation")
    made.labels["validation"].append(f"{twice},0,1,0,0")  # rejected: duplicate row
    ill = made.volume("lcc", label="0,0,0,1")
    made.box(ill)
    made.box(ill, "3,1,2,10,12")
    made.box(ill, "3,1,2,10,12")  # rejected: duplicate row
    made.box(ill, "3,1,2,0,12")  # rejected: box has no size
    made.box(ill, ",1,2,10,12")  # rejected: box has no position
    made.box(ill, "8,1,2,10,12")  # rejected: box lies outside the volume
    made.box(ill, "3,64,2,10,12")  # rejected: box lies outside the volume
    made.box(made.volume("lmlo", label="0,0,1,0", split="validation"), split="validation", cls="benign")
    made.volume("rmlo", label="0,1,0,0", split="test")
    # not downloaded: 3
    made.volume("lcc", stored=None)
    made.volume("lmlo", stored=None, split="test")
    made.box(made.volume("lcc", stored=None, label="0,0,0,1"))
    # rejected by the tables
    disputed = made.volume("rcc")
    made.labels["train"].append(f"{disputed},0,0,0,1")  # both rows
    made.box(disputed)
    made.volume("lcc", label="0,0,0,0")
    made.volume("lcc", label="1,0,0,x", split="test")
    made.volume("lcc", table_view="lat")
    made.volume("lcc", patient="=HYPERLINK(1)", stored=None)
    unlabelled = made.volume("lcc", label=None)
    made.box(unlabelled)
    made.box("DBT-P99999,DBT-S99999,lcc")  # a volume that no other table names
    # rejected by their paths
    made.volume("lcc", named="../../outside/1-1.dcm")
    made.volume("lcc", named="/etc/passwd")
    made.volume("lcc", named="C:\\data\\1-1.dcm")
    made.volume("lcc", change=link_out)
    made.volume("lcc", patient="DBT-P90001", stored="elsewhere", named="moved/both.dcm")
    made.volume("lcc", patient="DBT-P90002", stored="elsewhere", named="moved/both.dcm")
    moved = made.root / "manifest-1617905855234" / "moved"
    shutil.copy(next(moved.iterdir()), moved / "both.dcm")
    # rejected by their files
    bad: dict[str, Callable[[Path], None]] = {
        "cut": cut,
        "text": text,
        "empty": empty,
        "garbled": garble,
        "class": edit(SOPClassUID=SecondaryCaptureImageStorage),
        "colour": edit(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        "8 bit": edit(BitsAllocated=8, BitsStored=8, HighBit=7),
        "no frames": edit(NumberOfFrames=0),
        "100 GB": edit(NumberOfFrames=4000, Rows=4000, Columns=3500),
        "other size": edit(Rows=48),
        "more frames": edit(NumberOfFrames=9),
        "no groups": without("SharedFunctionalGroupsSequence"),
        "no pixels": without("PixelData"),
    }
    for change in bad.values():
        made.box(made.volume("rcc", change=change))


EXPECTED = {
    "duplicate row": 1,
    "labels contradict each other": 2,
    "labels are not one class": 2,
    "not a view": 1,
    "not an identifier": 1,
    "no row in the labels table": 1,
    "path leaves the collection": 4,
    "several rows name this file": 2,
    "not a DICOM file": 2,
    "not Breast Tomosynthesis Image Storage": 1,
    "not unsigned 16-bit grey values": 2,
    "no frames": 1,
    "absurd size": 1,
    "frame differs from the header": 1,
    "functional groups differ from the frames": 1,
    "no window": 1,
    "no pixel data": 1,
}
"""Reasons whose words do not depend on a decoder."""


@pytest.fixture(scope="module")
def root(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Collection(tmp_path_factory.mktemp("quirks") / "BCS-DBT", sorted(collection.rglob("*.dcm")))
    made.root.mkdir()
    plant(made)
    made.write()
    return made.root


@pytest.fixture(scope="module")
def imported(
    root: Path, tmp_path_factory: pytest.TempPathFactory, start_command: Any
) -> tuple[dict[str, Any], DBTDataset, str]:
    work = tmp_path_factory.mktemp("work")
    words = ["data", "import", "bcs-dbt", root, "--name", "duke", "--workspace", work, "--json"]
    done = start_command(*words).wait()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), DBTDataset.open(work / "datasets" / "duke"), done.stderr


def test_every_row_of_the_labels_has_the_outcome_that_was_planted(imported: Any) -> None:
    report, dataset, _ = imported
    rejected = dict(report["rejected"])
    broken = {reason: rejected.pop(reason) for reason in list(rejected) if reason not in EXPECTED}
    assert rejected == EXPECTED
    assert sum(broken.values()) == 2, broken  # the cut and the garbled file: the decoder's own words
    assert report["imported"] == len(dataset) == 14
    assert report["missing"] == 3
    assert report["rows"] == 14 + 3 + sum(report["rejected"].values())


def test_every_box_has_the_outcome_that_was_planted(imported: Any) -> None:
    boxes = imported[0]["boxes"]
    assert boxes == {
        "rows": 7 + 1 + 1 + 1 + 2 + 13,
        "imported": 3,
        "rejected": {
            "its volume was rejected": 14,
            "box lies outside the volume": 2,
            "no row in the labels table": 2,
            "duplicate row": 1,
            "box has no size": 1,
            "box has no position": 1,
        },
        "missing": 1,
    }


def test_rejected_csv_has_one_row_for_each_row_that_was_not_imported(imported: Any) -> None:
    report, dataset, _ = imported
    rejected = pd.read_csv(dataset.path / "rejected.csv", dtype=str, keep_default_na=False)
    volumes = rejected[rejected["table"] != "boxes"]
    assert len(volumes) == report["rows"] - report["imported"]
    assert len(rejected) - len(volumes) == report["boxes"]["rows"] - report["boxes"]["imported"]
    assert not rejected.map(lambda cell: cell.startswith(("=", "+", "-", "@"))).any(axis=None)
    assert "'=HYPERLINK(1)" in rejected["PatientID"].tolist()


def test_splits_views_and_labels_are_those_of_the_tables(imported: Any) -> None:
    cases = imported[1].cases
    assert cases["split"].value_counts().to_dict() == {"train": 10, "validation": 2, "test": 2}
    assert set(cases["View"]) == {"lcc", "lmlo", "rcc", "rmlo", "rmlo2", "rcc1"}
    assert cases["label"].value_counts().to_dict() == {
        "normal": 10,
        "actionable": 2,
        "cancer": 1,
        "benign": 1,
    }
    assert (imported[1].boxes["VolumeSlices"] == 8).all()


def test_the_same_volume_is_read_from_every_transfer_syntax(imported: Any) -> None:
    dataset = imported[1]
    volumes = dataset.volumes(dataset.cases.loc[dataset.cases["View"] == "rcc", "case"])
    assert len(volumes) == 5
    assert (volumes == volumes[0]).all()


def test_notices_say_what_was_changed(imported: Any) -> None:
    log = imported[2]
    assert "1 views in upper case" in log
    assert "Latin-1" in log
    assert "no boxes table of the split test" in log
    assert "found their row by their headers" in log


def test_the_import_report_holds_after_a_check(imported: Any, start_command: Any) -> None:
    work = imported[1].path.parents[1]
    done = start_command("data", "check", "--data", "duke", "--workspace", work).wait()
    assert done.returncode == 0, done.stdout
