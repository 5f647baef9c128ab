"""One fit loop: what it promises about seeds, batches, interruption and numbers that are not finite."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dbtbench.errors import DBTBenchError, MissingError, StaleError
from dbtbench.runtime import distributed
from dbtbench.training import loop
from dbtbench.training.log import METRICS, TENSORBOARD
from dbtbench.training.loop import PREVIEW, STATE, WEIGHTS, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(steps=12, batch=8, micro_batch=8, lr=1e-2, warmup=2, ema=0.9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.SiLU(), nn.Linear(16, 1))


class Wrapped(nn.Module):
    """A network with a class: in place, torch compiles nothing of a bare nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


def regression(net: nn.Module, context: StepContext) -> Tensor:
    """Learn the sum of four numbers, with dropout, so that global random numbers matter too."""
    x = torch.rand(8, 4, generator=context.generator)[context.part]
    error: Tensor = net(x)[:, 0] - x.sum(1)
    return error.square().mean()


def stopping_at(step: int) -> Callable[[nn.Module, StepContext], Tensor]:
    def loss(net: nn.Module, context: StepContext) -> Tensor:
        if context.step == step:
            raise KeyboardInterrupt
        return regression(net, context)

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
    def loss(net: nn.Module, context: StepContext) -> Tensor:
        return regression(net, context) * (value if context.step == 4 else 1)

    with pytest.raises(DBTBenchError, match="diverged at step 4"):
        fit(network(), loss, RECIPE, tmp_path, seed=0)
    assert not (tmp_path / WEIGHTS).exists()


def test_accumulation_trains_the_same_as_one_batch(tmp_path: Path) -> None:
    def loss(net: nn.Module, context: StepContext) -> Tensor:
        return regression(net.eval(), context)

    small = RECIPE.model_copy(update={"micro_batch": 3})
    one = fit(network(), loss, RECIPE, tmp_path / "one", seed=0)
    parts = fit(network(), loss, small, tmp_path / "parts", seed=0)
    for a, b in zip(one.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_average_warms_up(tmp_path: Path) -> None:
    """With decay 0 the result is the last weights; after two steps the average is 9/11 new and 2/11 old."""

    def weights(steps: int, ema: float) -> Tensor:
        recipe = TrainingRecipe(steps=steps, batch=8, lr=1e-2, ema=ema, warmup=10)
        net = fit(nn.Linear(4, 1, bias=False), constant, recipe, tmp_path / f"{steps}-{ema}", seed=0)
        return next(net.parameters()).detach()

    def constant(net: nn.Module, context: StepContext) -> Tensor:
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


def test_a_constant_learning_rate_rises_and_then_stays(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "constant", "warmup": 3, "lr": 1e-2})
    fit(network(), regression, recipe, tmp_path, seed=0)
    rates = [line["lr"] for line in lines(tmp_path)]
    assert rates == pytest.approx([5e-3, 7.5e-3] + [1e-2] * 10)


def test_a_preview_sees_the_averaged_network_and_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PREVIEW_SHARE", math.inf)
    seen = []

    def preview(net: nn.Module, path: Path) -> None:
        assert not net.training
        torch.rand(3)  # even from the global generator
        seen.append(bits(net))
        path.write_bytes(b"PNG")

    without = fit(network(), regression, RECIPE, tmp_path / "without", seed=0)
    folder = tmp_path / "with"
    shown = fit(
        network(),
        regression,
        RECIPE,
        folder,
        seed=0,
        preview=preview,
        checkpoint_seconds=0,
        preview_seconds=0,
    )
    assert bits(shown) == bits(without)
    assert (folder / WEIGHTS).read_bytes() == (tmp_path / "without" / WEIGHTS).read_bytes()
    assert (folder / PREVIEW).read_bytes() == b"PNG"
    assert len(seen) == RECIPE.steps
    assert seen[-1] == bits(shown)


def test_slow_previews_come_less_often(tmp_path: Path) -> None:
    """At most one second in twenty: after one of 0.05 s, 12 quick steps have no time for another."""
    calls = []

    def preview(net: nn.Module, path: Path) -> None:
        calls.append(path)
        time.sleep(0.05)

    fit(
        network(),
        regression,
        RECIPE,
        tmp_path,
        seed=0,
        preview=preview,
        checkpoint_seconds=0,
        preview_seconds=0,
    )
    assert calls == [tmp_path / PREVIEW]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """Compile here too, with a backend that only keeps what it is given: one graph a compilation."""
    kept: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        kept.append(graph)
        return graph.forward

    compile_with(monkeypatch, keep)
    with torch._dynamo.config.patch(suppress_errors=False):
        yield kept


def compile_with(patch: pytest.MonkeyPatch, backend: Callable[..., Any]) -> None:
    in_place = nn.Module.compile
    torch._dynamo.reset()
    patch.setattr(nn.Module, "compile", lambda net: in_place(net, backend=backend))
    patch.setattr(distributed, "compiles", lambda: True)
    patch.setattr(loop, "COMPILED_STEPS", 3)


def test_a_compiled_training_keeps_names_and_values(
    tmp_path: Path, graphs: list[torch.fx.GraphModule]
) -> None:
    plain = fit(Wrapped(), regression, RECIPE, tmp_path / "plain", seed=0)
    assert not graphs
    folder = tmp_path / "compiled"
    with pytest.raises(KeyboardInterrupt):
        fit(Wrapped(), stopping_at(7), RECIPE, folder, seed=0, compiled=True, checkpoint_seconds=0)
    assert graphs
    state, names = torch.load(folder / STATE, weights_only=True), list(plain.state_dict())
    assert list(state["net"]) == names
    assert list(state["average"]) == ["n_averaged", *(f"module.{name}" for name in names)]
    trained = fit(Wrapped(), regression, RECIPE, folder, seed=0, compiled=True)
    assert sorted(load_file(folder / WEIGHTS)) == sorted(names)
    torch.testing.assert_close(trained.state_dict(), plain.state_dict())
    assert type(trained) is Wrapped
    assert bits(fit(Wrapped(), stopping_at(0), RECIPE, folder, seed=0)) == bits(trained)


def test_few_steps_are_not_worth_compiling(tmp_path: Path, graphs: list[torch.fx.GraphModule]) -> None:
    fit(Wrapped(), regression, RECIPE.model_copy(update={"steps": 2}), tmp_path, seed=0, compiled=True)
    assert not graphs


def test_what_cannot_be_compiled_is_trained_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(*_: object) -> None:
        asked.append(True)
        raise RuntimeError("no code generator for this device")

    plain = fit(Wrapped(), regression, RECIPE, tmp_path / "plain", seed=0)
    compile_with(monkeypatch, broken)
    with torch._dynamo.config.patch(suppress_errors=False):
        trained = fit(Wrapped(), regression, RECIPE, tmp_path / "tried", seed=0, compiled=True)
    assert asked
    assert bits(trained) == bits(plain)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nothing_is_compiled_on_the_cpu() -> None:
    assert not distributed.compiles()


class Events:
    """TensorBoard's writer, with what it was given."""

    made: ClassVar[list[Events]] = []

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> list[Events]:
    """The package as if it was installed and asked for; gives the writers that are made."""
    package, integration = ModuleType("tensorboard"), ModuleType("torch.utils.tensorboard")
    package.__spec__ = ModuleSpec("tensorboard", None)
    integration.SummaryWriter = Events  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", integration)
    monkeypatch.setenv(TENSORBOARD, "1")
    Events.made.clear()
    return Events.made


def test_tensorboard_gets_the_metrics_and_forgets_what_a_killed_training_logged(
    tmp_path: Path, tensorboard: list[Events]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(network(), stopping_at(7), RECIPE, tmp_path, seed=0, checkpoint_seconds=0)
    fit(network(), regression, RECIPE, tmp_path, seed=0)
    first, second = tensorboard
    assert [events.folder for events in tensorboard] == [tmp_path] * 2
    assert (first.purge_step, second.purge_step) == (1, 8)
    assert first.closed
    assert second.closed
    logged = {name: [line[name] for line in lines(tmp_path)] for name in ("loss", "lr")}
    for name, values in logged.items():
        written = [(value, step) for key, value, step in first.scalars + second.scalars if key == name]
        assert written == list(zip(values, range(1, 13), strict=True))


@pytest.mark.parametrize("value", ["0", ""])
def test_tensorboard_is_not_used_unless_asked_for(
    tmp_path: Path, tensorboard: list[Events], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(TENSORBOARD, value)
    fit(network(), regression, RECIPE, tmp_path, seed=0)
    assert not tensorboard


def test_tensorboard_that_is_not_installed_is_an_error_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TENSORBOARD, "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="tensorboard is not installed") as caught:
        fit(network(), stopping_at(0), RECIPE, tmp_path, seed=0)
    assert caught.value.hint == "pip install tensorboard"
