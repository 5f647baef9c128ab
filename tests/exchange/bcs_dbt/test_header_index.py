from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, DigitalMammographyXRayImageStorageForPresentation

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.exchange.bcs_dbt import header_index
from dbtbench.exchange.bcs_dbt.finding import AMBIGUOUS, find_files
from dbtbench.exchange.bcs_dbt.header_cache import HeaderCache
from dbtbench.exchange.bcs_dbt.tables import read_tables
from dbtbench.geometry.views import laterality
from dbtbench.runtime.pool import Pool

MANIFEST = "manifest-1617905855234"


class Recorder(Pool):
    """Workers that keep a list of what they were given."""

    def __init__(self, jobs: int = 1) -> None:
        super().__init__(jobs)
        self.items: list[Any] = []

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        self.items += items
        return super().run(function, items)


def table(*rows: tuple[str, str], reason: str = "") -> pd.DataFrame:
    """Volumes of patient P1: (view, descriptive path)."""
    return pd.DataFrame(
        [
            {"PatientID": "P1", "StudyUID": "S1", "View": view, "descriptive_path": path, "classic_path": ""}
            | {"label": "normal", "split": "train", "reason": reason, "detail": ""}
            for view, path in rows
        ]
    )


def find(root: Path, volumes: pd.DataFrame, pool: Pool | None = None) -> pd.DataFrame:
    return find_files(root, volumes, pool or Pool(), HeaderCache(root.parent / "headers.json"))


def outcome(found: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(found["file"], found["reason"], strict=True))


def touch(path: Path, size: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def dicom(path: Path, view: str, *, study: str = "S1", side: str = "L", **attributes: Any) -> Path:
    """A file of patient P1; its header names the left side, as all of BCS-DBT do, unless given otherwise."""
    frames = np.zeros((1, 32, 32), np.uint16)
    write_tomosynthesis(
        path,
        frames,
        view=view,
        patient_id="P1",
        study_id=study,
        pixel_mm=(0.1, 0.1),
        slice_mm=1.0,
        window=(512, 1024),
        uid_seed=str(path),
    )
    stored = pydicom.dcmread(path)
    stored.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality = side
    for keyword, value in attributes.items():
        setattr(stored, keyword, value)
    stored.save_as(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


# The file of each row


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"StudyID": "1", "StudyInstanceUID": "1.2.826.0.1"},
        {"PatientID": ""},
        {"ViewCodeSequence": [], "ViewPosition": "CC"},
        {"ViewCodeSequence": "R-10242"},
    ],
)
def test_a_file_elsewhere_is_known_by_its_header(root: Path, says: dict[str, Any]) -> None:
    if says.get("ViewCodeSequence"):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = says["ViewCodeSequence"], "SRT"
        says = {"ViewCodeSequence": [code]}
    dicom(root / "elsewhere" / "0001", "rcc", **says)
    study = says.get("StudyInstanceUID", "S1")
    found = find(root, table(("rcc", "a.dcm"), ("rmlo", "b.dcm")).assign(StudyUID=study))
    assert outcome(found) == [("elsewhere/0001", ""), ("", NOT_DOWNLOADED)]
    assert found["bytes"].tolist() == [(root / "elsewhere" / "0001").stat().st_size, -1]


@pytest.mark.parametrize(
    "says", [{"PatientID": "P2"}, {"StudyID": "S2"}, {"ViewCodeSequence": [], "ViewPosition": "ML"}]
)
def test_another_s_file_is_not_taken(root: Path, says: dict[str, Any]) -> None:
    dicom(root / "elsewhere.dcm", "rcc", **says)
    assert outcome(find(root, table(("rcc", "a.dcm")))) == [("", NOT_DOWNLOADED)]


def test_a_side_is_believed_where_a_study_shows_both(root: Path) -> None:
    for view in ("lcc", "rcc", "rmlo"):
        dicom(root / f"x-{view}", view, side=laterality(view).upper())
    found = find(root, table(*((view, "") for view in ("rcc", "lcc", "lmlo", "rmlo"))))
    assert found["file"].tolist() == ["x-rcc", "x-lcc", "", "x-rmlo"]


def test_where_all_files_say_left_only_the_projection_counts(root: Path) -> None:
    dicom(root / "x-rmlo", "rmlo", side="L")
    for name in ("x-1", "x-2"):
        dicom(root / name, "lcc", side="L")
    found = find(root, table(("rmlo", "a"), ("lcc", "b"), ("rcc", "c")))
    assert outcome(found) == [("x-rmlo", ""), ("", AMBIGUOUS), ("", AMBIGUOUS)]
    assert found["detail"][1] == "2 rows, 2 files"


@pytest.mark.parametrize(("rows", "files"), [(["lcc", "rcc"], 1), (["lcc"], 2)])
def test_more_than_one_row_or_file_is_not_guessed(root: Path, rows: list[str], files: int) -> None:
    for number in range(files):
        dicom(root / f"x-{number}", "lcc")
    found = find(root, table(*((view, f"{view}.dcm") for view in rows)))
    assert outcome(found) == [("", AMBIGUOUS)] * len(rows)


def test_a_series_names_its_row_alone(root: Path) -> None:
    mine = pydicom.dcmread(dicom(root / "renamed.dcm", "lcc", study="other")).SeriesInstanceUID
    volumes = table(("lcc", ""), ("rcc", ""))
    volumes["classic_path"] = [f"P1/1.2.3/{mine}/1-1.dcm", "P1/1.2.3/1.2.4/1-1.dcm"]
    assert outcome(find(root, volumes)) == [("renamed.dcm", ""), ("", NOT_DOWNLOADED)]


def test_a_copy_of_another_row_s_file_is_not_taken(root: Path) -> None:
    series = pydicom.dcmread(dicom(root / "backup" / "copy.dcm", "lcc")).SeriesInstanceUID
    volumes = table(("lcc", ""), ("rcc", ""))
    volumes["classic_path"] = [f"P1/1.2.3/{series}/1-1.dcm", ""]
    (root / "P1" / "1.2.3" / series).mkdir(parents=True)
    shutil.copy(root / "backup" / "copy.dcm", root / volumes["classic_path"][0])
    found = find(root, volumes)
    assert found["file"].tolist() == [volumes["classic_path"][0], ""]


def test_files_of_other_rows_are_not_taken(root: Path) -> None:
    dicom(root / "a.dcm", "lcc")
    copy = root / MANIFEST / "a.dcm"
    copy.parent.mkdir()
    shutil.copy(root / "a.dcm", copy)
    pool = Recorder()
    found = find(root, table(("lcc", "a.dcm"), ("rcc", "b.dcm")), pool)
    assert outcome(found) == [("a.dcm", ""), ("", NOT_DOWNLOADED)]
    assert pool.items == []


def test_a_repeated_row_is_not_another_volume(root: Path) -> None:
    dicom(root / "x", "lcc")
    rows = [table(("lcc", "a.dcm"), reason="more cells than columns"), table(("lcc", "a.dcm"))]
    assert outcome(find(root, pd.concat(rows, ignore_index=True)))[1] == ("x", "")


def test_a_file_that_may_be_a_rejected_row_s_is_not_taken(root: Path) -> None:
    dicom(root / "x", "lcc")
    rejected = table(("rcc", "c.dcm"), reason="labels contradict each other")
    found = find(root, pd.concat([table(("lcc", "b.dcm")), rejected], ignore_index=True))
    assert outcome(found) == [("", AMBIGUOUS), ("", "labels contradict each other")]


def test_what_is_no_tomosynthesis_header_is_nobody_s(root: Path) -> None:
    volumes = table(("lcc", "a.dcm"))
    touch(root / "text.dcm").write_text("no DICOM, " * 100)
    touch(root / "empty.dcm", 0)
    dicom(root / "mammogram.dcm", "lcc", SOPClassUID=DigitalMammographyXRayImageStorageForPresentation)
    whole = dicom(root / "cut.dcm", "lcc").read_bytes()
    (root / "cut.dcm").write_bytes(whole[:150])
    deflated = dicom(root / "deflated.dcm", "lcc")
    stored = pydicom.dcmread(deflated)
    del stored.PixelData
    stored.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stored.save_as(deflated)
    dicom(root / ".hidden.dcm", "lcc")
    assert outcome(find(root, volumes)) == [("", NOT_DOWNLOADED)]


def test_pixels_are_not_needed(root: Path) -> None:
    whole = dicom(root / "x", "lcc").read_bytes()
    (root / "x").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00") + 12])
    assert outcome(find(root, table(("lcc", "a.dcm")))) == [("x", "")]


def test_links_are_not_followed_in_search_of_headers(root: Path) -> None:
    out = root.parent / ("out" * 50)  # so long that the link is larger than the smallest header
    dicom(out / "x", "lcc")
    (root / "out").symlink_to(out)
    (root / "x").symlink_to(out / "x")
    dicom(root / "disk" / "y", "lcc")
    (root / "disk" / "again").symlink_to(root)
    (root / "y").symlink_to(root / "disk" / "y")
    assert outcome(find(root, table(("lcc", "a.dcm")))) == [("disk/y", "")]


def test_nothing_is_read_when_every_row_has_its_file(root: Path) -> None:
    touch(root / "a.dcm")
    dicom(root / "x", "lcc")
    pool = Recorder()
    find(root, table(("lcc", "a.dcm")), pool)
    find(root, table(("rcc", "b.dcm"), reason="labels are not one class"), pool)
    assert pool.items == []


# The cache


def test_headers_are_read_once_and_again_when_their_file_changes(root: Path) -> None:
    dicom(root / "x", "lcc")
    touch(root / "text.txt", 500)
    volumes, pool = table(("lcc", "a.dcm")), Recorder()
    first = find(root, volumes, pool)
    assert len(pool.items) == 2
    pd.testing.assert_frame_equal(find(root, volumes, pool), first)
    assert len(pool.items) == 2
    dicom(root / "x", "lmlo", StudyDescription="changed")
    assert outcome(find(root, volumes, pool)) == [("", NOT_DOWNLOADED)]
    assert pool.items[2:] == [str(root / "x")]


def test_an_interruption_keeps_what_was_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        dicom(root / f"x{number}", "lcc", study=f"S{number}")
    read = header_index.read_identity

    def interrupted(path: str) -> dict[str, str] | None:
        if path.endswith("x3"):
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(header_index, "read_identity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(root, table(("lcc", "a.dcm")))
    monkeypatch.undo()
    pool = Recorder()
    assert outcome(find(root, table(("lcc", "a.dcm")), pool)) == [("x1", "")]
    assert [Path(item).name for item in pool.items] == ["x3", "x4"]


def test_the_cache_is_written_again_and_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_index, "SAVE_EVERY", 2)
    for number in range(5):
        dicom(root / f"x{number}", "lcc", study=f"S{number}")
    seen, read = [], header_index.read_identity

    def watched(path: str) -> dict[str, str] | None:
        cache = root.parent / "headers.json"
        seen.append(len(json.loads(cache.read_text())["files"]) if cache.is_file() else 0)
        return read(path)

    monkeypatch.setattr(header_index, "read_identity", watched)
    find(root, table(("lcc", "a.dcm")))
    assert seen == [0, 0, 2, 2, 4]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "files": 3}', "\ud800"])
def test_a_broken_cache_is_rebuilt(root: Path, content: str) -> None:
    dicom(root / "x", "lcc")
    (root.parent / "headers.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert outcome(find(root, table(("lcc", "a.dcm")))) == [("x", "")]
    assert len(json.loads((root.parent / "headers.json").read_text())["files"]) == 1


# A whole collection


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_collection_whose_folders_were_renamed_is_found_by_its_headers(
    collection: Path, tmp_path: Path, jobs: int
) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    for number, file in enumerate(sorted(collection.rglob("*.dcm"))):
        shutil.copy(file, root / f"{number:03d}.dcm")
    for path in collection.glob("*.csv"):
        shutil.copy(path, root)
    before = find(collection, read_tables(collection).volumes)
    with Pool(jobs) as pool:
        after = find(root, read_tables(root).volumes, pool)
    assert set(before["reason"]) == set(after["reason"]) == {""}
    assert before[KEY].to_numpy().tolist() == after[KEY].to_numpy().tolist()
    for old, new in zip(before["file"], after["file"], strict=True):
        assert (collection / old).read_bytes() == (root / new).read_bytes()
