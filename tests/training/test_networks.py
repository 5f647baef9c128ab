"""Several networks in one training keep every promise of the fit loop."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, autograd, nn
from torch.nn import functional as F

from dbtbench.errors import DivergedError, StaleError
from dbtbench.runtime.signals import Terminated
from dbtbench.training.log import METRICS
from dbtbench.training.loop import PREVIEW, STATE, WEIGHTS, Network, StepContext, fit_networks
from dbtbench.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(steps=10, batch=8, micro_batch=3, lr=1e-2, schedule="constant", ema=0.9)
MEAN = 3.0


def dense(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def draw(context: StepContext) -> tuple[Tensor, Tensor]:
    """Real numbers around MEAN, and the noise for as many fake ones."""
    real = MEAN + torch.randn(8, 1, generator=context.generator)[context.part]
    return real, torch.randn(8, 2, generator=context.generator)[context.part]


def critic_loss(critic: nn.Module, context: StepContext) -> Tensor:
    """Relativistic pairing loss with both gradient penalties, as R3GAN's: gradients of gradients."""
    real, noise = draw(context)
    fake = context.networks["generator"](noise)
    scores = []
    penalty = torch.zeros(())
    for x in (real, fake):
        x.requires_grad_()
        scores.append(critic(x))
        (slope,) = autograd.grad(scores[-1].sum(), x, create_graph=True)
        penalty = penalty + slope.square().mean()
    return F.softplus(scores[1] - scores[0]).mean() + 0.05 * penalty


def generator_loss(generator: nn.Module, context: StepContext) -> Tensor:
    real, noise = draw(context)
    critic = context.networks["critic"]
    return F.softplus(critic(real) - critic(generator(noise))).mean()


def gan(**losses: Any) -> dict[str, Network]:
    """A GAN of numbers; losses may be replaced by name."""
    torch.manual_seed(0)
    critic, generator = dense(1, 16, 16, 1), dense(2, 16, 1)
    return {
        "critic": Network(critic, losses.get("critic", critic_loss), betas=(0, 0.99), ema=0),
        "generator": Network(generator, losses.get("generator", generator_loss), betas=(0, 0.99)),
    }


def once(action: Callable[[], None], step: int, loss: Any) -> Any:
    """A loss that does something before it is computed at a step, the first time it comes there."""
    left = [action]

    def acting(net: nn.Module, context: StepContext) -> Tensor:
        if context.step == step and left:
            left.pop()()
        value: Tensor = loss(net, context)
        return value

    return acting


def interrupt() -> None:
    raise KeyboardInterrupt


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def train(folder: Path, networks: Mapping[str, Network], **options: Any) -> dict[str, nn.Module]:
    return fit_networks(
        networks, options.pop("recipe", RECIPE), folder, seed=3, checkpoint_seconds=0, **options
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, gan())
    return folder


def test_a_gan_learns_where_its_numbers_lie(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 200, "micro_batch": 8})
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    before = float(gan()["generator"].module(noise).mean().detach())
    after = float(fit_networks(gan(), recipe, tmp_path, seed=3)["generator"](noise).mean())
    assert abs(before - MEAN) > 2
    assert abs(after - MEAN) < 0.5


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize("name", ["critic", "generator"])
def test_interrupted_in_any_network_it_ends_with_the_same_bits(
    whole: Path, tmp_path: Path, name: str, step: int
) -> None:
    losses = {"critic": critic_loss, "generator": generator_loss}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, gan(**{name: once(interrupt, step, losses[name])}))
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == step
    train(tmp_path, gan())
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_sigterm_ends_the_step_of_all_networks_and_the_training_goes_on(whole: Path, tmp_path: Path) -> None:
    terminate = once(lambda: os.kill(os.getpid(), signal.SIGTERM), 4, critic_loss)
    with pytest.raises(Terminated):
        train(tmp_path, gan(critic=terminate))
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 5
    train(tmp_path, gan())
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_weights_and_metrics_carry_the_names_of_the_networks(whole: Path) -> None:
    weights = load_file(whole / WEIGHTS)
    assert {key.split(".")[0] for key in weights} == {"critic", "generator"}
    assert {key.removeprefix("generator.") for key in weights} >= set(dense(2, 16, 1).state_dict())
    expected = ["step", "loss_critic", "loss_generator", "lr_critic", "lr_generator"]
    assert [list(line)[:5] for line in lines(whole)] == [expected] * RECIPE.steps
    assert lines(whole)[0]["loss_critic"] != lines(whole)[0]["loss_generator"]


def test_finished_networks_are_loaded_frozen_and_no_other_training_is(whole: Path) -> None:
    loaded = train(whole, gan(critic=once(interrupt, 0, critic_loss)))
    for name, net in loaded.items():
        weights = load_file(whole / WEIGHTS)
        assert all(torch.equal(value, weights[f"{name}.{key}"]) for key, value in net.state_dict().items())
        assert not net.training
        assert not any(weight.requires_grad for weight in net.parameters())
    with pytest.raises(StaleError, match="another training"):
        train(whole, {"critic": gan()["critic"]})


def test_only_the_trained_network_keeps_gradients(tmp_path: Path) -> None:
    networks: dict[str, Network] = {}
    seen = []

    def watched(loss: Any, name: str, other: str) -> Any:
        def watching(net: nn.Module, context: StepContext) -> Tensor:
            own, others = networks[name].module, networks[other].module
            assert context.networks[other] is others
            seen.append(
                (
                    {weight.requires_grad for weight in own.parameters()},
                    {weight.requires_grad for weight in others.parameters()},
                    {weight.grad is None for weight in others.parameters()},
                )
            )
            value: Tensor = loss(net, context)
            return value

        return watching

    networks |= gan(
        critic=watched(critic_loss, "critic", "generator"),
        generator=watched(generator_loss, "generator", "critic"),
    )
    networks["generator"].module[0].bias.requires_grad_(False)  # type: ignore[index]
    train(tmp_path, networks)
    parts = math.ceil(RECIPE.batch / RECIPE.micro_batch)
    critic, generator = seen[:parts], seen[parts : 2 * parts]
    assert critic == [({True}, {False}, {True})] * parts
    assert generator == [({True, False}, {False}, {True})] * parts  # what was frozen stays frozen
    assert seen[2 * parts :] == (critic + generator) * (RECIPE.steps - 1)


def test_a_network_sees_the_step_of_those_before_it(tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {"critic": [], "generator": []}

    def watched(loss: Any, name: str) -> Any:
        def watching(net: nn.Module, context: StepContext) -> Tensor:
            seen[name].append(next(context.networks["critic"].parameters()).detach().clone())
            value: Tensor = loss(net, context)
            return value

        return watching

    recipe = RECIPE.model_copy(update={"micro_batch": 8})
    losses = {"critic": watched(critic_loss, "critic"), "generator": watched(generator_loss, "generator")}
    train(tmp_path, gan(**losses), recipe=recipe)
    assert not any(torch.equal(a, b) for a, b in zip(seen["critic"], seen["generator"], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen["critic"][1:], seen["generator"], strict=False))


def seeds(folder: Path, *names: str) -> dict[str, list[tuple[int, int]]]:
    """Seeds of the given and of the global generator in each network's first two steps."""
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in names}

    def listen(name: str) -> Network:
        def loss(net: nn.Module, context: StepContext) -> Tensor:
            found[name].append((context.generator.initial_seed(), torch.initial_seed()))
            value: Tensor = net(torch.ones(1, 1)).square().mean()
            return value

        return Network(dense(1, 1), loss)

    recipe = TrainingRecipe(steps=2, batch=2, micro_batch=1, lr=1e-2)
    fit_networks({name: listen(name) for name in names}, recipe, folder, seed=3)
    return found


def test_every_network_has_random_numbers_of_its_own(tmp_path: Path) -> None:
    both = seeds(tmp_path / "both", "a", "b")
    alone = seeds(tmp_path / "alone", "a")
    assert alone["a"] == both["a"]
    assert not {seed for seed, _ in both["a"]} & {seed for seed, _ in both["b"]}
    assert len({seed for pieces in both.values() for _, seed in pieces}) == 2 * 4
    assert len({seed for seed, _ in both["a"]}) == 2  # one for all pieces of a step


def test_a_network_without_a_name_has_the_random_numbers_of_seed_step_and_piece(tmp_path: Path) -> None:
    assert seeds(tmp_path, "")[""] == [
        (6233904063939786893, 6233904063939786893),
        (6233904063939786893, 4854266099512449391),
        (5712964121383671236, 5712964121383671236),
        (5712964121383671236, 7482082633366827798),
    ]


def value_of(net: nn.Module) -> float:
    """The only weight."""
    return float(next(net.parameters()).detach())


def test_settings_of_a_network_go_before_the_recipe(tmp_path: Path) -> None:
    """AdamW moves by the learning rate under a constant gradient; with decay 0 the average is the last."""

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        return next(net.parameters()).sum()

    def weight() -> nn.Module:
        net = nn.Linear(1, 1, bias=False)
        nn.init.ones_(net.weight)
        return net

    recipe = TrainingRecipe(steps=4, batch=1, lr=0.1, schedule="linear", ema=0.0)
    networks = {
        "plain": Network(weight(), loss),
        "own": Network(weight(), loss, lr=0.01, schedule="constant", ema=0.5, clip=1e-9),
    }
    trained = fit_networks(networks, recipe, tmp_path, seed=0)
    assert [line["lr_own"] for line in lines(tmp_path)] == [0.01] * 4
    assert [line["lr_plain"] for line in lines(tmp_path)] == pytest.approx([0.075, 0.05, 0.025, 0])
    assert value_of(trained["plain"]) == pytest.approx(1 - 0.1 - 0.075 - 0.05 - 0.025)
    # A gradient of 1e-9 is small next to AdamW's epsilon of 1e-8: one step is an eleventh as long.
    last = value_of(networks["own"].module)
    assert last == pytest.approx(1 - 4 * 0.01 / 11, rel=1e-3)
    assert value_of(trained["own"]) > last


@pytest.mark.parametrize("name", ["critic", "generator"])
def test_the_network_that_diverges_is_named(tmp_path: Path, name: str) -> None:
    losses = {"critic": critic_loss, "generator": generator_loss}

    def broken(net: nn.Module, context: StepContext) -> Tensor:
        return losses[name](net, context) * (math.nan if context.step == 4 else 1)

    with pytest.raises(DivergedError, match=f"^training of {name} diverged at step 4: loss nan") as caught:
        train(tmp_path, gan(**{name: broken}))
    assert caught.value.hint == "lower the learning rate: --set lr=0.005"
    networks = gan(**{name: broken})
    networks[name] = Network(networks[name].module, broken, lr=0.5)
    with pytest.raises(DivergedError) as caught:
        train(tmp_path / "own", networks)
    assert caught.value.hint == f"lower the learning rate of {name}, which is 0.5"


def test_previews_see_all_averages_and_change_no_bit(whole: Path, tmp_path: Path) -> None:
    def preview(networks: Mapping[str, nn.Module], path: Path) -> None:
        torch.rand(3)
        assert not any(net.training for net in networks.values())
        path.write_text(" ".join(networks))

    train(tmp_path, gan(), preview=preview, preview_seconds=0)
    assert (tmp_path / PREVIEW).read_text() == "critic generator"
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_networks_do_not_share_parameters(tmp_path: Path) -> None:
    net = dense(1, 1)
    with pytest.raises(ValueError, match="share a parameter"):
        train(tmp_path, {"a": Network(net, critic_loss), "b": Network(nn.Sequential(net), critic_loss)})


@pytest.mark.parametrize("name", ["", "a.b"])
def test_names_of_networks_begin_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="without dots"):
        train(tmp_path, {"a": Network(dense(1, 1), critic_loss), name: Network(dense(1, 1), critic_loss)})


# Evolution: each step, each loss makes a child, and the fittest stays.


def to(goal: float) -> Any:
    def loss(net: nn.Module, context: StepContext) -> Tensor:
        value: Tensor = (net(torch.ones(1, 1)) - goal).square().mean()
        return value

    return loss


def evolving(fitness: Any = None, **losses: Any) -> dict[str, Network]:
    torch.manual_seed(0)
    losses = losses or {"down": to(-9), "up": to(9), "back": to(-1)}
    return {"net": Network(dense(1, 4, 1), losses, fitness=fitness or (lambda *a: -to(9)(*a)))}


def test_the_fittest_child_stays(tmp_path: Path) -> None:
    """It has the bits that its loss alone would have given, with the optimiser's state."""
    train(tmp_path / "evolved", evolving())
    train(tmp_path / "alone", {"net": Network(evolving()["net"].module, to(9))})
    assert load_file(tmp_path / "evolved" / WEIGHTS).keys() == load_file(tmp_path / "alone" / WEIGHTS).keys()
    assert (tmp_path / "evolved" / WEIGHTS).read_bytes() == (tmp_path / "alone" / WEIGHTS).read_bytes()
    for evolved, alone in zip(lines(tmp_path / "evolved"), lines(tmp_path / "alone"), strict=True):
        assert [evolved[f"kept_net_{name}"] for name in ("down", "up", "back")] == [0, 1, 0]
        assert evolved["loss_net_up"] == alone["loss_net"]
        assert evolved["loss_net_down"] != evolved["loss_net_up"]


def test_an_interrupted_evolution_ends_with_the_same_bits(tmp_path: Path) -> None:
    train(tmp_path / "whole", evolving())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "halves", evolving(down=to(-9), up=once(interrupt, 4, to(9)), back=to(-1)))
    train(tmp_path / "halves", evolving())
    assert (tmp_path / "halves" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_fitness_may_need_gradients_of_other_networks(tmp_path: Path) -> None:
    """As E-GAN's measure of diversity does: the norm of the critic's gradient."""
    norms = []

    def fitness(generator: nn.Module, context: StepContext) -> Tensor:
        critic = context.networks["critic"]
        _, noise = draw(context)
        score = critic(generator(noise)).mean()
        slopes = autograd.grad(score, list(critic.parameters()), allow_unused=True)
        norms.append(sum(float(slope.square().sum()) for slope in slopes if slope is not None))
        value: Tensor = score.detach() - 0.01 * math.log(norms[-1])
        return value

    networks = gan()
    generator = networks["generator"].module
    losses = {"plain": generator_loss, "half": lambda net, context: generator_loss(net, context) / 2}
    train(tmp_path, {"critic": networks["critic"], "generator": Network(generator, losses, fitness=fitness)})
    assert min(norms) > 0
    kept = [line["kept_generator_plain"] + line["kept_generator_half"] for line in lines(tmp_path)]
    assert kept == [1] * RECIPE.steps


def test_a_fitness_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="training of net diverged at step 0: fitness nan"):
        train(tmp_path, evolving(fitness=lambda *_: torch.tensor(math.nan)))


def test_several_losses_need_a_fitness() -> None:
    with pytest.raises(ValueError, match="no fitness to choose by between a, b"):
        Network(dense(1, 1), {"a": critic_loss, "b": critic_loss})
