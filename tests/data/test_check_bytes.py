"""`data check` on damaged bytes: a volume that is lost or changed is named, and nothing is ever raised."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbtbench.data.check import as_text, check_dataset
from dbtbench.data.dataset import DBTDataset

TABLES = {"dataset.json and the tables are complete", "the fingerprint is that of the tables"}
VOLUMES = "every volume has its SHA-256"


@pytest.fixture
def copy(toy: DBTDataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.path, tmp_path / "copy"))


def failed(path: Path) -> dict[str, list[str]]:
    return {check.name: check.first for check in check_dataset(path) if not check.ok}


def new(copy: Path, toy: DBTDataset) -> set[str]:
    """Checks that fail for the copy and do not for the original."""
    return failed(copy).keys() - failed(toy.path).keys()


def test_a_changed_or_missing_volume_is_named(copy: Path, toy: DBTDataset) -> None:
    store = zarr.open_array(copy / "volumes.zarr", mode="r+")
    changed = np.asarray(store[5])
    changed[0, 0, 0] += 1
    store[5], store[3] = changed, 0
    assert new(copy, toy) == {VOLUMES}
    shard = copy / "volumes.zarr" / "c" / "0" / "0" / "0" / "0"
    assert failed(copy)[VOLUMES] == [
        f"case 3 (P000 rmlo): {shard}: the values of case 3 are missing",
        f"case 5 (P001 lmlo): {shard}: the values of case 5 do not have the SHA-256 of cases.csv",
    ]


@pytest.fixture
def unpacked(copy: Path) -> tuple[Path, list[Path]]:
    """The data set with a file for every chunk, as older ones have; and these files, by case."""
    values = np.asarray(zarr.open_array(copy / "volumes.zarr", mode="r")[:])
    shutil.rmtree(copy / "volumes.zarr")
    store = zarr.create_array(
        copy / "volumes.zarr", shape=values.shape, chunks=(1, *values.shape[1:]), dtype="uint16", fill_value=0
    )
    files = []
    for case in range(32):
        before = {file for file in (copy / "volumes.zarr").rglob("*") if file.is_file()}
        store[case] = values[case]
        files += [f for f in (copy / "volumes.zarr").rglob("*") if f.is_file() and f not in before]
    assert len(files) == 32
    return copy, files


def test_a_chunk_that_is_missing_cut_or_corrupt_is_a_failure_that_names_the_case(
    unpacked: tuple[Path, list[Path]],
) -> None:
    folder, files = unpacked
    assert VOLUMES not in failed(folder)
    files[0].unlink()
    files[2].write_bytes(files[2].read_bytes()[:50])
    files[7].write_bytes(b"\0" * 100)
    problems = failed(folder)[VOLUMES]
    assert [problem.split(":")[0] for problem in problems] == [
        "case 0 (P000 lcc)",
        "case 2 (P000 rcc)",
        "case 7 (P001 rmlo)",
    ]
    assert "missing" in problems[0]
    assert "cannot be read" in problems[1]


def test_of_many_offenders_the_first_are_named_and_the_rest_counted(copy: Path) -> None:
    store = zarr.open_array(copy / "volumes.zarr", mode="r+")
    store[:] = 0
    check = check_dataset(copy)[-1]
    assert (check.problems, len(check.first)) == (32, 3)
    assert "and 29 more" in as_text("copy", [check])


@pytest.mark.parametrize("damage", ["gone", "empty", "json", "shape", "cut"])
def test_a_store_that_is_none_is_a_failure(copy: Path, toy: DBTDataset, damage: str) -> None:
    store = copy / "volumes.zarr"
    if damage == "gone":
        shutil.rmtree(store)
    elif damage == "shape":
        shutil.rmtree(store)
        zarr.create_array(store, shape=(32, 8, 32, 31), chunks=(1, 8, 32, 31), dtype="uint16")
    else:
        file = store / "zarr.json"
        text = {"empty": "", "json": "[1, 2]", "cut": file.read_text()[:200]}[damage]
        file.write_text(text)
    assert new(copy, toy) == {VOLUMES}
    assert failed(copy)[VOLUMES][0].startswith(f"{store}: ")


@pytest.fixture(scope="module")
def scratch(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(toy.path, tmp_path_factory.mktemp("scratch") / "copy"))


FILES = ["dataset.json", "cases.csv", "boxes.csv", "rejected.csv", "zarr.json", "shard"]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(FILES),
    place=st.floats(0, 1),
    junk=st.one_of(
        st.binary(max_size=6), st.sampled_from([b",", b"\n", b'"', b"-", b"nan", b"inf", b"9" * 30])
    ),
    taken=st.sampled_from([0, 1, 5, 10**6]),
)
def test_whatever_happens_to_a_file_nothing_is_raised(
    scratch: Path, name: str, place: float, junk: bytes, taken: int
) -> None:
    shard = next(f for f in (scratch / "volumes.zarr").rglob("*") if f.is_file() and f.name != "zarr.json")
    file = {"zarr.json": scratch / "volumes.zarr" / name, "shard": shard}.get(name, scratch / name)
    whole = file.read_bytes()
    at = int(place * len(whole))
    damaged = whole[:at] + junk + whole[at + taken :]
    try:
        file.write_bytes(damaged)
        checks = check_dataset(scratch)
        assert as_text("scratch", checks)
        if name in ("cases.csv", "boxes.csv"):
            assert any(not check.ok and check.name in TABLES for check in checks) == (damaged != whole)
    finally:
        file.write_bytes(whole)
