"""Distances of lesions in depth and radius, on planted lesions: to those of the training split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.columns import GRID_BOX
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import DatasetWriter
from dbtbench.geometry.views import Volume
from dbtbench.runs import Run
from dbtbench.task import Arm
from dbtbench.tasks.realism import Realism, RealismRecipe

GRID = (8, 40, 40)
BOX = (3.0, 14.0, 12.0, 5.0, 26.0, 24.0)
NATIVE: dict[str, Any] = {"Subject": 0, "Slice": 4, "X": 12, "Y": 14, "Width": 12, "Height": 12}
NATIVE |= {"Class": "cancer", "AD": 0, "VolumeSlices": GRID[0]}
MEASURED = 4
"""Volumes of each split; every other has a lesion."""
DISTANCES = ("lesion_depth_distance", "lesion_radius_distance")

Plant = Callable[[Volume, float], None]


def mass(volume: Volume, contrast: float) -> None:
    """A mass as tomosynthesis shows it: as wide as its box, and smeared through all slices."""
    volume[:, distance() <= 1] += contrast


def brick(volume: Volume, contrast: float) -> None:
    """As wide as its box, and as deep: two slices."""
    volume[3:5, distance() <= 1] += contrast


def fog(volume: Volume, contrast: float) -> None:
    """Twice as wide as its box, through all slices."""
    volume[:, distance() <= 2] += contrast


def distance() -> Volume:
    """Distance from the box's centre in the plane, in half-axes."""
    rows, columns = np.mgrid[: GRID[1], : GRID[2]] + 0.5
    away: Volume = np.hypot(rows - 20, columns - 18) / 6
    return away


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., DBTDataset]:
    """`write(kind, contrast, (split, plant), …)`: volumes of each split, every other one with a lesion."""

    def make(kind: str, contrast: float, *planted: tuple[str, Plant]) -> DBTDataset:
        size: dict[str, Any] = {"slices": GRID[0], "rows": GRID[1], "columns": GRID[2], "pixel_mm": 7.0}
        path = tmp_path / f"{kind}-{planted[0][1].__name__}"
        with DatasetWriter(path, GRID, MEASURED * len(planted), {}) as writer:
            for index in range(MEASURED * len(planted)):
                split, plant = planted[index // MEASURED]
                noise = np.random.default_rng(index).standard_normal(GRID)
                volume = ((0.4 + 0.001 * noise) * (np.arange(GRID[2]) < 37)).astype(np.float32)
                boxes = []
                if index % 2 == 0:
                    plant(volume, contrast)
                    boxes = [dict(zip(GRID_BOX, BOX, strict=True)) | NATIVE]
                case: dict[str, Any] = {
                    "PatientID": f"P{index}",
                    "StudyUID": f"S{index}",
                    "View": "lcc",
                    "split": split,
                }
                case |= {"label": "cancer" if boxes else "normal", **size, "flipped": False, "file": ""}
                writer.add(index, volume, case, boxes)
            return writer.finish({"intensity": {}, "source": {"kind": kind}, "split": {}}, "")

    return make


def score(real: DBTDataset, drawn: DBTDataset | None, folder: Path) -> Sequence[float]:
    """Both distances, of an augmentation or of `real`."""
    arm = Arm("arm", real, real.select("train"), () if drawn is None else (drawn,))
    scores = Realism(RealismRecipe()).evaluate(arm, 0, Run(folder, {})).scores
    return [scores[name] for name in DISTANCES]


@pytest.mark.parametrize("contrast", [0.1, 0.2])
def test_lesions_are_compared_with_those_that_the_generator_was_fitted_to(
    write: Callable[..., DBTDataset], contrast: float, tmp_path: Path
) -> None:
    real = write("real", contrast, ("train", mass), ("test", brick))
    found = {
        plant.__name__: score(real, write("synthetic", contrast, ("train", plant)), tmp_path)
        for plant in (mass, brick, fog)
    }
    # A brick has no contrast in three of the four slices there are, and is right in its centre slice.
    # Fog has none to its own surroundings anywhere, and some where a mass ends: half of the four rings.
    assert found["mass"] == pytest.approx([0, 0], abs=0.001)
    assert found["brick"] == pytest.approx([0.75 * contrast, 0], abs=0.001)
    assert found["fog"] == pytest.approx([contrast, 0.5 * contrast], abs=0.001)
    table = pd.read_csv(tmp_path / "lesions.csv").query("profile == 'depth'")
    assert table["reference"].to_numpy() == pytest.approx([contrast] * 4 + [np.nan], abs=0.001, nan_ok=True)


@pytest.mark.parametrize("contrast", [0.1, 0.2])
def test_the_floor_is_the_distance_of_test_lesions_to_training_lesions(
    write: Callable[..., DBTDataset], contrast: float, tmp_path: Path
) -> None:
    real = write("real", contrast, ("train", mass), ("test", brick))
    assert score(real, None, tmp_path) == pytest.approx([0.75 * contrast, 0], abs=0.001)
    alike = write("alike", contrast, ("train", mass), ("test", mass))
    assert score(alike, None, tmp_path) == pytest.approx([0, 0], abs=0.001)


def test_training_lesions_that_are_not_there_give_no_distance(
    write: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    real = write("real", 0.2, ("train", mass), ("test", mass))
    drawn = write("synthetic", 0.2, ("train", mass))
    assert np.isfinite(score(real, drawn, tmp_path)).all()
    normal = real.take(~real.positive | (real.cases["split"] == "test").to_numpy())
    assert np.isnan(score(normal, drawn, tmp_path)).all()
