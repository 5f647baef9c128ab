"""Similarity must see a copy that was moved, mirrored or shaded, and not a breast of the same shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from textured import GRID, draw_breast

from dbtbench.geometry.views import Volume, mirror_boxes
from dbtbench.metrics.copies import (
    LesionGallery,
    VolumeGallery,
    describe_lesions,
    describe_volume,
    is_wide_enough,
)

BOX = np.array([[3, 28, 14, 5, 36, 22]], np.float32)
CHANGES: dict[str, Callable[[Volume], Volume]] = {
    "exact": lambda volume: volume,
    "left to right": lambda volume: volume[:, :, ::-1],
    "upside down": lambda volume: volume[:, ::-1],
    "in depth": lambda volume: volume[::-1],
    "rows": lambda volume: ndimage.shift(volume, (0, 4, 0), order=0, mode="nearest"),
    "columns": lambda volume: ndimage.shift(volume, (0, 0, -3), order=0, mode="nearest"),
    "turned": lambda volume: ndimage.rotate(volume, 3, (1, 2), reshape=False, order=1, mode="nearest"),
    "gamma": lambda volume: volume**1.15,
    "darker": lambda volume: 0.6 * volume,
    "blurred": lambda volume: ndimage.gaussian_filter(volume, (0, 1, 1)),
}


@pytest.fixture(scope="module")
def breasts() -> list[Volume]:
    return [draw_breast(np.random.default_rng(seed)) for seed in range(24)]


@pytest.fixture(scope="module")
def gallery(breasts: list[Volume]) -> VolumeGallery:
    return VolumeGallery([describe_volume(volume) for volume in breasts])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_like_its_original_and_no_other(
    breasts: list[Volume], gallery: VolumeGallery, change: str
) -> None:
    for number in range(6):
        found = gallery.compare(describe_volume(CHANGES[change](breasts[number])))
        assert found.argmax() == number
        assert found[number] > 0.7
        assert np.delete(found, number).max() < 0.6


def test_mirroring_changes_nothing(breasts: list[Volume], gallery: VolumeGallery) -> None:
    for change in ("exact", "left to right", "upside down", "in depth"):
        assert gallery.compare(describe_volume(CHANGES[change](breasts[0])))[0] == pytest.approx(1, abs=1e-5)


def test_a_new_breast_is_like_none(gallery: VolumeGallery) -> None:
    new = [draw_breast(np.random.default_rng(seed)) for seed in range(100, 110)]
    assert max(gallery.compare(describe_volume(volume)).max() for volume in new) < 0.6


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_volume_without_structure_is_like_none(gallery: VolumeGallery, value: float) -> None:
    found = gallery.compare(describe_volume(np.full(GRID, value, np.float32)))
    assert np.isfinite(found).all()
    assert (found == 0).all()


def test_large_and_oblong_volumes_have_descriptors_of_their_shape() -> None:
    volume = np.random.default_rng(0).random((3, 320, 256), dtype=np.float32)
    assert describe_volume(volume).shape == (32, 26)


def test_a_lesion_is_found_in_another_breast_at_another_place(breasts: list[Volume]) -> None:
    host, donor = breasts[0].copy(), breasts[1]
    host[3:5, 22:30, 20:28] = 0.1 + donor[3:5, 28:36, 14:22]
    moved = BOX + np.array([0, -6, 6, 0, -6, 6], np.float32)
    gallery = LesionGallery([lesion for volume in breasts for lesion in describe_lesions(volume, BOX)])
    for noise in (0.0, 0.005):
        changed = host + noise * np.random.default_rng(0).standard_normal(GRID).astype(np.float32)
        for volume, box in ((changed, moved), (changed[:, :, ::-1], mirror_boxes(moved, GRID[2]))):
            found = gallery.compare(describe_lesions(volume, box)[0])
            assert found.argmax() == 1
            assert found[1] > 0.9
            assert np.delete(found, 1).max() < 0.9


def test_what_lies_around_a_lesion_does_not_count(breasts: list[Volume]) -> None:
    gallery = LesionGallery(describe_lesions(breasts[0], BOX))
    other = breasts[0].copy()
    outside = np.ones(GRID, bool)
    outside[3:5, 28:36, 14:22] = False
    other[outside] = breasts[1][outside]
    assert gallery.compare(describe_lesions(other, BOX)[0])[0] == pytest.approx(1, abs=1e-4)


def test_a_lesion_at_the_border_of_the_volume_has_a_description(breasts: list[Volume]) -> None:
    corners = np.array([[0, 0, 0, 1, 6, 6], [7, 58, 58, 8, 64, 64]], np.float32)
    lesions = describe_lesions(breasts[0], corners)
    assert len(lesions) == 2
    assert np.isfinite(LesionGallery(lesions).compare(lesions[0])).all()


def test_a_lesion_of_few_voxels_is_not_judged() -> None:
    boxes = np.array([[0, 0, 0, 2, 5, 5], [0, 0, 0, 2, 9, 4.9], [0, 0, 0, 2, 12, 12]], np.float32)
    assert is_wide_enough(boxes, (8, 64, 64)).tolist() == [True, False, True]
    assert is_wide_enough(boxes, (32, 256, 256)).tolist() == [False, False, True]
