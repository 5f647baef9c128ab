"""One fit loop: what it promises about seeds, batches, interruption and numbers that are not finite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dbtbench.errors import DBTBenchError, StaleError
from dbtbench.training.loop import METRICS, STATE, WEIGHTS, Draw, Training, fit

RECIPE = Training(steps=12, batch=8, micro_batch=8, lr=1e-2, warmup=2, ema=0.9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.SiLU(), nn.Linear(16, 1))


def regression(net: nn.Module, draw: Draw) -> Tensor:
    """Learn the sum of four numbers, with dropout, so that global random numbers matter too."""
    x = torch.rand(8, 4, generator=draw.generator)[draw.part]
    error: Tensor = net(x)[:, 0] - x.sum(1)
    return error.square().mean()


def stopping_at(step: int) -> Callable[[nn.Module, Draw], Tensor]:
    def loss(net: nn.Module, draw: Draw) -> Tensor:
        if draw.step == step:
            raise KeyboardInterrupt
        return regression(net, draw)

    return loss


def bits(net: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in net.state_dict().values())


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_the_loss_falls(tmp_path: Path) -> None:
    fit(network(), regression, RECIPE.model_copy(update={"steps": 300}), tmp_path, seed=0)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert losses[-1] < losses[0] / 10


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        bits(fit(network(), regression, RECIPE, tmp_path / name, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


@pytest.mark.parametrize("schedule", ["linear", "one-cycle"])
@pytest.mark.parametrize("step", [1, 7])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, schedule: str, step: int) -> None:
    recipe = RECIPE.model_copy(update={"schedule": schedule})
    whole = bits(fit(network(), regression, recipe, tmp_path / "whole", seed=3))
    halves = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        fit(network(), stopping_at(step), recipe, halves, seed=3, checkpoint_seconds=0)
    assert torch.load(halves / STATE, weights_only=True)["step"] == step
    assert bits(fit(network(), regression, recipe, halves, seed=3)) == whole
    assert (halves / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_steps_after_the_kept_state_are_logged_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(network(), stopping_at(5), RECIPE, tmp_path, seed=0, checkpoint_seconds=0)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 6, "loss": 1}\n{"step": 7, "lo')
    fit(network(), regression, RECIPE, tmp_path, seed=0)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))


def test_a_finished_training_is_loaded(tmp_path: Path) -> None:
    trained = fit(network(), regression, RECIPE, tmp_path, seed=0)
    assert not (tmp_path / STATE).exists()
    loaded = fit(network(), stopping_at(0), RECIPE, tmp_path, seed=0)
    assert bits(loaded) == bits(trained)
    assert not loaded.training


def test_the_state_of_another_training_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(network(), stopping_at(5), RECIPE, tmp_path, seed=0, checkpoint_seconds=0)
    with pytest.raises(StaleError, match="another training"):
        fit(network(), regression, RECIPE.model_copy(update={"lr": 1e-3}), tmp_path, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path, value: float) -> None:
    def loss(net: nn.Module, draw: Draw) -> Tensor:
        return regression(net, draw) * (value if draw.step == 4 else 1)

    with pytest.raises(DBTBenchError, match="diverged at step 4"):
        fit(network(), loss, RECIPE, tmp_path, seed=0)
    assert not (tmp_path / WEIGHTS).exists()


def test_accumulation_trains_the_same_as_one_batch(tmp_path: Path) -> None:
    def loss(net: nn.Module, draw: Draw) -> Tensor:
        return regression(net.eval(), draw)

    small = RECIPE.model_copy(update={"micro_batch": 3})
    one = fit(network(), loss, RECIPE, tmp_path / "one", seed=0)
    parts = fit(network(), loss, small, tmp_path / "parts", seed=0)
    for a, b in zip(one.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_average_warms_up(tmp_path: Path) -> None:
    """With decay 0 the result is the last weights; after two steps the average is 9/11 new and 2/11 old."""

    def weights(steps: int, ema: float) -> Tensor:
        recipe = Training(steps=steps, batch=8, lr=1e-2, ema=ema, warmup=10)
        net = fit(nn.Linear(4, 1, bias=False), constant, recipe, tmp_path / f"{steps}-{ema}", seed=0)
        return next(net.parameters()).detach()

    def constant(net: nn.Module, draw: Draw) -> Tensor:
        return next(net.parameters()).sum()

    torch.manual_seed(0)
    start = nn.Linear(4, 1, bias=False).weight.detach().clone()
    torch.manual_seed(0)
    last = weights(2, 0.0)
    torch.manual_seed(0)
    average = weights(2, 0.999)
    # AdamW with a constant gradient moves by the learning rate: 1/11 of its peak, then 2/11 halved.
    first = start - 1e-2 / 11
    torch.testing.assert_close(last, first - 1e-2 / 11)
    torch.testing.assert_close(average, first + (last - first) * (1 - 2 / 11))


@pytest.mark.parametrize(("schedule", "peak"), [("linear", 2), ("one-cycle", 5)])
def test_the_learning_rate_peaks_where_the_schedule_says_and_ends_near_zero(
    tmp_path: Path, schedule: str, peak: int
) -> None:
    recipe = RECIPE.model_copy(update={"schedule": schedule, "steps": 20})
    fit(network(), regression, recipe, tmp_path, seed=0)
    rates = [line["lr"] for line in lines(tmp_path)]
    assert rates.index(max(rates)) + 1 == pytest.approx(peak, abs=1)
    assert max(rates) == pytest.approx(recipe.lr, rel=0.15)
    assert rates[-1] < recipe.lr / 1000
