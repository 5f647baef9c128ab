"""The shape of training lesions: a planted one is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.lesions.places import Background, plane_distance
from dbtbench.lesions.shape import BINS, REACH, LesionShape, _measure_rings

GRID = (8, 48, 48)
BOX = np.array([3, 14, 12, 5, 30, 32], np.float32)
DEPTH = np.array([1.0, 1.0, 0.6, 0.2, 0.2])


def make_tissue(seed: int = 0) -> Volume:
    volume = np.full(GRID, 0.3, np.float32)
    volume += 0.01 * np.random.default_rng(seed).standard_normal(GRID, np.float32)
    volume[:, :, 44:] = 0
    return volume


def plant(
    volume: Volume, box: Boxes, radius: float, depth: np.ndarray = DEPTH, height: float = 0.4
) -> Volume:
    """Add a disc of so many half-axes, with a height for each slice's distance from the box's centre."""
    offset = np.abs(np.arange(len(volume)) + 0.5 - (box[0] + box[3]) / 2).astype(int)
    disc = plane_distance(box, volume.shape[1:]) <= radius
    planted: Volume = volume + (height * depth[offset][:, None, None] * disc).astype(np.float32)
    return planted


def fit(*volumes: Volume, boxes: Boxes = BOX[None]) -> LesionShape | None:
    return LesionShape.fit([(Background.of(one, "cc", "A"), boxes) for one in volumes], GRID[0])


def test_depth_and_width_of_a_planted_lesion_are_found() -> None:
    shape = fit(*(plant(make_tissue(seed), BOX, 0.6) for seed in range(4)))
    assert shape is not None
    assert shape.depth[:4] == pytest.approx(DEPTH[:4], abs=0.05)
    assert len(shape.depth) == 8
    centres = (np.arange(BINS) + 0.5) * REACH / BINS
    assert shape.plane[centres < 0.5] == pytest.approx(1, abs=0.05)
    assert shape.plane[centres > 0.75] == pytest.approx(0, abs=0.05)


def test_slices_further_away_than_any_that_was_seen_are_like_the_last() -> None:
    shape = fit(plant(make_tissue(), BOX, 0.6, depth=np.array([1.0, 1.0, 1.0, 0.5, 0.5])))
    assert shape is not None
    assert shape.depth[4:] == pytest.approx(shape.depth[4])


def test_another_lesion_is_no_part_of_a_lesions_surroundings() -> None:
    other = BOX + np.array([0, 18, 0, 0, 18, 0], np.float32)
    one = plant(make_tissue(), BOX, 0.6)
    with_other = plant(one, other, 1.0, height=0.6)
    background = Background.of(with_other, "cc", "A")
    alone = _measure_rings(one, background.inside, BOX[None])[0]
    seen = _measure_rings(with_other, background.inside, BOX[None])[0]
    both = _measure_rings(with_other, background.inside, np.stack([BOX, other]))[0]
    assert both[:8] == pytest.approx(alone[:8], abs=0.02)
    assert abs(seen[:8] - alone[:8]).min() > 0.05, "a lesion without a box lies in the ring"


@pytest.mark.parametrize("height", [0.0, -0.2])
def test_without_bright_lesions_there_is_no_shape(height: float) -> None:
    flat = np.where(make_tissue() > 0, np.float32(0.3), np.float32(0))
    assert fit(plant(flat, BOX, 0.6, height=height)) is None
    assert fit() is None
    assert fit(flat, boxes=BOX[None][:0]) is None


def test_the_extent_is_solid_in_the_lesion_and_nothing_outside_of_it() -> None:
    shape = fit(plant(make_tissue(), BOX, 0.6))
    assert shape is not None
    rise = np.ones(GRID[1:])
    rise[:, 20:22] = 0
    weight, hole, distance = shape.weigh(BOX, rise), shape.open_hole(BOX, rise), plane_distance(BOX, GRID[1:])
    assert weight.dtype == hole.dtype == np.float32
    solid = (distance < 0.45) & (rise > 0)
    assert (weight[3, solid] == 1).all()
    assert not weight[:, distance > 0.9].any()
    assert not weight[:, rise == 0].any()
    assert (hole[3, (distance < 1) & (rise > 0)] == 1).all()
    assert not hole[:, distance >= REACH].any()
    assert ((weight > 0) <= (hole > 0)).all()
    along = weight[:, solid].mean(axis=1)
    assert along[2:6] == pytest.approx(1, abs=0.01)
    assert along[0] == pytest.approx((0.2 - 0.05) / (0.5 - 0.05), abs=0.1), "a fifth of the contrast"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-4, 50), min_size=6, max_size=6),
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
)
def test_an_extent_is_between_nothing_and_all(corners: list[float], depth: list[float]) -> None:
    low, high = np.sort(np.array(corners).reshape(2, 3), axis=0)
    box = np.concatenate([low, high]).clip(0, [*GRID, *GRID]).astype(np.float32)
    shape = LesionShape(np.sort(depth)[::-1].copy(), np.linspace(1, 0, BINS))
    for made in (shape.weigh(box, np.ones(GRID[1:])), shape.open_hole(box, np.ones(GRID[1:]))):
        assert made.shape == GRID
        assert ((made >= 0) & (made <= 1)).all()
