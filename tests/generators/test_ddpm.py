"""Tests of the DDPM: recipes, conditioning, learning, and bytes that do not depend on the batch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout, Sample
from dbtbench.generators.ddpm import DDPM, DDPMRecipe
from dbtbench.geometry.views import mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.pipeline import generate
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run
from dbtbench.training.augment import NUM_LABELS
from dbtbench.training.learned import LeftBreasts
from dbtbench.training.loop import StepContext

FOLDER = folder_of(DDPM)
GRID = (8, 32, 32)


def smoke(**changes: Any) -> DDPMRecipe:
    recipe = resolve(DDPMRecipe, FOLDER, "smoke")
    return recipe.model_copy(update=changes)


@pytest.fixture(scope="module")
def fitted(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> DDPM:
    generator = DDPM(smoke())
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("ddpm"), {}))
    return generator


@pytest.fixture(scope="module")
def layouts(toy: DBTDataset) -> list[Layout]:
    return draw_layouts(toy.select("train"), 7, seed=0, positives=0.5)


def is_same(a: Sample, b: Sample) -> bool:
    return a.volume.tobytes() == b.volume.tobytes() and a.boxes.tobytes() == b.boxes.tobytes()


@pytest.mark.parametrize("name", names(FOLDER))
def test_every_recipe_is_valid_and_fits_the_grid_of_the_paper(name: str) -> None:
    DDPM(resolve(DDPMRecipe, FOLDER, name)).check((8, 64, 64))


def test_a_grid_that_cannot_be_divided_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UsageError, match=r"36 x 64 cannot be divided by 8") as caught:
        DDPM(smoke()).check((8, 36, 64))
    assert "32 x 64" in caught.value.hint


def test_channels_that_cannot_be_grouped_are_an_error() -> None:
    with pytest.raises(UsageError, match="setting base_channels = 12"):
        resolve(DDPMRecipe, FOLDER, "smoke", {"base_channels": "12"})


def test_at_zero_terminal_snr_the_noise_cannot_be_the_target() -> None:
    with pytest.raises(UsageError, match=r"setting target = 'noise': at zero terminal SNR"):
        resolve(DDPMRecipe, FOLDER, "smoke", {"target": "noise"})
    assert resolve(DDPMRecipe, FOLDER, "smoke", {"target": "noise", "zero_terminal_snr": "false"})


def test_the_recipe_paper_has_the_settings_that_the_paper_states() -> None:
    paper, mae = (resolve(DDPMRecipe, FOLDER, name) for name in ("paper", "paper-mae"))
    stated = {"lr": 1e-4, "weight_decay": 0, "batch": 64, "loss": "mse", "target": "noise"}
    assert paper.model_dump(include={*stated, "conditional"}) == stated | {"conditional": False}
    assert mae == paper.model_copy(update={"loss": "mae"})


@pytest.mark.parametrize("size", ["default", "demo", "smoke"])
def test_a_recipe_of_rectified_flow_differs_in_the_flow_alone(size: str) -> None:
    flow = {"noise_schedule": "straight", "time_distribution": "logit-normal", "target": "flow"}
    name = "rectified" if size == "default" else f"rectified-{size}"
    plain, rectified = (resolve(DDPMRecipe, FOLDER, one) for one in (size, name))
    assert rectified == plain.model_copy(update=flow)


def test_monais_network_is_not_given_changes() -> None:
    with pytest.raises(UsageError, match=r"setting augment = 0\.5: MONAI's network"):
        resolve(DDPMRecipe, FOLDER, "smoke", {"augment": "0.5", "backbone": "monai"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drop=0.2", "conditioning_dropout=0.2"),
        ("conditioned=false", "conditional=false"),
        ("guidance=1.5", "guidance_scale=1.5"),
        ("times=300", "num_timesteps=300"),
        ("start=leak", "init=signal_leak"),
        ("start=noise", "init=noise"),
        ("dim=16", "base_channels=16"),
        ("mults=[1, 2]", "channel_mults=[1, 2]"),
    ],
)
def test_an_old_setting_is_an_error_and_the_setting_of_its_hint_works(old: str, new: str) -> None:
    key, _, value = old.partition("=")
    with pytest.raises(UsageError, match=f"setting '{key}' is now '{new.partition('=')[0]}'") as caught:
        resolve(DDPMRecipe, FOLDER, "smoke", {key: value})
    option, setting = shlex.split(caught.value.hint)
    assert (option, setting) == ("--set", new)
    key, _, value = setting.partition("=")
    assert resolve(DDPMRecipe, FOLDER, "smoke", {key: value})


def test_settings_of_sampling_do_not_train_again() -> None:
    sampling = {"sampler": "dpm++", "init": "signal_leak", "clip_data": False, "sample_steps": 9}
    assert smoke(**sampling).fit_settings() == smoke().fit_settings()
    for changed in ({"loss": "mae"}, {"target": "data"}, {"min_snr": 5.0}, {"noise_schedule": "linear"}):
        assert smoke(**changed).fit_settings() != smoke().fit_settings()


def test_samples_have_the_grid_the_range_and_the_boxes_that_were_asked_for(
    fitted: DDPM, layouts: list[Layout]
) -> None:
    samples = list(fitted.sample(layouts))
    assert len(samples) == len(layouts)
    for layout, sample in zip(layouts, samples, strict=True):
        assert sample.volume.shape == GRID
        assert sample.volume.dtype == np.float32
        assert 0 <= sample.volume.min() < sample.volume.max() <= 1
        assert np.array_equal(sample.boxes, layout.boxes)


def test_a_sample_does_not_depend_on_its_batch(fitted: DDPM, layouts: list[Layout]) -> None:
    together = list(fitted.sample(layouts))
    order = [3, 0, 6, 5, 1, 4, 2]
    for position, sample in zip(order, fitted.sample([layouts[i] for i in order]), strict=True):
        assert is_same(sample, together[position])
    for one, layout in zip(together, layouts, strict=True):
        assert is_same(one, next(fitted.sample([layout])))


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "ancestral"},
        {"sampler": "ddim"},
        {"sampler": "heun"},
        {"init": "signal_leak", "sampler": "ancestral"},
        {"clip_data": False},
    ],
)
def test_with_any_sampler_a_sample_does_not_depend_on_its_batch(
    fitted: DDPM, layouts: list[Layout], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(fitted.sample(layouts[:3]))
    monkeypatch.setattr(fitted, "recipe", smoke(**changes))
    together = list(fitted.sample(layouts[:3]))
    assert not any(map(is_same, together, before))
    assert is_same(next(fitted.sample(layouts[2:3])), together[2])


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "data", "loss": "huber", "min_snr": 5.0, "preconditioned": False},
        {"target": "noise", "zero_terminal_snr": False, "noise_schedule": "rescaled-linear", "min_snr": 5.0},
        {"noise_schedule": "linear", "loss": "mae", "num_timesteps": 300},
        {"augment": 0.5, "preconditioned": False},
        {"augment": 0.5, "conditional": False, "target": "flow", "min_snr": 5.0},
    ],
)
def test_other_settings_train_and_draw(
    changes: dict[str, Any], toy: DBTDataset, layouts: list[Layout], tmp_path: Path
) -> None:
    generator = DDPM(smoke(steps=2, **changes))
    generator.fit(toy.select("train"), Run(tmp_path, {}))
    volume = next(generator.sample(layouts)).volume
    assert 0 <= volume.min() < volume.max() <= 1


@pytest.fixture(scope="module")
def paper(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> DDPM:
    """The paper's recipe with a small network."""
    small = {
        "steps": 3,
        "batch": 4,
        "base_channels": 8,
        "channel_mults": (1, 2),
        "blocks": 1,
        "unshuffle": 4,
        "num_timesteps": 20,
    }
    generator = DDPM(resolve(DDPMRecipe, FOLDER, "paper").model_copy(update=small | {"sample_batch": 2}))
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("paper"), {}))
    return generator


def test_an_unconditional_model_ignores_label_and_view(paper: DDPM) -> None:
    empty = np.zeros((0, 6), np.float32)
    normal, cancer = Layout(0, 5, "normal", "lcc", empty, 0), Layout(0, 5, "cancer", "lmlo", empty, 0)
    assert is_same(*paper.sample([normal, cancer]))


def test_an_unconditional_model_is_asked_for_lesion_free_volumes(paper: DDPM, toy: DBTDataset) -> None:
    assert not paper.follows_boxes
    assert all(len(layout.boxes) == 0 for layout in generate.plan(paper, toy, n=4, positives=1.0))


def test_layouts_with_other_seeds_give_other_samples(fitted: DDPM, layouts: list[Layout]) -> None:
    first, second = fitted.sample([layouts[0], Layout(0, 1, "normal", "lcc", layouts[0].boxes, 0)])
    assert not is_same(first, second)


def test_the_same_recipe_and_data_give_the_same_samples(
    fitted: DDPM, layouts: list[Layout], toy: DBTDataset, tmp_path: Path
) -> None:
    again = DDPM(smoke())
    again.fit(toy.select("train"), Run(tmp_path, {}))
    assert all(map(is_same, again.sample(layouts), fitted.sample(layouts)))


def test_a_right_breast_is_the_mirror_image_of_a_left_one(fitted: DDPM) -> None:
    boxes = np.array([[2, 10, 4, 5, 16, 11]], np.float32)
    left = Layout(0, 5, "cancer", "lcc", boxes, 0)
    right = Layout(0, 5, "cancer", "rcc", mirror_boxes(boxes, GRID[2]), 0)
    a, b = fitted.sample([left, right])
    assert np.array_equal(a.volume, b.volume[..., ::-1])


@pytest.mark.parametrize("changed", ["label", "view", "boxes"])
def test_label_view_and_boxes_each_change_the_sample(fitted: DDPM, changed: str) -> None:
    boxes = np.array([[2, 10, 4, 5, 16, 11]], np.float32)
    asked: dict[str, Any] = {"label": "cancer", "view": "lcc", "boxes": boxes}
    other = {"label": "normal", "view": "lmlo", "boxes": boxes[:0]}[changed]
    a, b = fitted.sample(
        [Layout(0, 5, source=0, **asked), Layout(0, 5, source=0, **asked | {changed: other})]
    )
    assert not np.array_equal(a.volume, b.volume)


def test_guidance_compares_with_the_prediction_without_boxes(
    fitted: DDPM, layouts: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forward = [], fitted.model.forward

    def spy(x: Tensor, t: Tensor, *conditioning: Tensor) -> Tensor:
        calls.append(conditioning)
        predicted: Tensor = forward(x, t, *conditioning)
        return predicted

    monkeypatch.setattr(fitted.model, "forward", spy)
    list(fitted.sample(layouts[:1]))
    for (*guided, mask), (*others, null_mask) in zip(calls[::2], calls[1::2], strict=True):
        assert all(map(torch.equal, guided, others))
        assert (mask >= 0).all()
        assert (null_mask == -1).all()


def test_it_learns_where_the_breast_is(toy: DBTDataset, tmp_path: Path) -> None:
    """A few seconds do not draw a breast, but the left edge comes out brighter than the right."""
    recipe = smoke(steps=80, base_channels=16, guidance_scale=1.0, sample_steps=10)
    generator = DDPM(recipe)
    generator.fit(toy.select("train"), Run(tmp_path, {}))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])
    empty = np.zeros((0, 6), np.float32)
    volumes = [
        s.volume for s in generator.sample([Layout(i, i, "normal", "lcc", empty, 0) for i in range(4)])
    ]
    mean = np.mean(volumes, axis=(0, 1))
    assert mean[8:24, :8].mean() > mean[:, 28:].mean() + 0.15


def test_changed_volumes_have_their_lesions_under_their_masks(toy: DBTDataset) -> None:
    train = toy.select("train")
    data, generator = LeftBreasts(train.take(train.positive)), torch.Generator().manual_seed(0)
    rows = torch.arange(16) % len(data)
    volumes, masks, labels = data.draw_changed(rows, 1.0, StepContext(0, generator, slice(0, 16), {}), 16)
    assert labels.any(dim=0).all()
    moved = 0
    for volume, mask, old in zip(volumes, masks, data.conditioning.lesion_mask[rows], strict=True):
        before = (old > 0.8) & (mask < 0.1)
        if before.any():
            moved += 1
            assert volume[mask > 0.8].mean() > volume[before].mean() + 0.05
    assert moved >= 4


def test_a_network_that_is_given_changes_draws_as_if_there_were_none(toy: DBTDataset, tmp_path: Path) -> None:
    generator = DDPM(smoke(steps=2, augment=0.5))
    generator.fit(toy.select("train"), Run(tmp_path, {}))
    index = torch.zeros(2, dtype=torch.long)
    given = (torch.randn(2, 1, *GRID), torch.full((2,), 0.5), index, index, torch.zeros(2, 1, *GRID))
    labels = torch.ones(2, NUM_LABELS)
    without, zeros, ones = (generator.model(*given, *changes) for changes in ((), (0 * labels,), (labels,)))
    assert torch.equal(without, zeros)
    assert not torch.equal(without, ones)
