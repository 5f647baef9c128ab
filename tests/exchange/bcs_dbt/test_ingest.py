from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from dbtbench.data.check import as_text, check_dataset
from dbtbench.data.dataset import NATIVE_BOX, DBTDataset
from dbtbench.data.summary import report_lines
from dbtbench.dicom.volume import image_laterality, read_volume
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.exchange.bcs_dbt.header_index import read_identity
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.exchange.volume_job import VolumeJob
from dbtbench.phantom.cohort import VERSION
from dbtbench.runtime.files import digest
from dbtbench.runtime.pool import Pool


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
    nothing: dict[str, int] = {}
    assert imported.meta["import_report"] == {
        **{"rows": 16, "imported": 16, "rejected": nothing, "missing": 0},
        "boxes": {"rows": 4, "imported": 4, "rejected": nothing, "missing": 0},
        "notices": nothing,
        "orientation": {"rule": "official", "turned": int(imported.cases["flipped"].sum()), "undecided": []},
    }
    assert imported.grid == (8, 64, 64)


@pytest.mark.parametrize("rule", ["header", "stored"])
def test_another_rule_of_orientation_is_another_data_set(
    collection: Path, imported: DBTDataset, tmp_path: Path, rule: str
) -> None:
    other = import_bcs_dbt(collection, tmp_path / "d", ImportSettings(orientation=rule))
    turned = {"header": imported.cases["flipped"].tolist(), "stored": [False] * 16}[rule]
    assert other.cases["flipped"].tolist() == turned
    assert other.meta["identity"] != imported.meta["identity"]
    assert other.meta["import_report"]["orientation"]["rule"] == rule
    with pytest.raises(UsageError, match="'tags'"):
        ImportSettings(orientation="tags")


def test_the_official_rule_leaves_the_identity_of_earlier_data_sets(imported: DBTDataset) -> None:
    settings = {
        "grid": [8, 64, 64],
        "resample": "area",
        "window": "dicom",
        "exact": False,
        "seed": 0,
        "reserve": 0.0,
    }
    tables, phantom = imported.meta["source"]["tables"], {"phantom": {"version": VERSION}}
    assert imported.meta["identity"] == digest({"import": 2, "tables": tables, **settings, **phantom})


def test_the_version_of_the_phantom_is_described_and_part_of_the_identity(
    imported: DBTDataset, copy: Path, tmp_path: Path
) -> None:
    assert imported.meta["phantom"] == {"version": VERSION}
    assert imported.identity["phantom"] == VERSION
    (copy / "phantom.json").write_text("[]")
    with pytest.raises(UsageError, match=r"phantom\.json has no version"):
        import_bcs_dbt(copy, tmp_path / "x", ImportSettings())
    (copy / "phantom.json").write_text('{"version": 1}')  # which was not recorded
    data = import_bcs_dbt(copy, tmp_path / "x", ImportSettings())
    assert "phantom" not in data.meta
    assert data.fingerprint == imported.fingerprint


def test_a_tie_is_no_decision_and_is_counted(
    copy: Path, imported: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = [0, 5]
    for case in tied:
        file = copy / imported.cases["file"][case]
        dataset = pydicom.dcmread(file)
        frames = dataset.pixel_array.copy()
        frames[:, :, :2] = frames[:, :, -2:] = 0
        dataset.PixelData, dataset.file_meta.TransferSyntaxUID = frames.tobytes(), ExplicitVRLittleEndian
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OW", False
        dataset.save_as(file)
    late = copy / imported.cases["file"][9]
    late.rename(tmp_path / "late.dcm")
    for _ in range(2):  # what a finished import knows of its ties, it still knows when files are added
        made = import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())
        report = made.meta["import_report"]["orientation"]
        assert report == {"rule": "official", "turned": int(made.cases["flipped"].sum()), "undecided": tied}
        assert not made.cases.loc[made.cases["case"].isin(tied), "flipped"].any()
        if not late.exists():
            (tmp_path / "late.dcm").rename(late)
    of = f"turned {report['turned']} of 16, undecided 2"
    assert of in "\n".join(report_lines(made.meta["import_report"]))
    assert f"ok      {of}" in as_text("phantom", check_dataset(made.path))
    meta = json.loads((made.path / "dataset.json").read_text())
    meta["import_report"]["orientation"]["turned"] += 1
    (made.path / "dataset.json").write_text(json.dumps(meta))
    of = f"turned {report['turned'] + 1} of 16, undecided 2"
    assert f"FAILED  {of}" in as_text("phantom", check_dataset(made.path))


def test_volumes_are_windowed_and_as_displayed(imported: DBTDataset, collection: Path) -> None:
    rotated = 0
    for case in imported.cases.itertuples():
        stored = pydicom.dcmread(collection / case.file)
        window = stored.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        centre, width = float(window.WindowCenter), float(window.WindowWidth)
        expected = (stored.pixel_array - (centre - 0.5)) / (width - 1) + 0.5  # PS3.3 C.11.2.1.2.1
        expected = np.clip(expected, 0, 1)
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
    assert other.meta["intensity"] == {"window": "dicom", "resample": "torchio", "exact": False}
    area = imported.volumes()[:, 0].reshape(-1, 8, 32, 2, 32, 2).mean(axis=(3, 5))
    correlation = np.corrcoef(other.volumes().ravel(), area.ravel())[0, 1]
    assert correlation > 0.97
    with pytest.raises(UsageError, match="'nearest'"):
        ImportSettings(resample="nearest")


@pytest.mark.parametrize("window", ["duke", "none"])
def test_the_window_is_recorded_and_changes_what_is_stored(
    collection: Path, imported: DBTDataset, tmp_path: Path, window: str
) -> None:
    other = import_bcs_dbt(collection, tmp_path / window, ImportSettings(window=window))
    assert other.meta["intensity"]["window"] == window
    assert other.fingerprint != imported.fingerprint
    with pytest.raises(UsageError, match="'full'"):
        ImportSettings(window="full")


def test_a_grid_that_no_chunk_can_hold_is_an_error() -> None:
    with pytest.raises(UsageError, match="too large"):
        ImportSettings((1024, 1024, 1025))


def test_an_import_where_nothing_is_readable_is_an_error(copy: Path, tmp_path: Path) -> None:
    for file in files(copy):
        file.unlink()
    with pytest.raises(MissingError, match=r"none of the 16 volumes.*not downloaded \(16\)\n") as caught:
        import_bcs_dbt(copy, tmp_path / "d", ImportSettings())
    assert "paths in the tables are relative" in caught.value.hint


def test_when_nothing_is_imported_the_first_reason_has_its_detail_its_hint_and_a_table(
    copy: Path, imported: DBTDataset, tmp_path: Path
) -> None:
    labels = copy / "BCS-DBT-labels-train-v2.csv"
    text = labels.read_text()
    labels.write_text(re.sub(",0(?=[,\n])", ",no", text))
    with pytest.raises(
        MissingError, match=r"labels are not one class \(16\); the first: Normal 1,"
    ) as caught:
        import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())
    table = tmp_path / "phantom.rejected.csv"
    assert "of Normal, Actionable, Benign and Cancer one is 1" in caught.value.hint
    assert "paths" not in caught.value.hint
    assert str(table) in caught.value.hint
    rows = pd.read_csv(table)
    assert rows["reason"].value_counts().to_dict() == {
        "labels are not one class": 16,
        "its volume was rejected": 4,
    }
    labels.write_text(text)
    assert contents(import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())) == contents(imported)
    assert not table.exists()


def test_images_behind_a_link_are_an_error_that_speaks_of_it(copy: Path, tmp_path: Path) -> None:
    for folder in [path for path in copy.iterdir() if path.is_dir()]:
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
    with pytest.raises(MissingError, match=r"the first: .* is a link out") as caught:
        import_bcs_dbt(copy, tmp_path / "d", ImportSettings())
    assert "real folder" in caught.value.hint


def test_a_partial_download_is_imported_and_what_comes_later_is_added(
    copy: Path, imported: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = files(copy)[3:9]
    for file in late:
        file.rename(tmp_path / file.relative_to(copy).as_posix().replace("/", "_"))
    first = import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())
    assert first.meta["import_report"]["imported"] == 10
    assert first.meta["import_report"]["missing"] == 6
    assert set(pd.read_csv(first.path / "rejected.csv")["reason"]) == {"not downloaded"}
    for file in late:
        (tmp_path / file.relative_to(copy).as_posix().replace("/", "_")).rename(file)
    read = _count_readings(monkeypatch)
    second = import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())
    assert len(read) == 6
    assert contents(second) == contents(imported)


def test_a_file_that_changed_is_read_again(
    copy: Path, imported: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = files(copy)[5]
    whole = file.read_bytes()
    file.write_bytes(whole[:-3000])
    first = import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())
    assert sum(first.meta["import_report"]["rejected"].values()) == 1
    file.write_bytes(whole)
    read = _count_readings(monkeypatch)
    assert contents(import_bcs_dbt(copy, tmp_path / "phantom", ImportSettings())) == contents(imported)
    assert read == [file]


def contents(dataset: DBTDataset) -> dict[str, bytes]:
    return {str(p.relative_to(dataset.path)): p.read_bytes() for p in dataset.path.rglob("*") if p.is_file()}


def _count_readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read, calls = read_volume, []

    def counting(path: Path, *args: Any, **settings: Any) -> Any:
        calls.append(path)
        return read(path, *args, **settings)

    monkeypatch.setattr("dbtbench.exchange.engine.read_volume", counting)
    return calls


@pytest.mark.parametrize("how", ["processes", "cluster"])
def test_any_number_of_workers_makes_the_same_bytes(
    collection: Path, imported: DBTDataset, tmp_path: Path, how: str
) -> None:
    if how == "processes":
        with Pool(2) as pool:
            made = import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings(), pool)
    else:
        distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
        with (
            distributed.LocalCluster(
                2, threads_per_worker=1, dashboard_address=":0", memory_limit=0
            ) as cluster,
            Pool(dask=cluster.scheduler_address) as pool,
        ):
            made = import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings(), pool)
    assert contents(made) == contents(imported)


def test_an_import_that_was_interrupted_reads_nothing_twice(
    collection: Path, imported: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = read_volume, []

    def dying(path: Path, *args: Any, **settings: Any) -> Any:
        calls.append(path)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return read(path, *args, **settings)

    monkeypatch.setattr("dbtbench.exchange.engine.read_volume", dying)
    with pytest.raises(KeyboardInterrupt):
        import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings())
    again = import_bcs_dbt(collection, tmp_path / "phantom", ImportSettings())
    assert len(calls) == 7 + 16 - 6
    assert contents(again) == contents(imported)


def test_an_import_that_was_killed_again_and_again_ends_with_the_same_bytes(
    collection: Path, imported: DBTDataset, tmp_path: Path, start_command: Any
) -> None:
    words = ["data", "import", "bcs-dbt", collection, "--name", "phantom", "--jobs", "2"]
    for done in (1, 9):
        killed = start_command(*words, "--workspace", tmp_path)
        while _lines_of_journal(tmp_path) < done and killed.process.is_alive():
            time.sleep(0.005)
        killed.process.kill()
        assert killed.wait().returncode == -signal.SIGKILL
    again = import_bcs_dbt(collection, tmp_path / "datasets" / "phantom", ImportSettings())
    assert contents(again) == contents(imported)


def _lines_of_journal(workspace: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in workspace.rglob("journal.jsonl"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_an_error_and_the_import_continues_afterwards(
    collection: Path, imported: DBTDataset, disk: Path, jobs: int
) -> None:
    with Pool(jobs) as pool:
        with pytest.raises(DBTBenchError, match="no space is left") as error:
            import_bcs_dbt(collection, disk / "phantom", ImportSettings(), pool)
        assert "the same command continues" in error.value.hint
        assert _lines_of_journal(disk) > 0
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        again = import_bcs_dbt(collection, disk / "phantom", ImportSettings(), pool)
    assert contents(again) == contents(imported)


def test_a_volume_whose_process_dies_is_one_row(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DyingPool(Pool):
        def run(self, function: Any, items: Any) -> Any:
            third = [item for item in items if isinstance(item, VolumeJob) and item.index == 3]
            yield from ((item, None if item in third else function(item)) for item in items)

    made = import_bcs_dbt(collection, tmp_path / "d", ImportSettings(), DyingPool())
    assert made.meta["import_report"]["rejected"] == {"the process that read it died": 1}


def test_a_worker_that_does_not_see_the_collection_stops_the_import(collection: Path, tmp_path: Path) -> None:
    class BlindPool(Pool):
        def run(self, function: Any, items: Any) -> Any:
            if function is not read_identity:
                function = partial(function.func, tmp_path / "elsewhere", *function.args[1:])
            yield from ((item, function(item)) for item in items)

    with pytest.raises(MissingError, match=r"elsewhere.* is not there on"):
        import_bcs_dbt(collection, tmp_path / "d", ImportSettings(), BlindPool())


def test_a_finished_import_is_found_again(
    collection: Path, imported: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbtbench.exchange.engine.read_volume", None)
    assert import_bcs_dbt(collection, imported.path, ImportSettings()).fingerprint == imported.fingerprint
    with pytest.raises(UsageError, match="other settings"):
        import_bcs_dbt(collection, imported.path, ImportSettings(seed=1))
