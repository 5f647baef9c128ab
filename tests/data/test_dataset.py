from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dbtbench.data.dataset import DatasetWriter, DBTDataset, find_finished, laterality, projection
from dbtbench.errors import DBTBenchError, UsageError

CASE = {"PatientID": "P1", "StudyUID": "S1", "View": "lcc", "label": "normal", "split": "train"}
CASE_: dict[str, Any] = {
    **CASE,
    "slices": 4,
    "rows": 8,
    "columns": 8,
    "pixel_mm": None,
    "flipped": False,
    "file": "a.dcm",
}
META: dict[str, Any] = {"intensity": {}, "source": {"kind": "toy"}, "split": {"kind": "toy"}}
GRID = (4, 8, 8)


@pytest.fixture
def volume() -> Any:
    return np.random.default_rng(0).random(GRID).astype(np.float32)


def test_what_was_written_is_read_back_to_half_a_grey_level(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 3, {}) as writer:
        writer.add(2, volume, CASE_, [])
        read = writer.finish(META, "hash").volumes()
    assert read.shape == (1, 1, *GRID)
    np.testing.assert_allclose(read[0, 0], volume, atol=0.5 / 65535 + 1e-7)


def test_the_store_is_zarr_3_with_one_chunk_a_case(toy: DBTDataset) -> None:
    store = zarr.open_array(toy.path / "volumes.zarr", mode="r")
    assert store.metadata.zarr_format == 3
    assert store.chunks == (1, *toy.grid)


def test_boxes_stay_with_their_case_through_a_selection(toy: DBTDataset) -> None:
    test = toy.select("test")
    assert set(test.boxes["case"]) <= set(test.cases["case"])
    assert sum(len(test.boxes_of(case)) for case in test.cases["case"]) == len(test.boxes)
    assert toy.boxes_of(4).shape == (0, 6)


def test_patients_are_in_one_split_only(toy: DBTDataset) -> None:
    assert (toy.cases.groupby("PatientID")["split"].nunique() == 1).all()


def test_an_unknown_split_is_an_error(toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="'tset'"):
        toy.select("tset")


def test_a_killed_writer_continues_and_ends_with_the_same_fingerprint(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "whole", GRID, 2, {"x": 1}) as whole:
        whole.add(0, volume, CASE_, [])
        whole.add(1, volume / 2, CASE_, [])
        undisturbed = whole.finish(META, "h")
    with DatasetWriter(tmp_path / "killed", GRID, 2, {"x": 1}) as first:
        first.add(0, volume, CASE_, [])
    journal = next(tmp_path.glob(".killed.*.partial")) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"index": 1, "ca')  # killed while writing a line
    with DatasetWriter(tmp_path / "killed", GRID, 2, {"x": 1}) as second:
        assert second.done == {0}
        second.add(1, volume / 2, CASE_, [])
        assert second.finish(META, "h").fingerprint == undisturbed.fingerprint


def test_fresh_throws_away_what_was_half_done(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as first:
        first.add(0, volume, CASE_, [])
    with DatasetWriter(tmp_path / "d", GRID, 2, {}, fresh=True) as second:
        assert second.done == set()


def test_two_processes_do_not_write_the_same_data_set(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 1, {}), pytest.raises(DBTBenchError, match="another process"):
        DatasetWriter(tmp_path / "d", GRID, 1, {}).__enter__()
    with DatasetWriter(tmp_path / "d", GRID, 1, {}):
        pass


def test_the_fingerprint_sees_a_changed_voxel(tmp_path: Path, volume: Any) -> None:
    prints = []
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 0.1)):
        changed = volume.copy()
        changed[0, 0, 0] += change
        with DatasetWriter(tmp_path / name, GRID, 1, {}) as writer:
            writer.add(0, changed, CASE_, [])
            prints.append(writer.finish(META, "h").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_rejected_cases_become_rows_with_their_reason(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        writer.reject(
            0, {"PatientID": "P0", "StudyUID": "S0", "View": "rcc", "file": "x.dcm"}, "file not found"
        )
        writer.add(1, volume, CASE_, [])
        assert writer.reasons() == {"file not found": 1}
        dataset = writer.finish(META, "h")
    assert dataset.meta["rejected"] == 1
    text = (dataset.path / "rejected.csv").read_text()
    assert text == "PatientID,StudyUID,View,file,reason\nP0,S0,rcc,x.dcm,file not found\n"


def test_a_finished_data_set_is_found_by_identity_and_its_name_is_protected(
    tmp_path: Path, make_toy: Callable[..., DBTDataset]
) -> None:
    made = make_toy(tmp_path / "t", 2)
    identity = {"toy": [2, 8, 32, 32, 0]}
    found = find_finished(made.path, identity)
    assert found is not None
    assert found.fingerprint == made.fingerprint
    assert find_finished(made.path, identity, fresh=True) is None
    assert find_finished(tmp_path / "other", identity) is None
    with pytest.raises(UsageError, match="exists"):
        find_finished(made.path, {"toy": "another"})


@pytest.mark.parametrize(
    ("view", "side", "kind"),
    [("lcc", "l", "cc"), ("rmlo", "r", "mlo"), ("rcc1", "r", "cc"), ("lmlo2", "l", "mlo")],
)
def test_views_say_side_and_projection(view: str, side: str, kind: str) -> None:
    assert (laterality(view), projection(view)) == (side, kind)
