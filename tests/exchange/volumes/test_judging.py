"""Imported volumes are judged against the real data set that they join."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.errors import MissingError, UnreadableError, UsageError
from dbtbench.exchange.volumes.arrays import read_array
from dbtbench.exchange.volumes.ingest import import_samples
from dbtbench.exchange.volumes.judging import check_axes

GRID = (8, 32, 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def oblong(make_toy: Callable[..., DBTDataset], tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """A real data set of 4 × 24 × 16, whose originals had 40 × 30 × 20 voxels."""
    toy = make_toy(tmp_path_factory.mktemp("oblong") / "oblong", 2, (4, 24, 16))
    return DBTDataset(toy.path, toy.meta, toy.cases.assign(slices=40, rows=30, columns=20), toy.boxes)


def breast(toy: DBTDataset, case: int = 0) -> Any:
    """A volume like a real one of the view lcc (case 0) or rcc (case 2), and not the same."""
    return toy.volumes([case])[0, 0] * np.float32(0.999)


def notices(made: DBTDataset) -> dict[str, int]:
    return dict(made.meta["import_report"]["notices"])


def rejected(made: DBTDataset, table: str = "labels") -> dict[str, str]:
    rows = pd.read_csv(made.path / "rejected.csv")
    rows = rows[rows["table"] == table].astype({"detail": str})
    return dict(zip(rows["detail"] if table == "boxes" else rows["file"], rows["reason"], strict=True))


# Axes


@pytest.mark.parametrize("size", [(4, 24, 16), (8, 48, 32), (40, 30, 20), (5, 5, 5), (6, 30, 20), (9, 7, 80)])
def test_other_sizes_than_permuted_ones_pass(oblong: DBTDataset, size: tuple[int, int, int]) -> None:
    check_axes(size, oblong)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((24, 16, 4), "seems to be rows, columns, slices: the real data set has 4 × 24 × 16"),
        ((16, 24, 4), "seems to be columns, rows, slices"),
        ((4, 16, 24), "seems to be slices, columns, rows"),
        ((24, 4, 16), "seems to be rows, slices, columns"),
        ((48, 32, 8), "seems to be rows, columns, slices"),
        ((30, 20, 40), "seems to be rows, columns, slices: the real data set has 40 × 30 × 20"),
    ],
)
def test_axes_in_another_order_are_named(oblong: DBTDataset, size: tuple[int, int, int], words: str) -> None:
    with pytest.raises(UnreadableError, match="axes in another order") as caught:
        check_axes(size, oblong)
    assert words in caught.value.detail


def test_a_permuted_file_is_rejected_and_not_resampled(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    np.save(root / "a-lcc.npy", breast(toy))
    np.save(root / "b-lcc.npy", breast(toy).transpose(1, 2, 0))
    assert rejected(import_samples(root, tmp_path / "gan", toy)) == {"b-lcc.npy": "axes in another order"}


# Values


@pytest.mark.parametrize(
    ("kind", "largest", "scale"),
    [
        ("uint16", 880, 1023),
        ("int16", 4095, 4095),
        ("uint16", 255, 255),
        ("uint16", 16383, 16383),
        ("int64", 255, 255),
        ("int32", 70000, 131071),
        ("uint8", 1, 1),
        ("uint8", 63, 255),
    ],
)
def test_whole_numbers_of_a_small_part_of_their_type_are_refused_with_a_scale(
    toy: DBTDataset, root: Path, tmp_path: Path, kind: str, largest: int, scale: int
) -> None:
    for index in range(2):
        array = breast(toy) / breast(toy).max() * largest / (index + 1)
        np.save(root / f"{index}-lcc.npy", array.round().astype(kind))
    with pytest.raises(UsageError, match=f"{kind} values is {largest}") as caught:
        import_samples(root, tmp_path / "gan", toy)
    assert f"`--full-scale {scale}`" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["made"]  # nothing is kept
    made = import_samples(root, tmp_path / "gan", toy, full_scale=scale)
    assert made.volumes([0]).max() == pytest.approx(largest / scale, abs=1e-5)


def test_one_bright_file_of_a_type_shows_its_scale(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    np.save(root / "a-lcc.npy", (breast(toy) * 65535).astype(np.uint16))
    np.save(root / "b-lcc.npy", (breast(toy) * 9000).astype(np.uint16))
    np.save(root / "c-lcc.npy", breast(toy))
    made = import_samples(root, tmp_path / "gan", toy)
    np.testing.assert_allclose(made.volumes([0])[0, 0], breast(toy), atol=2e-5)


def test_full_scale_is_for_floating_point_numbers_as_well(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    np.save(root / "a-lcc.npy", breast(toy) * 255)
    np.save(root / "b-lcc.npy", breast(toy) * 600)
    with pytest.raises(MissingError):
        import_samples(root, tmp_path / "gan", toy)
    made = import_samples(root, tmp_path / "gan", toy, full_scale=255)
    np.testing.assert_allclose(made.volumes([0])[0, 0], breast(toy), atol=1e-5)
    assert rejected(made) == {"b-lcc.npy": "values are not in [0, 255]"}


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_what_is_no_full_scale_is_refused(toy: DBTDataset, root: Path, tmp_path: Path, scale: float) -> None:
    with pytest.raises(UsageError, match="is no full scale"):
        import_samples(root, tmp_path / "gan", toy, full_scale=scale)


@pytest.mark.parametrize(
    ("array", "reason", "detail"),
    [
        (
            np.linspace(-1, 1, 8),
            "values are not in [0, 1]",
            "values in [-1, 1] become intensities as (x + 1) / 2",
        ),
        (np.linspace(-0.1, 1, 8), "values are not in [0, 1]", "they run from -0.1 to 1; clip them"),
        (np.linspace(0, 1000, 8), "values are not in [0, 1]", "`--full-scale 1023`"),
        (np.linspace(-1000, 3000, 8), "values are not in [0, 1]", "0 is air"),
        (np.full(8, 0.3), "every voxel has the same value", "0.3"),
        (np.zeros(8, np.uint8), "every voxel has the same value", "0"),
        (np.array([0, np.nan] * 4), "values are not finite", "4 of 8"),
        (np.array([0, -np.inf] * 4), "values are not finite", "4 of 8"),
    ],
)
def test_values_that_are_no_intensities_have_a_reason_and_advice(
    tmp_path: Path, array: Any, reason: str, detail: str
) -> None:
    np.save(tmp_path / "a.npy", array.reshape(2, 2, 2))
    with pytest.raises(UnreadableError) as caught:
        read_array(tmp_path / "a.npy")
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_a_constant_dicom_file_is_rejected(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    np.save(root / "a-lcc.npy", breast(toy))
    names: dict[str, Any] = {"patient_id": "P", "study_id": "S", "uid_seed": "test"}
    sizes: dict[str, Any] = {"pixel_mm": (3.0, 3.0), "slice_mm": 5.0, "window": (512.0, 1024.0)}
    write_tomosynthesis(root / "b-lcc.dcm", np.full(GRID, 9, np.uint16), view="lcc", **names, **sizes)
    made = import_samples(root, tmp_path / "gan", toy)
    assert rejected(made) == {"b-lcc.dcm": "every voxel has the same value"}


def test_every_array_of_a_file_is_listed_when_none_is_the_volume(tmp_path: Path) -> None:
    many: dict[str, Any] = {f"image{index:03d}": np.zeros((2, 3, 4), np.float32) for index in range(40)}
    np.savez(tmp_path / "a.npz", **many, mask=np.zeros((2, 3), np.uint8))
    with pytest.raises(UnreadableError, match="no array named volume") as caught:
        read_array(tmp_path / "a.npz")
    assert all(f"{name}.npy (2 × 3 × 4, float32)" in caught.value.detail for name in many)
    assert "mask.npy (2 × 3, uint8)" in caught.value.detail


def test_every_array_of_a_matlab_file_is_listed_too(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"img": np.zeros((2, 3, 4)), "info": {"a": 1}})
    with pytest.raises(UnreadableError, match="no array named volume") as caught:
        read_array(tmp_path / "a.mat")
    assert "it holds img (2 × 3 × 4, double), info (1 × 1, struct)" in caught.value.detail
    savemat(tmp_path / "b.mat", {"volume": {"a": 1}})
    with pytest.raises(UnreadableError, match="not grey values"):
        read_array(tmp_path / "b.mat")


# Against the real data set


def test_volumes_of_the_other_side_are_counted(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for name, volume in (("a-lcc", breast(toy)), ("b-rcc", breast(toy)), ("c-lcc", breast(toy)[:, :, ::-1])):
        np.save(root / f"{name}.npy", volume)
    np.save(root / "d-lcc.npy", breast(toy).transpose(0, 2, 1))
    assert notices(import_samples(root, tmp_path / "gan", toy)) == {
        "laterality contradicts the view; of 16 real ones, 0": 2,
        "the two sides are equally bright: no laterality; of 16 real ones, 0": 1,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: 0.5 * v, "darker on average than all 16 real ones"),
        (lambda v: 1 - v, "brighter on average than all 16 real ones"),
        (lambda v: v + 0.7 * (v > 0) * (v > 0.4), "brighter"),
    ],
)
def test_volumes_darker_or_brighter_than_real_ones_are_counted(
    toy: DBTDataset, root: Path, tmp_path: Path, change: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(root / "a-lcc.npy", breast(toy))
    np.save(root / "b-lcc.npy", np.clip(change(breast(toy)), 0, 1))
    with caplog.at_level(logging.WARNING, "dbtbench"):
        found = notices(import_samples(root, tmp_path / "gan", toy))
    assert [count for text, count in found.items() if words in text] == [1]
    assert "gan: 1 of 2: " in caplog.text


def test_volumes_like_real_ones_give_no_notice(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    for case, view in enumerate(("lcc", "lmlo", "rcc", "rmlo")):
        np.save(root / f"{view}.npy", breast(toy, case))
    assert notices(import_samples(root, tmp_path / "gan", toy)) == {}


# Boxes


def test_boxes_under_a_voxel_or_mostly_outside_are_rejected_by_row(
    toy: DBTDataset, root: Path, tmp_path: Path
) -> None:
    np.save(root / "lcc.npy", breast(toy))
    boxes = {
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.7): "box is smaller than a voxel",
        (2, 3, 4, 2.5, 9, 9): "box is smaller than a voxel",
        (2, 3, -7, 4, 9, 4): "box lies mostly outside the volume",
        (-9, 3, 4, 2, 9, 9): "box lies mostly outside the volume",
        (2, 33, 4, 4, 39, 9): "box lies outside the volume",
        (2, 3, -2, 4, 9, 4): "",
        (2, 3, 4, 3, 4, 5): "",
    }
    rows = [{"file": "lcc.npy", **dict(zip(GRID_BOX, b, strict=True)), "Class": "cancer"} for b in boxes]
    pd.DataFrame(rows).to_csv(root / "boxes.csv", index=False)
    made = import_samples(root, tmp_path / "gan", toy)
    found = rejected(made, "boxes")
    assert len(made.boxes) == 2
    assert {tuple(map(float, text.lstrip("'").split(", "))): why for text, why in found.items()} == {
        box: why for box, why in boxes.items() if why
    }


def test_boxes_in_dbtex_columns_are_checked_alike(toy: DBTDataset, root: Path, tmp_path: Path) -> None:
    np.save(root / "lcc.npy", breast(toy))
    columns = ["Slice", "X", "Y", "Width", "Height"]
    boxes = {
        (2, 0.3, 0.4, 0.2, 0.2): "box is smaller than a voxel",
        (2, -6, 4, 10, 10): "box lies mostly outside the volume",
        (2, 40, 4, 10, 10): "box lies outside the volume",
        (8, 4, 4, 10, 10): "box lies outside the volume",
        (7, -4, 4, 10, 10): "",
    }
    rows = [{"file": "lcc.npy", **dict(zip(columns, b, strict=True)), "Class": "cancer"} for b in boxes]
    pd.DataFrame(rows).to_csv(root / "boxes.csv", index=False)
    made = import_samples(root, tmp_path / "gan", toy)
    assert len(made.boxes) == 1
    assert list(rejected(made, "boxes").values()) == [why for why in boxes.values() if why]


# The command


def test_the_command_names_the_folders_and_takes_a_full_scale(
    make_toy: Callable[..., DBTDataset], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy = make_toy(tmp_path / "work" / "datasets" / "toy", 8)
    for index in range(7):
        (root / f"epoch{index}").mkdir()
        np.save(root / f"epoch{index}" / "a-lcc.npy", (breast(toy) * 1023).astype(np.uint16))
    command = ["data", "import", "volumes", str(root), "--name", "sampled", "--data", "toy"]
    command += ["--workspace", str(tmp_path / "work")]
    with caplog.at_level(logging.INFO, "dbtbench"):
        done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, UsageError)
    assert caplog.messages[0].endswith(
        "made: 7 files, in epoch0 (1), epoch1 (1), epoch2 (1), epoch3 (1), epoch4 (1) and 2 more folders"
    )
    done = CliRunner().invoke(app, [*command, "--full-scale", "1023"])
    assert done.exit_code == 0
    assert "7 imported" in done.stdout
