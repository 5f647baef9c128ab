"""The fit loop: global batches, EMA, mixed precision, progress, and exact continuation after a kill.

class MyRecipe(Training):                 # steps, batch, lr, … are settings of the recipe
    width: int = 32

def loss(net, draw):                      # one part of the global batch of one step
    rows = torch.randint(n, (recipe.batch,), generator=draw.generator)[draw.part]
    return net(volumes[rows]).square().mean()

net = fit(net, loss, recipe, run.path, seed=0, title="my generator")
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.files import write_text
from dbtbench.progress import say
from dbtbench.stopping import Terminated, deferred
from dbtbench.training import distributed
from dbtbench.training.state import State, Training

__all__ = ["Draw", "Loss", "Training", "fit"]

WEIGHTS = "weights.safetensors"
STATE = "state/training.pt"
METRICS = "metrics.jsonl"
METRIC_LINES = 200
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Draw:
    """What a loss is asked for.

    Attributes:
        step: number of the step, from 0.
        generator: on `distributed.device()`, seeded with (seed, step). Draw everything random with it, for
            the whole global batch, and then take `part`: any number of processes trains on the same numbers.
        part: which rows of the global batch to compute.
    """

    step: int
    generator: torch.Generator
    part: slice


Loss = Callable[[nn.Module, Draw], torch.Tensor]
"""`loss(net, draw)`: mean loss (a scalar) over `draw.part`; it calls `net`, not the module that `fit` got."""


def fit(
    net: nn.Module,
    loss: Loss,
    recipe: Training,
    folder: Path,
    *,
    seed: int,
    title: str = "training",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> nn.Module:
    """Train a network, or continue where a killed training stopped, or load what a finished one left.

    With the same number of processes a continued training ends with the same bits as an uninterrupted one
    (on the CPU; GPU kernels need not be deterministic). The global random number generator is seeded too,
    with (seed, step, part), for dropout and the like.

    Args:
        net: the network with its initial weights; moved to `distributed.device()` and trained in place.
        loss: see `Loss`.
        recipe: settings of the training.
        folder: takes `weights.safetensors` (the moving average), `metrics.jsonl` and, while it lasts,
            `state/training.pt`.
        seed: seed of everything random in the training.
        title: what progress calls it.
        checkpoint_seconds: how often the state is kept.

    Returns:
        The averaged network in evaluation mode, on `distributed.device()`.

    Raises:
        UsageError: when the global batch cannot be shared by the processes.
        DBTBenchError: when loss or gradient is not finite, naming the step.
        StaleError: when the folder holds the state of another training.
        Terminated: when SIGTERM came to any process; the step was finished and its state is kept.
    """
    share, uneven = divmod(recipe.batch, distributed.size())
    if uneven:
        raise UsageError(
            f"a batch of {recipe.batch} cannot be shared by {distributed.size()} processes",
            f"--set batch={max(share, 1) * distributed.size()}",
        )
    net.to(distributed.device())
    if distributed.device().type == "cuda":
        net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    state = State(net, recipe, seed)
    if distributed.size() > 1:
        # Process 0 may have cleared the folder; nobody looks into it before that is done.
        torch.distributed.barrier()
    if (folder / WEIGHTS).is_file():
        return state.load_weights(folder / WEIGHTS)
    state.resume(folder / STATE)
    _train(state, loss, folder, title, checkpoint_seconds)
    state.save_weights(folder / WEIGHTS)
    if distributed.rank() == 0:
        (folder / STATE).unlink(missing_ok=True)
    return state.average.module.eval()


def _train(state: State, loss: Loss, folder: Path, title: str, checkpoint_seconds: float) -> None:
    """The steps that are left."""
    log = _Log(folder / METRICS, state)
    wrapped = distributed.data_parallel(state.net)
    state.net.train()
    saved = time.monotonic()
    steps, done = state.recipe.steps, state.step
    with deferred() as terminated, distributed.leader_progress(title, steps, "steps", done) as advance:
        while state.step < steps:
            log.add(_step(state, wrapped, loss))
            state.step += 1
            advance(1, log.note())
            written = log.written()
            if distributed.any_process(terminated()):
                state.save(folder / STATE)
                if distributed.rank() == 0:
                    say(f"{title}: state kept at step {state.step} of {steps}")
                raise Terminated
            if written and time.monotonic() - saved >= checkpoint_seconds:
                state.save(folder / STATE)
                saved = time.monotonic()


def _step(state: State, net: nn.Module, loss: Loss) -> float:
    """One optimiser step; gives this process's mean loss over its share of the batch."""
    share = state.recipe.batch // distributed.size()
    begin = distributed.rank() * share
    generator = torch.Generator(distributed.device())
    total = torch.zeros((), device=distributed.device())
    for first in range(begin, begin + share, state.recipe.micro_batch):
        part = slice(first, min(first + state.recipe.micro_batch, begin + share))
        torch.manual_seed(_mixed(state.seed, state.step, first))
        draw = Draw(state.step, generator.manual_seed(_mixed(state.seed, state.step)), part)
        with _unsynchronised(net, part.stop < begin + share):
            with distributed.autocast():
                value = loss(net, draw) * ((part.stop - part.start) / share)
            value.backward()  # type: ignore[no-untyped-call]
        total += value.detach()
    norm = nn.utils.clip_grad_norm_(net.parameters(), state.recipe.clip)
    if not (torch.isfinite(total) and torch.isfinite(norm)):
        raise DBTBenchError(
            f"training diverged at step {state.step}: loss {float(total):g}, gradient norm {float(norm):g}",
            f"lower the learning rate: --set lr={state.recipe.lr / 2:g}",
        )
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.schedule.step()
    state.average.update_parameters(state.net)
    return float(total)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _unsynchronised(net: nn.Module, more: bool) -> AbstractContextManager[None]:
    """Keep gradients to the process while more of its share is to come."""
    if more and isinstance(net, DistributedDataParallel):
        return net.no_sync()
    return nullcontext()


class _Log:
    """`metrics.jsonl`: a line every few steps, with the mean loss since the last line, over all processes."""

    def __init__(self, path: Path, state: State) -> None:
        self.path, self.state = path, state
        self.every = max(1, state.recipe.steps // METRIC_LINES)
        self.first, self.started = state.step, time.monotonic()
        self.losses: list[float] = []
        if distributed.rank() == 0:
            write_text(path, "".join(self._lines_until(state.step)))

    def _lines_until(self, step: int) -> Iterator[str]:
        """Lines up to a step: what was logged after the state was kept is going to be logged again."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                yield line

    def speed(self) -> float:
        """Volumes a second since this process began."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return (self.state.step - self.first) * self.state.recipe.batch / seconds

    def add(self, loss: float) -> None:
        """Take the loss of a step."""
        self.losses.append(loss)

    def note(self) -> str:
        """What progress shows beside the bar."""
        return f"loss {self.losses[-1]:.4f}, {self.speed():.3g} volumes/s"

    def written(self) -> bool:
        """Write a line when it is due; whether it was."""
        state = self.state
        if state.step % self.every and state.step < state.recipe.steps:
            return False
        losses = torch.tensor(self.losses, device=distributed.device())
        self.losses = []
        if distributed.size() > 1:
            from monai.utils.dist import evenly_divisible_all_gather

            losses = evenly_divisible_all_gather(losses, concat=True)
        if distributed.rank() == 0:
            line = {
                "step": state.step,
                "loss": float(losses.mean()),
                "lr": state.schedule.get_last_lr()[0],
                "seconds": round(time.monotonic() - self.started, 1),
                "volumes_per_second": round(self.speed(), 2),
                "processes": distributed.size(),
            }
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return True
