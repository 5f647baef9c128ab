"""Detections one above the other become one, at the depth where they are strongest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.tasks.detection.merging import merge_depths


def find(*places: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of 2 × 6 × 6 voxels around (z, y, x), and their scores, the fourth number."""
    found = np.array(places, np.float32)
    half = np.array([1, 3, 3], np.float32)
    return np.concatenate([found[:, :3] - half, found[:, :3] + half], axis=1), found[:, 3]


def test_detections_above_each_other_become_one_between_them() -> None:
    boxes, scores = merge_depths(*find((1, 20, 20, 0.9), (5, 21, 20, 0.6), (3, 40, 20, 0.5)), overlap=0.3)
    np.testing.assert_allclose(scores, [0.9, 0.5])
    middles = (boxes[:, :3] + boxes[:, 3:]) / 2
    between = (0.9 * 1 + 0.6 * 5) / 1.5
    np.testing.assert_allclose(middles, np.array([[between, 20, 20], [3, 40, 20]]), rtol=1e-6)
    np.testing.assert_allclose(boxes[:, 3:] - boxes[:, :3], np.full((2, 3), (2, 6, 6)), rtol=1e-6)


def test_neighbours_in_the_plane_stay_apart() -> None:
    boxes, scores = find((2, 20, 20, 0.9), (2, 20, 25, 0.8))
    kept, _ = merge_depths(boxes, scores, overlap=0.3)
    np.testing.assert_array_equal(kept, boxes)


def test_nothing_found_stays_nothing() -> None:
    boxes, scores = merge_depths(np.empty((0, 6), np.float32), np.empty(0, np.float32), 0.2)
    assert (boxes.shape, scores.shape) == ((0, 6), (0,))


@given(st.lists(st.tuples(*[st.floats(0, 60, width=32)] * 3, st.floats(0.0625, 1, width=32)), max_size=12))
def test_no_two_overlap_and_none_leaves_the_range_of_depths(
    places: list[tuple[float, float, float, float]],
) -> None:
    if not places:
        return
    boxes, scores = find(*sorted(places, key=lambda place: -place[3]))
    merged, kept = merge_depths(boxes, scores, overlap=0.2)
    assert kept[0] == scores.max()
    assert (np.diff(kept) <= 0).all()
    assert merged[:, 0].min() >= boxes[:, 0].min() - 1e-3
    assert merged[:, 3].max() <= boxes[:, 3].max() + 1e-3
    again, _ = merge_depths(merged, kept, overlap=0.2)
    np.testing.assert_allclose(again, merged, rtol=1e-5)
