"""Trainings in stages: each in a folder of its own, with what was measured after it; continued exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dbtbench.training.log import METRICS
from dbtbench.training.loop import WEIGHTS, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(steps=10, batch=8, micro_batch=3, lr=1e-2, schedule="constant", ema=0.9)


def two_layers(before: int, width: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Linear(before, width), nn.SiLU(), nn.Linear(width, after))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def stopping_at(step: int, loss: Any) -> Any:
    def stopping(net: nn.Module, context: StepContext) -> Tensor:
        if context.step == step:
            interrupt()
        value: Tensor = loss(net, context)
        return value

    return stopping


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


class Encoder(nn.Module):
    """A code of two numbers, with the spread of codes as it was measured."""

    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = two_layers(4, 8, 2), two_layers(2, 8, 4)
        self.register_buffer("spread", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decode(self.encode(x))
        return y


NUMBERS = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


def rows(context: StepContext) -> Tensor:
    return NUMBERS[torch.randint(len(NUMBERS), (8,), generator=context.generator)[context.part]]


def reconstruction(net: nn.Module, context: StepContext) -> Tensor:
    x = rows(context)
    loss: Tensor = (net(x) - x).square().mean()
    return loss


def measure_spread(net: nn.Module) -> None:
    assert isinstance(net, Encoder)
    assert not net.training
    net.spread.copy_(net.encode(NUMBERS[torch.randperm(len(NUMBERS))[:16]]).std(0))


def latent(encoder: nn.Module) -> Any:
    assert isinstance(encoder, Encoder)

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        x = encoder.encode(rows(context)) / encoder.spread
        value: Tensor = (net(torch.ones(len(x), 1)) - x).square().mean()
        return value

    return loss


def two_stages(
    folder: Path,
    first: Any = reconstruction,
    measure: Any = measure_spread,
    second: Callable[[Any], Any] = lambda loss: loss,
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    short = RECIPE.model_copy(update={"steps": 4})
    options: dict[str, Any] = {"seed": 0, "checkpoint_seconds": 0}
    encoder = fit(Encoder(), first, RECIPE, folder / "encoder", title="encoder", measure=measure, **options)
    return encoder, fit(two_layers(1, 4, 2), second(latent(encoder)), short, folder, title="prior", **options)


def bits(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "encoder" / WEIGHTS).read_bytes(), (folder / WEIGHTS).read_bytes()


def test_a_measurement_is_kept_with_the_weights_of_its_stage(tmp_path: Path) -> None:
    encoder, _ = two_stages(tmp_path)
    assert isinstance(encoder, Encoder)
    kept = load_file(tmp_path / "encoder" / WEIGHTS)["spread"]
    assert torch.equal(kept, encoder.spread)
    torch.manual_seed(0)
    measure_spread(encoder)
    assert torch.equal(kept, encoder.spread)
    assert not torch.equal(kept, torch.ones(2))
    assert len(lines(tmp_path / "encoder")) == RECIPE.steps
    assert len(lines(tmp_path)) == 4


@pytest.mark.parametrize(
    "broken",
    [
        {"first": stopping_at(3, reconstruction)},
        {"measure": interrupt},
        {"second": lambda loss: stopping_at(2, loss)},
    ],
    ids=["in the first stage", "while it measures", "in the second stage"],
)
def test_stages_that_were_interrupted_end_with_the_same_bits(tmp_path: Path, broken: dict[str, Any]) -> None:
    two_stages(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        two_stages(tmp_path / "halves", **broken)
    two_stages(tmp_path / "halves")
    assert bits(tmp_path / "halves") == bits(tmp_path / "whole")


def test_a_training_leaves_the_global_random_numbers_as_they_were(tmp_path: Path) -> None:
    """So a second stage begins with the same weights whether the first one was trained or loaded."""
    encoder = Encoder()
    state = torch.get_rng_state()
    fit(encoder, reconstruction, RECIPE, tmp_path, seed=0, measure=measure_spread)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_step_is_lost_while_a_stage_measures(tmp_path: Path) -> None:
    def fail(*_: object) -> Tensor:
        raise AssertionError("trained again")

    with pytest.raises(KeyboardInterrupt):
        fit(Encoder(), reconstruction, RECIPE, tmp_path, seed=0, measure=interrupt)
    fit(Encoder(), fail, RECIPE, tmp_path, seed=0, measure=measure_spread)
    assert len(lines(tmp_path)) == RECIPE.steps


def test_a_finished_stage_is_neither_trained_nor_measured_again(tmp_path: Path) -> None:
    first, _ = two_stages(tmp_path)

    def fail(*_: object) -> Tensor:
        raise AssertionError("trained again")

    again, _ = two_stages(tmp_path, first=fail, measure=fail, second=lambda _: fail)
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in again.state_dict().items())
