"""What every learned generator shares, shown with the smallest one: a mean volume that is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Layout
from dbtbench.layouts import draw_layouts
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runs import Run
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LearnedRecipe, LeftBreasts, fill_slots
from dbtbench.training.loop import StepContext, fit


class MeanRecipe(LearnedRecipe):
    steps: int = 60
    batch: int = 4
    lr: float = 0.05
    ema: float = 0.0
    sample_batch: int = 3


class MeanVolume(nn.Module):
    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, *grid))


class Mean(LearnedGenerator[MeanRecipe]):
    recipe_class = MeanRecipe

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        def loss(net: Any, context: StepContext) -> Tensor:
            rows = data.draw_rows(context, self.recipe.batch)
            error: Tensor = net.mean - data.volumes[rows]
            return error.square().mean()

        net = MeanVolume(data.split.grid)
        return fit(net, loss, self.recipe, run.path, seed=0, preview=self.make_preview(data.split))

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        mean: Any = self.model.mean
        drawn: Tensor = mean + 0.05 * noise() + 0.2 * conditioning.lesion_mask
        return drawn.clamp(0, 1)


@pytest.fixture(scope="module")
def fitted(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> Mean:
    generator = Mean(MeanRecipe())
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("mean"), {}))
    return generator


@pytest.fixture(scope="module")
def layouts(toy: DBTDataset) -> list[Layout]:
    return draw_layouts(toy.select("train"), 8, seed=0, positives=0.5)


def test_it_learns_left_breasts(fitted: Mean) -> None:
    mean: Any = fitted.model.mean
    left, right = mean[0, :, 12:20, :8].mean(), mean[0, :, 12:20, -4:].mean()
    assert left > 0.25
    assert right < 0.1


def test_right_breasts_are_drawn_at_the_right_edge(fitted: Mean, layouts: list[Layout]) -> None:
    assert {layout.view[0] for layout in layouts} == {"l", "r"}
    for layout, sample in zip(layouts, fitted.sample(layouts), strict=True):
        left = sample.volume[:, 12:20, :8].mean() > sample.volume[:, 12:20, -8:].mean()
        assert left == (layout.view[0] == "l")
        assert sample.boxes is layout.boxes


def test_a_sample_does_not_depend_on_its_neighbours(fitted: Mean, layouts: list[Layout]) -> None:
    together = [sample.volume for sample in fitted.sample(layouts)]
    alone = [next(fitted.sample([layout])).volume for layout in reversed(layouts)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_a_finished_training_never_reads_the_data(
    fitted: Mean, toy: DBTDataset, layouts: list[Layout], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("again")
    first = Mean(MeanRecipe(steps=3))
    first.fit(toy.select("train"), Run(folder, {}))

    class Again(Mean):
        def train(self, data: LeftBreasts, run: Run) -> nn.Module:
            net = super().train(data, run)
            assert "volumes" not in vars(data)
            return net

    again = Again(MeanRecipe(steps=3))
    again.fit(toy.select("train"), Run(folder, {}))
    one, other = (next(generator.sample(layouts)).volume for generator in (first, again))
    assert np.array_equal(one, other)


def test_a_batch_ends_where_the_next_slot_is_taken(layouts: list[Layout]) -> None:
    chosen = [layouts[index] for index in (0, 1, 4, 3, 5)]
    batches = [{slot: layout.index for slot, layout in batch.items()} for batch in fill_slots(chosen, 3)]
    assert batches == [{0: 0, 1: 1}, {1: 4, 0: 3, 2: 5}]


def test_volumes_that_would_crowd_a_gpu_stay_on_the_host(
    toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def choose(nbytes: int) -> torch.device:
        asked.append(nbytes)
        return torch.device("cpu")

    monkeypatch.setattr("dbtbench.runtime.distributed.data_device", choose)
    train = toy.select("train")
    assert LeftBreasts(train).volumes.device.type == "cpu"
    assert asked == [4 * 4 * len(train) * int(np.prod(train.grid))]
