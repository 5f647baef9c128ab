"""The boxes of lesions must go where the augmentation takes the lesions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.task import Arm
from dbtbench.training.augment import NUM_LABELS, Changes, augment
from dbtbench.training.batches import Batches

GRID = (4, 48, 40)
BOX = torch.tensor([[1.0, 12, 8, 3, 24, 18]])


def volume_of(box: Tensor) -> Tensor:
    """A bright lesion that fills the ellipse in its box, in dim tissue."""
    axes = torch.meshgrid(*(torch.arange(n) + 0.5 for n in GRID), indexing="ij")
    centre, half = (box[0, 3:] + box[0, :3]) / 2, (box[0, 3:] - box[0, :3]) / 2
    inside = (
        sum(((axis - c) / h) ** 2 for axis, c, h in zip(axes[1:], centre[1:], half[1:], strict=True)) <= 1
    )
    depth = (axes[0] > box[0, 0]) & (axes[0] < box[0, 3])
    return torch.where(inside & depth, 0.9, 0.3)[None, None]


def drawn(seed: int, batch: int = 1, **fixed: Any) -> Changes:
    return replace(Changes.draw(batch, GRID, torch.Generator().manual_seed(seed)), **fixed)


@given(seed=st.integers(0, 10**6), low=st.tuples(st.integers(1, 34), st.integers(1, 28)))
@example(seed=167, low=(4, 9))
@settings(max_examples=40, deadline=None)
def test_a_box_goes_where_its_lesion_goes(seed: int, low: tuple[int, int]) -> None:
    y, x = low
    box = torch.tensor([[0.0, y, x, 1, y + 12, x + 10]])
    # Without shading, so that brightness over the tissue's is the share of a voxel that the lesion fills.
    changes = drawn(seed, gamma=torch.ones(1), blur=torch.zeros(1), noise=torch.zeros(1, 1, *GRID))
    before = volume_of(box)
    volumes, (moved,) = augment(before, [box], [False], changes)
    bright = (volumes[0, 0, int(moved[0, 0])] - 0.3) / 0.6
    assert bright.sum() > 20
    ys, xs = (torch.arange(n) + 0.5 for n in GRID[1:])
    found = [float((bright.sum(axis) * at).sum() / bright.sum()) for axis, at in ((1, ys), (0, xs))]
    touches = bool((moved[0, [1, 2]] <= 0).any()) or moved[0, 4] >= GRID[1] or moved[0, 5] >= GRID[2]
    if not touches:
        middle = (moved[0, 1:3] + moved[0, 4:]) / 2
        assert found == pytest.approx(middle.tolist(), abs=0.5)
        larger = float((moved[0, 4:] - moved[0, 1:3]).prod()) / (12 * 10)
        whole = float((before[0, 0, 0] - 0.3).sum()) / 0.6
        assert float(bright.sum()) == pytest.approx(whole * larger, rel=0.1)
    inside = torch.zeros_like(bright)
    y0, x0, y1, x1 = (round(float(moved[0, i])) for i in (1, 2, 4, 5))
    inside[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 1
    assert float((bright * inside).sum() / bright.sum()) > 0.9
    assert moved[0, [0, 3]].tolist() == ([3, 4] if changes.flip[0, 2] else [0, 1])


def test_half_of_the_volumes_are_mirrored_in_depth() -> None:
    flips = drawn(0, 400).flip
    assert flips.shape == (400, 3)
    assert (abs(flips.float().mean(dim=0) - 0.5) < 0.08).all()


def test_mixed_precision_moves_no_box() -> None:
    plain = augment(volume_of(BOX), [BOX], [False], drawn(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = augment(volume_of(BOX), [BOX], [False], drawn(3))
    assert torch.equal(plain[0], mixed[0])
    assert torch.equal(plain[1][0], mixed[1][0])


def test_an_mlo_view_is_never_turned_upside_down() -> None:
    still: dict[str, Any] = {"turn": torch.zeros(1), "scale": torch.ones(1), "shift": torch.zeros(1, 2)}
    changes = drawn(0, flip=torch.tensor([[False, True, False]]), **still)
    for upright, row in ((True, 12), (False, 24)):
        volumes, (moved,) = augment(volume_of(BOX), [BOX], [upright], changes)
        assert moved[0, 1] == row
        assert (volumes[0, 0, 2, row : row + 12].max() > 0.7).item()


def test_a_lesion_never_leaves_its_volume() -> None:
    corner = torch.tensor([[0.0, 0, 0, 2, 6, 6]])
    for seed in range(40):
        _, (moved,) = augment(volume_of(corner), [corner], [False], drawn(seed, shift=torch.ones(1, 2)))
        assert (moved[0, 3:] - moved[0, :3]).min() >= 2
        assert moved.min() >= 0


def test_volumes_keep_their_range_and_air_stays_black() -> None:
    volume = torch.rand(3, 1, *GRID)
    volume[..., 20:] = 0
    boxes = [torch.zeros(0, 6)] * 3
    still: dict[str, Any] = {"turn": torch.zeros(3), "scale": torch.ones(3), "shift": torch.zeros(3, 2)}
    changed, carried = augment(volume, boxes, [False] * 3, drawn(1, 3, flip=torch.zeros(3, 3) > 0, **still))
    assert all(box.shape == (0, 6) for box in carried)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert not changed[..., 22:].any()
    assert not torch.equal(changed[..., :20], volume[..., :20])


def test_a_batch_depends_on_its_step_only_and_its_parts_make_the_whole(toy: DBTDataset) -> None:
    batches = Batches(Arm("real", toy, toy.select("train")), 4, 0.5, 0.5, 0, 9, augment=True)

    def read(seed: int, part: slice) -> tuple[Tensor, list[Tensor]]:
        return batches.read(3, part, torch.Generator().manual_seed(seed))

    whole, boxes = read(5, slice(0, 4))
    parts = [read(5, part) for part in (slice(0, 1), slice(1, 4))]
    assert torch.equal(whole, torch.cat([volumes for volumes, _ in parts]))
    assert all(map(torch.equal, boxes, [box for _, own in parts for box in own]))
    assert not torch.equal(whole, read(6, slice(0, 4))[0])


def test_labels_say_every_change_and_nothing_of_a_volume_as_it_is() -> None:
    unchanged = drawn(0, 3).keep_some(0.0, torch.Generator().manual_seed(0))
    assert unchanged.labels().shape == (3, NUM_LABELS)
    assert not unchanged.labels().any()
    volumes, boxes = torch.rand(3, 1, *GRID), [BOX] * 3
    same, carried = augment(volumes, boxes, [False] * 3, unchanged)
    torch.testing.assert_close(same, volumes, rtol=0, atol=1e-4)
    assert all(torch.equal(box, BOX) for box in carried)
    change = {
        0: {"flip": torch.tensor([[False, True, False]])},
        1: {"flip": torch.tensor([[False, False, True]])},
        2: {"turn": torch.tensor([0.1])},
        3: {"scale": torch.tensor([1.1])},
        4: {"gamma": torch.tensor([1.1])},
        5: {"shift": torch.tensor([[0.05, 0.0]])},
        6: {"shift": torch.tensor([[0.0, 0.05]])},
    }
    for place, fields in change.items():
        one = replace(unchanged.part(slice(1)), **fields)
        assert one.labels()[0].nonzero().flatten().tolist() == [place]
        assert not torch.equal(augment(volumes[:1], boxes[:1], [False], one)[0], same[:1])


def test_each_change_is_kept_with_its_probability_and_left_breasts_stay_left_ones() -> None:
    kept = drawn(0, 4000).keep_some(0.3, torch.Generator().manual_seed(1))
    shares = (kept.labels() != 0).double().mean(dim=0)
    assert shares.tolist() == pytest.approx([0.15, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3], abs=0.03)
    assert (kept.labels().abs() <= 1.001).all()
    assert not kept.flip[:, 0].any()
    assert not kept.blur.any()
    assert not kept.noise.any()


def test_what_is_settled_is_what_is_done() -> None:
    """Labels would lie if a move were left out after they are made."""
    corner = torch.tensor([[0.0, 0, 0, 2, 6, 6]])
    left_out = 0
    for seed in range(40):
        changes = drawn(seed, shift=torch.tensor([[-0.05, -0.05]])).keep_some(
            1.0, torch.Generator().manual_seed(0)
        )
        settled = changes.settle([corner], [True], *GRID[1:])
        assert not settled.flip[0, 1]
        left_out += not settled.labels()[0, [2, 3, 5, 6]].any()
        volume = volume_of(corner)
        volumes, (box,) = augment(volume, [corner], [True], changes)
        again, (same,) = augment(volume, [corner], [True], settled)
        assert torch.equal(volumes, again)
        assert torch.equal(box, same)
    assert 0 < left_out < 40
