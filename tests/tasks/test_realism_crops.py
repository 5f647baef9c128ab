"""Sets of lesion crops, and the C2ST by a CNN, in the task: on breasts whose tissue has structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textured import draw_breast

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.radiomics import lesion_radiomics, radiomics
from dbtbench.tasks.realism.metrics import CROP_METRICS
from dbtbench.tasks.realism.network import stand_by_cnn
from dbtbench.tasks.realism.scoring import Sides, score_lesions
from dbtbench.tasks.realism.table import Table, join_with_pairs, measure_arrays

EACH = 20
NAMES = [metric.name for metric in CROP_METRICS]

Plant = Callable[[Volume, np.random.Generator], Volume]


def mass(crop: Volume, rng: np.random.Generator) -> Volume:
    """A bright, textured mass."""
    return np.asarray(crop + 0.2 + 0.05 * rng.standard_normal(crop.shape), np.float32)


def smooth_mass(crop: Volume, rng: np.random.Generator) -> Volume:
    """A mass as bright, without texture."""
    return np.asarray(np.full_like(crop, crop.mean() + 0.2), np.float32)


def plant(seed: int, change: Plant = mass, number: int = EACH) -> Table:
    """Measure breasts with a lesion each."""
    volumes, boxes = [], []
    for row in range(number):
        rng = np.random.default_rng([seed, row])
        volume = draw_breast(rng).copy()
        y, x = rng.integers(20, 34), rng.integers(6, 18)
        volume[3:6, y : y + 9, x : x + 9] = change(volume[3:6, y : y + 9, x : x + 9], rng)
        volumes.append(volume.clip(0, 1))
        boxes.append(np.array([[3, y, x, 6, y + 9, x + 9]], np.float32))
    return measure_arrays(np.array(volumes, np.float32)[:, None], boxes, f"{seed}-")


@pytest.fixture(scope="module")
def real() -> Table:
    return plant(0)


def score(own: Table, fitted: Table) -> dict[str, float]:
    found = score_lesions(Sides(own, fitted, fitted))
    return {name: found[name] for name in NAMES}


def test_lesions_without_texture_are_seen_in_their_crops_alone(real: Table) -> None:
    same, smooth = score(plant(1), real), score(plant(1, smooth_mass), real)
    assert same["lesion_precision"] > 0.8
    assert abs(same["lesion_kid"]) < 1
    assert smooth["lesion_kid"] > 20 * abs(same["lesion_kid"])
    assert smooth["lesion_frechet"] > 3 * same["lesion_frechet"]
    for name in ("lesion_precision", "lesion_recall", "lesion_coverage"):
        assert smooth[name] < 0.3 < same[name]


def test_too_few_lesions_give_no_comparison(real: Table) -> None:
    few = real.take(np.arange(7))
    assert np.isnan(list(score(few, real).values())).all()
    assert np.isnan(list(score(real, few).values())).all()
    assert np.isfinite(list(score(real.take(np.arange(8)), real).values())).all()


def test_a_crop_is_the_box_and_half_as_much_again_in_the_plane() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.random((1, 1, 6, 32, 32), np.float32)
    inside = np.ones(volumes.shape, bool)
    boxes: list[Boxes] = [np.array([[1, 10, 12, 4, 18, 16], [0, 0, 0, 6, 4, 4]], np.float32)]
    found: dict[str, Any] = lesion_radiomics(volumes, inside, boxes)
    one = volumes[:, :, 1:4, 8:20, 11:17]
    corner = volumes[:, :, :, :5, :5]
    for row, crop in enumerate((one, corner)):
        for name, values in radiomics(crop, np.ones(crop.shape, bool)).items():
            assert found[name][row] == values[0]


def test_the_cnn_has_a_floor_of_few_draws_and_sees_a_checkerboard() -> None:
    drawn = np.array([draw_breast(np.random.default_rng(seed))[:4, 16:48, :32] for seed in range(72)])[
        :, None
    ]
    board = np.indices(drawn.shape[3:]).sum(axis=0) % 2 * 2 - 1
    spoilt = (drawn[:18] + np.where(drawn[:18] > 0.1, 0.02 * board, 0)).clip(0, 1).astype(np.float32)
    pool = join_with_pairs([measure_arrays(drawn[18:], [], "r")], 0)
    pool = join_with_pairs([pool.take(np.arange(54))], 0)
    pool.cases["kind"] = "all"
    half = pool.take(np.arange(18))
    places = {}
    for name, own in (("spoilt", measure_arrays(spoilt, [], "s")), ("real", pool.take(np.arange(18, 36)))):
        value, placed = stand_by_cnn(Sides(own, half, half), pool, "", (("", 18),), 3, 0)
        assert placed is not None
        assert placed.low <= value <= placed.high
        assert 0 <= placed.floor_low < placed.floor < placed.floor_high <= 1
        places[name] = (value, placed.percentile)
    assert places["spoilt"][0] > 0.9 > 0.8 > places["real"][0]
    assert places["spoilt"][1] > 90


def test_without_draws_the_cnn_scores_and_stands_nowhere(tmp_path: Path) -> None:
    few = measure_arrays(np.array([draw_breast(np.random.default_rng(0))] * 4)[:, None], [], "x")
    value, placed = stand_by_cnn(Sides(few, few, few), few, "", (), 5, 0)
    assert np.isnan(value)
    assert placed is None
