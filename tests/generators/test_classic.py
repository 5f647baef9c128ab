"""Classic augmentation: boxes follow their lesions, air stays air, and the same seed gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Layout
from dbtbench.generators.classic import (
    Classic,
    ClassicRecipe,
    carry,
    clip,
    from_torchio,
    to_torchio,
    upside_down,
)
from dbtbench.geometry.views import Boxes
from dbtbench.layouts import draw_layouts
from dbtbench.runs import Run

NOTHING = {"degrees": 0, "scale": 0, "shift": 0, "gamma": 0, "blur": 0, "noise": 0}
NO_BOXES = np.zeros((0, 6), np.float32)


def classic(dataset: DBTDataset, **settings: Any) -> Classic:
    generator = Classic(ClassicRecipe(**settings))
    generator.fit(dataset, Run(Path(), {}))
    return generator


class OneBlob(DBTDataset):
    """A volume that is 0.2 everywhere but in its boxes, where it is 1."""

    def volumes(self, cases: Any = None) -> Any:
        volume = np.full((1, 1, *self.grid), 0.2, np.float32)
        for z0, y0, x0, z1, y1, x1 in self.boxes_of(0).astype(int):
            volume[0, 0, z0:z1, y0:y1, x0:x1] = 1
        return volume

    def boxes_of(self, case: int) -> Boxes:
        return np.array([[2, 6, 3, 5, 10, 9], [1, 21, 18, 3, 25, 22]], np.float32)


@pytest.fixture
def blobs(toy: DBTDataset) -> DBTDataset:
    return OneBlob(toy.path, toy.meta, toy.cases, toy.boxes)


@pytest.mark.parametrize("view", ["lcc", "rcc", "lmlo", "rmlo"])
@pytest.mark.parametrize("seed", range(10))
def test_a_bright_blob_lies_in_its_carried_box(blobs: DBTDataset, view: str, seed: int) -> None:
    generator = classic(blobs, degrees=20, scale=0.2, shift=0.1, gamma=0, blur=0, noise=0)
    (sample,) = generator.sample([Layout(0, seed, "cancer", view, NO_BOXES, 0)])
    assert sample.boxes.shape == (2, 6)
    inside = np.zeros_like(sample.volume, bool)
    for box in sample.boxes:
        low, high = np.floor(box[:3] - 0.5).astype(int).clip(0), np.ceil(box[3:] + 0.5).astype(int)
        inside[tuple(map(slice, low, high))] = True
        core = tuple(((box[:3] + box[3:]) / 2).astype(int))
        assert sample.volume[core] > 0.9
    assert sample.volume[~inside].max() < 0.6


def test_carried_boxes_are_exact(blobs: DBTDataset) -> None:
    image = to_torchio(blobs.volumes()[0, 0])
    quarter_turn = tio.Affine(scales=(1, 1, 1), degrees=(0, 0, 90), translation=(0, 0, 0))
    box = np.array([[2, 6, 3, 5, 10, 9]], np.float32)
    turned = carry(box, quarter_turn, image)
    rotated = from_torchio(quarter_turn(image))
    z0, y0, x0, z1, y1, x1 = np.rint(turned[0]).astype(int)
    np.testing.assert_allclose(turned[0], np.rint(turned[0]), atol=1e-4)
    assert ((y1 - y0), (x1 - x0)) == (6, 4)
    assert (rotated[z0:z1, y0:y1, x0:x1] > 0.99).all()


def test_the_axes_are_converted_there_and_back() -> None:
    volume = np.random.default_rng(0).random((3, 4, 5), np.float32)
    image = to_torchio(volume)
    assert image.shape == (1, 5, 4, 3)
    assert np.array_equal(from_torchio(image), volume)


def test_samples_keep_grid_range_and_air(toy: DBTDataset) -> None:
    layouts = draw_layouts(toy.select("train"), 12, seed=0, positives=0.5)
    for layout, sample in zip(layouts, classic(toy).sample(layouts), strict=True):
        assert sample.volume.shape == toy.grid
        assert sample.volume.dtype == np.float32
        assert 0 <= sample.volume.min() <= sample.volume.max() <= 1
        corner = sample.volume[:, :3, -3:] if layout.view[0] == "l" else sample.volume[:, :3, :3]
        assert (corner == 0).all()
        assert len(sample.boxes) == len(toy.boxes_of(layout.source))
        assert np.array_equal(clip(sample.boxes, toy.grid), sample.boxes)


def test_without_any_strength_it_gives_the_source_or_its_mirror_image(toy: DBTDataset) -> None:
    generator = classic(toy, **NOTHING)
    source = toy.volumes([1])[0, 0]  # an lmlo view, which is never turned upside down
    same, mirror = generator.sample([Layout(0, 0, "cancer", view, NO_BOXES, 1) for view in ("lmlo", "rmlo")])
    np.testing.assert_allclose(same.volume, source, atol=1e-6)
    np.testing.assert_allclose(mirror.volume, source[..., ::-1], atol=1e-6)
    np.testing.assert_allclose(same.boxes, toy.boxes_of(1), atol=1e-4)


def test_only_cc_views_are_turned_upside_down(toy: DBTDataset) -> None:
    generator = classic(toy, **NOTHING)
    for case, turned in ((0, {True, False}), (1, {False})):
        source = toy.volumes([case])[0, 0]
        samples = generator.sample(
            [Layout(i, i, "cancer", "lcc" if not case else "lmlo", NO_BOXES, case) for i in range(8)]
        )
        assert {bool(np.abs(s.volume - source).max() > 0.01) for s in samples} == turned


def test_the_same_layout_gives_the_same_bytes_and_leaves_the_global_generator_alone(toy: DBTDataset) -> None:
    layouts = draw_layouts(toy.select("train"), 4, seed=0, positives=0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [sample.volume.tobytes() for sample in classic(toy).sample(layouts)]
    assert torch.equal(torch.get_rng_state(), before)
    again = [next(classic(toy).sample([layout])).volume.tobytes() for layout in reversed(layouts)]
    assert first == again[::-1]
    assert len(set(first)) == 4


def test_boxes_turn_upside_down_with_the_volume() -> None:
    box = np.array([[1, 2, 3, 4, 5, 6]], np.float32)
    assert upside_down(box, 10).tolist() == [[1, 5, 3, 4, 8, 6]]
    assert np.array_equal(upside_down(upside_down(box, 10), 10), box)


def test_a_lesion_at_the_border_stays_in_view_and_is_not_doubled(blobs: DBTDataset) -> None:
    class AtTheBorder(OneBlob):
        def boxes_of(self, case: int) -> Boxes:
            return np.array([[2, 12, 0, 5, 18, 4]], np.float32)

    border = AtTheBorder(blobs.path, blobs.meta, blobs.cases, blobs.boxes)
    generator = classic(border, degrees=20, scale=0.2, shift=0.2, gamma=0, blur=0, noise=0)
    for seed in range(20):
        (sample,) = generator.sample([Layout(0, seed, "cancer", "lmlo", NO_BOXES, 0)])
        (box,) = sample.boxes
        low, high = np.floor(box[:3] - 0.5).astype(int).clip(0), np.ceil(box[3:] + 0.5).astype(int)
        outside = sample.volume.copy()
        outside[tuple(map(slice, low, high))] = 0.2
        assert outside.max() < 0.6
        assert (box[4] - box[1]) * (box[5] - box[2]) > 6
