"""One step of a training: every network, in order, takes one step of its optimiser."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dbtbench.errors import DivergedError
from dbtbench.runtime import distributed
from dbtbench.training.network import Loss, StepContext
from dbtbench.training.state import Learner, State


def train_step(state: State) -> dict[str, float]:
    """Train every network once, in order; each sees the weights that those before it have just got.

    Returns:
        Metrics of this process's share of the batch: `loss` of an only network, `loss_NAME` of each of
        several. For a network with several losses `loss_NAME_LOSS` of each child, and `kept_NAME_LOSS`, which
        is 1 for the child that stays and 0 for the others.

    Raises:
        DivergedError: when a loss, a gradient or a fitness is not finite.
    """
    metrics: dict[str, float] = {}
    for learner in state.learners:
        losses = learner.network.loss
        if isinstance(losses, Mapping):
            metrics |= _keep_fittest(state, learner, losses)
        else:
            metrics[name_metric("loss", learner.name)] = _update(state, learner, losses)
        learner.schedule.step()
        learner.average.update_parameters(learner.module)
    return metrics


def name_metric(*words: str) -> str:
    """The name of a metric: its words joined; an only network adds none."""
    return "_".join(filter(None, words))


def _update(state: State, learner: Learner, loss: Loss) -> float:
    """Take one step of a network's optimiser; gives this process's mean loss over its share of the batch."""
    end = (distributed.rank() + 1) * state.recipe.divide_batch(distributed.size())
    total = torch.zeros((), device=distributed.device())
    with _gradients_only_for(learner, state):
        for context, weight in _contexts(state, learner.name):
            with _keep_gradients_local(learner.net, context.part.stop < end):
                with distributed.autocast():
                    value = loss(learner.net, context) * weight
                value.backward()  # type: ignore[no-untyped-call]
            total += value.detach()
    norm = nn.utils.clip_grad_norm_(learner.net.parameters(), learner.clip)
    if not (torch.isfinite(total) and torch.isfinite(norm)):
        raise _make_diverged_error(state, learner, f"loss {float(total):g}, gradient norm {float(norm):g}")
    learner.optimiser.step()
    learner.optimiser.zero_grad()
    return float(total)


def _keep_fittest(state: State, learner: Learner, losses: Mapping[str, Loss]) -> dict[str, float]:
    """Make a child by each loss and keep the fittest, the first of equals."""
    parent, best = learner.snapshot(), -math.inf
    metrics = {}
    for name, loss in losses.items():
        learner.restore(parent)
        metrics[name_metric("loss", learner.name, name)] = _update(state, learner, loss)
        fitness = _measure_fitness(state, learner)
        if fitness > best:
            best, fittest, child = fitness, name, learner.snapshot()
    learner.restore(child)
    return metrics | {name_metric("kept", learner.name, name): float(name == fittest) for name in losses}


def _measure_fitness(state: State, learner: Learner) -> float:
    """Measure the fitness of a network as it is, over the whole batch; the same on every process."""
    assert learner.network.fitness is not None
    total = torch.zeros((), device=distributed.device())
    for context, weight in _contexts(state, learner.name, "fitness"):
        with distributed.autocast():
            total += learner.network.fitness(learner.module, context).detach() * weight
    fitness = distributed.mean(float(total))
    if not math.isfinite(fitness):
        raise _make_diverged_error(state, learner, f"fitness {fitness:g}")
    return fitness


def _contexts(state: State, *stream: str) -> Iterator[tuple[StepContext, float]]:
    """This process's share of the batch piece by piece, each with its weight in the mean.

    The global random numbers are seeded for each piece. A stream of random numbers is named by words; the
    empty word of an only network adds nothing.
    """
    share = state.recipe.divide_batch(distributed.size())
    begin = distributed.rank() * share
    words = [zlib.crc32(word.encode()) for word in stream if word]
    generator = torch.Generator(distributed.device())
    for first in range(begin, begin + share, state.recipe.micro_batch):
        part = slice(first, min(first + state.recipe.micro_batch, begin + share))
        torch.manual_seed(_mix_seed(state.seed, state.step, first, *words))
        generator.manual_seed(_mix_seed(state.seed, state.step, *words))
        yield StepContext(state.step, generator, part, state.modules), (part.stop - part.start) / share


def _mix_seed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _gradients_only_for(learner: Learner, state: State) -> Iterator[None]:
    """Let one network keep gradients: they flow through the others, and cost these nothing."""
    others = [weight for other in state.learners if other is not learner for weight in other.trainable]
    for weight in others:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in others:
            weight.requires_grad_(True)


def _keep_gradients_local(net: nn.Module, more: bool) -> AbstractContextManager[None]:
    """Keep gradients to the process while more of its share is to come."""
    if more and isinstance(net, DistributedDataParallel):
        return net.no_sync()
    return nullcontext()


def _make_diverged_error(state: State, learner: Learner, values: str) -> DivergedError:
    subject = f"training of {learner.name}" if learner.name else "training"
    lr = learner.optimiser.defaults["lr"]
    return DivergedError(
        f"{subject} diverged at step {state.step}: {values}",
        f"lower the learning rate: --set lr={lr / 2:g}"
        if learner.network.lr is None
        else f"lower the learning rate of {learner.name}, which is {lr:g}",
    )
