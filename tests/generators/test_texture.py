"""Texture: its recipes, its bytes and its run; what it draws from is tested in tests/closed_form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Layout
from dbtbench.generators.texture import Texture, TextureRecipe
from dbtbench.geometry.views import mirror_boxes
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run

NO_BOXES = np.zeros((0, 6), np.float32)


@pytest.fixture(scope="module")
def fitted(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> Texture:
    generator = Texture(TextureRecipe(components=6))
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("texture"), {}))
    return generator


@pytest.mark.parametrize("name", names(folder_of(Texture)))
def test_every_recipe_is_valid(name: str) -> None:
    assert resolve(TextureRecipe, folder_of(Texture), name).components == {"default": 64, "spectrum": 0}[name]


def test_a_right_view_is_the_mirror_image_of_a_left_one(fitted: Texture, toy: DBTDataset) -> None:
    boxes = toy.boxes_of(0)
    left = Layout(0, 7, "cancer", "lcc", boxes, 0)
    right = replace(left, view="rcc", boxes=mirror_boxes(boxes, toy.grid[2]))
    one, other = fitted.sample([left, right])
    assert np.array_equal(one.volume, other.volume[..., ::-1])
    assert np.array_equal(other.boxes, right.boxes)


def test_the_label_and_the_index_do_not_matter_and_the_seed_does(fitted: Texture) -> None:
    layout = Layout(0, 7, "normal", "lcc", NO_BOXES, 0)
    changed = [replace(layout, label="benign", index=3, source=5), replace(layout, seed=8)]
    same, one, other = (sample.volume.tobytes() for sample in fitted.sample([layout, *changed]))
    assert same == one
    assert same != other


def test_a_finished_run_is_loaded_and_no_volume_is_read(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, run = toy.select("train"), Run(tmp_path, {})
    first, second = Texture(TextureRecipe()), Texture(TextureRecipe())
    first.fit(train, run)
    run.finish()
    monkeypatch.setattr(DBTDataset, "volumes", _refuse)
    second.fit(train, run)
    layouts = [Layout(0, 7, "cancer", "lmlo", toy.boxes_of(0), 0)]
    assert next(first.sample(layouts)).volume.tobytes() == next(second.sample(layouts)).volume.tobytes()


def _refuse(*_: Any) -> Callable[..., Any]:
    raise AssertionError("a volume was read")
