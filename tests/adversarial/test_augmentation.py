"""Tests of random patches: they show the lesion, and any place is as likely as another."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.adversarial.augmentation import Patches

SIDES = st.integers(1, 5).map(lambda n: 8 * n)


@given(SIDES, SIDES, SIDES, st.data())
def test_a_patch_shows_the_centre(height: int, width: int, size: int, data: st.DataObject) -> None:
    centre = data.draw(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)))
    volumes = torch.zeros(6, 1, 2, height, width)
    volumes[..., centre[0], centre[1]] = 1
    centres = torch.tensor([centre] * 6, dtype=torch.float32)
    patches = Patches.draw(centres, (height, width), size, torch.Generator().manual_seed(0))
    cut = patches.cut(volumes)
    assert cut.shape == (6, 1, 2, min(size, height), min(size, width))
    assert (cut.flatten(1).sum(1) == 2).all()


def test_without_a_centre_every_place_is_drawn() -> None:
    centres = torch.full((2000, 2), math.nan)
    patches = Patches.draw(centres, (16, 12), 8, torch.Generator().manual_seed(0))
    assert set(patches.first[:, 0].tolist()) == set(range(9))
    assert set(patches.first[:, 1].tolist()) == set(range(5))
    assert abs(float(patches.first[:, 0].float().mean()) - 4) < 0.25


def test_a_part_is_that_of_the_whole_batch() -> None:
    patches = Patches.draw(torch.full((4, 2), 3.0), (16, 16), 8, torch.Generator().manual_seed(0))
    volumes = torch.rand(4, 1, 2, 16, 16)
    assert torch.equal(patches.part(slice(1, 3)).cut(volumes[1:3]), patches.cut(volumes)[1:3])


def test_contrast_changes_tissue_and_leaves_air() -> None:
    patches = Patches.draw(torch.full((8, 2), math.nan), (8, 8), 8, torch.Generator().manual_seed(0))
    volumes = torch.zeros(8, 1, 1, 8, 8)
    volumes[..., :4] = 0.5
    changed = patches.change_contrast(volumes)
    assert (changed[..., 4:] == 0).all()
    assert len(set(changed[:, 0, 0, 0, 0].tolist())) == 8
    assert 0.4 <= float(changed[..., :4].min()) < float(changed[..., :4].max()) <= 0.6
