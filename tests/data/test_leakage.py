"""Real volumes in synthetic data sets are found, mirrored ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.leakage import Copy, CopyFinder, check_copies, check_leakage
from dbtbench.data.schema import read_declaration
from dbtbench.errors import StaleError

Write = Callable[..., DBTDataset]
TEST, VALIDATION, TRAIN = 28, 20, 3
"""Cases of the toy data set."""


def read(data: DBTDataset, case: int) -> Any:
    return data.volumes([case])[0, 0]


def other(data: DBTDataset, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random(data.grid, np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v, ""),
        (lambda v: v[:, :, ::-1], "columns reversed"),
        (lambda v: v[:, ::-1], "rows reversed"),
        (lambda v: v[::-1], "slices reversed"),
        (lambda v: v[:, ::-1, ::-1], "rows reversed, columns reversed"),
        (lambda v: v.transpose(0, 2, 1), "rows, columns exchanged"),
        (lambda v: np.rot90(v, axes=(1, 2)), "rows, columns exchanged, columns reversed"),
    ],
)
def test_a_real_volume_is_found_however_it_is_mirrored(toy: DBTDataset, change: Any, words: str) -> None:
    found = CopyFinder(toy).find("a.npy", change(read(toy, TEST)))
    assert found in (
        Copy("a.npy", TEST, "test", words),
        Copy("a.npy", TEST, "test", words.replace("columns r", "rows r")),
    )


def test_every_mirror_image_of_a_cube_is_found_and_no_other_volume(
    make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    cube = make_toy(tmp_path / "cube", 2, (6, 6, 6))
    finder = CopyFinder(cube)
    for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0)):
        assert finder.find(0, read(cube, 5).transpose(order)[::-1]) is not None
    changed = read(cube, 5).copy()
    changed[0, 0, 0] = 1
    assert finder.find(0, changed) is None


def test_an_oblong_grid_is_compared_as_it_lies(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    oblong = make_toy(tmp_path / "oblong", 2, (4, 8, 6))
    finder = CopyFinder(oblong)
    assert finder.find(0, read(oblong, 5)[:, ::-1]) == Copy(0, 5, "train", "rows reversed")


def test_a_volume_of_two_splits_counts_as_held_out(toy: DBTDataset) -> None:
    cases = toy.cases.copy()
    cases.loc[cases["case"] == TRAIN, "sha256"] = cases.loc[cases["case"] == TEST, "sha256"].item()
    twice = DBTDataset(toy.path, toy.meta, cases, toy.boxes)
    found = CopyFinder(twice).find(0, read(toy, TEST))
    assert found is not None
    assert found.split == "test"


@pytest.mark.parametrize("case", [TEST, VALIDATION])
@pytest.mark.parametrize("derived", [True, False, None])
def test_a_held_out_volume_is_refused_in_every_data_set(
    toy: DBTDataset, tmp_path: Path, write_synthetic: Write, case: int, derived: bool | None
) -> None:
    volumes = [other(toy), read(toy, case)[:, :, ::-1]]
    made = write_synthetic(tmp_path / "gan", toy, volumes, derived=derived)
    split = toy.cases["split"][case]
    with pytest.raises(StaleError, match=rf"1 real volumes .*1 is case {case} \({split}, columns reversed\)"):
        check_leakage(made, toy)


def test_volumes_of_the_reserve_are_held_out() -> None:
    with pytest.raises(StaleError, match="held out"):
        check_copies("gan", [Copy(0, 7, "reserve", "")], True)


def test_training_volumes_are_counted_where_a_data_set_is_derived_and_refused_elsewhere(
    toy: DBTDataset, tmp_path: Path, write_synthetic: Write, caplog: pytest.LogCaptureFixture
) -> None:
    volumes = [other(toy), read(toy, TRAIN), read(toy, TRAIN + 1)[:, ::-1]]
    assert check_leakage(write_synthetic(tmp_path / "classic", toy, volumes, derived=True), toy) == 2
    for name, source in (("gan", {"derived": False}), ("old", {})):
        made = write_synthetic(tmp_path / name, toy, volumes, **source)
        with pytest.raises(StaleError, match=f"{name} is not derived, and holds 2 training volumes"):
            check_leakage(made, toy)


def test_other_volumes_pass(toy: DBTDataset, tmp_path: Path, write_synthetic: Write) -> None:
    made = write_synthetic(tmp_path / "gan", toy, [other(toy), other(toy, 1)])
    assert check_leakage(made, toy) == 0


@pytest.mark.parametrize(
    ("source", "derived"), [({}, None), ({"derived": True}, True), ({"derived": "no"}, None)]
)
def test_older_data_sets_do_not_say_whether_they_are_derived(source: Any, derived: bool | None) -> None:
    assert read_declaration(source, "derived") is derived


def test_an_error_names_three_copies_at_most() -> None:
    with pytest.raises(StaleError) as caught:
        check_copies("gan", [Copy(n, n, "test", "") for n in range(9)])
    assert str(caught.value).endswith("2 is case 2 (test); …")


@pytest.mark.parametrize("bits", [8, 10, 15])
@pytest.mark.parametrize("cut", [np.rint, np.floor])
def test_a_copy_of_fewer_grey_levels_is_found(toy: DBTDataset, bits: int, cut: Any) -> None:
    largest = np.float32(2**bits - 1)
    rounded = (cut(read(toy, TEST) * largest) / largest)[:, ::-1]
    assert CopyFinder(toy).find(0, rounded) == Copy(0, TEST, "test", f"{bits} bits, rows reversed")


def test_other_volumes_of_few_grey_levels_pass(toy: DBTDataset) -> None:
    assert CopyFinder(toy).find(0, np.rint(other(toy) * 255) / 255) is None


def test_a_copy_of_half_precision_is_found(toy: DBTDataset) -> None:
    finder, volume = CopyFinder(toy), read(toy, TEST)
    assert finder.find(0, volume.astype(np.float16).astype(np.float32)) == Copy(0, TEST, "test", "float16")
    torch = pytest.importorskip("torch")
    rounded = torch.from_numpy(volume[:, :, ::-1].copy()).bfloat16().float().numpy()
    assert finder.find(0, rounded) == Copy(0, TEST, "test", "bfloat16, columns reversed")
