"""The fit loop: global batches, EMA, mixed precision, progress, and exact continuation after a kill.

class MyRecipe(TrainingRecipe):                 # steps, batch, lr, … are settings of the recipe
    width: int = 32

def loss(net, context):                      # one part of the global batch of one step
    rows = torch.randint(n, (recipe.batch,), generator=context.generator)[context.part]
    return net(volumes[rows]).square().mean()

net = fit(net, loss, recipe, run.path, seed=0, title="my generator")
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dbtbench.errors import DivergedError, UsageError
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.runtime.signals import Terminated, defer_sigterm
from dbtbench.training.log import MetricsLogger
from dbtbench.training.recipe import TrainingRecipe
from dbtbench.training.state import State

WEIGHTS = "weights.safetensors"
STATE = "state/training.pt"
PREVIEW = "preview.png"
CHECKPOINT_SECONDS = 60.0
PREVIEW_SECONDS = 300.0
PREVIEW_SHARE = 0.05
"""Most of the time that goes into previews."""
COMPILED_STEPS = 500
"""Steps below which compiling, which takes about a minute, does not pay."""


@dataclass(frozen=True)
class StepContext:
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


Loss = Callable[[nn.Module, StepContext], torch.Tensor]
"""`loss(net, context)`: mean loss (a scalar) over `context.part`.

It calls `net`, not the module that `fit` got.
"""

Preview = Callable[[nn.Module, Path], None]
"""`preview(net, path)`: draw with the averaged network, in evaluation mode, and write a PNG.

It has random numbers of its own, and leaves the network as it is.
"""


def fit(
    net: nn.Module,
    loss: Loss,
    recipe: TrainingRecipe,
    folder: Path,
    *,
    seed: int,
    title: str = "training",
    preview: Preview | None = None,
    compiled: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    preview_seconds: float = PREVIEW_SECONDS,
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
            `state/training.pt` and `preview.png`.
        seed: seed of everything random in the training.
        title: what progress calls it.
        preview: see `Preview`; called on process 0, and without any effect on what is trained.
        compiled: compile a long training on a GPU, for a network that always gets tensors of the same shapes.
        checkpoint_seconds: how often the state is kept.
        preview_seconds: how often there is a preview at most, always right after the state was kept.

    Returns:
        The averaged network in evaluation mode, on `distributed.device()`.

    Raises:
        UsageError: when the global batch cannot be shared by the processes.
        DivergedError: when loss or gradient is not finite, naming the step.
        MissingError: when TensorBoard is asked for and not installed.
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
    if compiled:
        _compile(state)
    keeper = _Keeper(state, folder, checkpoint_seconds, preview, preview_seconds)
    with closing(MetricsLogger(folder, state)) as metrics:
        _train(state, loss, title, metrics, keeper)
    state.save_weights(folder / WEIGHTS)
    if distributed.rank() == 0:
        (folder / STATE).unlink(missing_ok=True)
    return state.average.module.eval()


def _compile(state: State) -> None:
    """Let torch.compile fuse the network on a GPU; what it cannot compile runs as it is, with a warning.

    In place, so that the weights keep their names, and before DistributedDataParallel wraps the network, as
    torch's guide "Where to apply torch.compile" has it. TORCH_COMPILE_DISABLE=1 turns it off.
    """
    if distributed.compiles() and state.recipe.steps - state.step >= COMPILED_STEPS:
        torch._dynamo.config.suppress_errors = True
        state.net.compile()


def _train(state: State, loss: Loss, title: str, metrics: MetricsLogger, keeper: _Keeper) -> None:
    """The steps that are left."""
    wrapped = distributed.data_parallel(state.net)
    state.net.train()
    steps, done = state.recipe.steps, state.step
    with defer_sigterm() as terminated, distributed.leader_progress(title, steps, "steps", done) as advance:
        while state.step < steps:
            metrics.add(_step(state, wrapped, loss))
            state.step += 1
            advance(1, metrics.note())
            written = metrics.written()
            if distributed.any_process(terminated()):
                keeper.keep()
                log.info(f"{title}: state kept at step {state.step} of {steps}")
                raise Terminated
            if written:
                keeper.keep_when_due()


class _Keeper:
    """Keeps the state, and draws previews, every so many seconds."""

    def __init__(
        self,
        state: State,
        folder: Path,
        checkpoint_seconds: float,
        preview: Preview | None,
        preview_seconds: float,
    ) -> None:
        self.state, self.folder, self.preview = state, folder, preview
        self.checkpoint_seconds, self.preview_seconds = checkpoint_seconds, preview_seconds
        self.kept = self.previewed = time.monotonic()

    def keep(self) -> None:
        """Keep the state."""
        self.state.save(self.folder / STATE)
        self.kept = time.monotonic()

    def keep_when_due(self) -> None:
        """Keep the state when it is time, and then, when it is time, draw a preview."""
        if time.monotonic() - self.kept < self.checkpoint_seconds:
            return
        self.keep()
        if self.preview and distributed.rank() == 0 and self.kept - self.previewed >= self.preview_seconds:
            self.preview(self.state.average.module.eval(), self.folder / PREVIEW)
            self.previewed = time.monotonic()
            self.preview_seconds = max(self.preview_seconds, (self.previewed - self.kept) / PREVIEW_SHARE)


def _step(state: State, net: nn.Module, loss: Loss) -> float:
    """One optimiser step; gives this process's mean loss over its share of the batch."""
    share = state.recipe.batch // distributed.size()
    begin = distributed.rank() * share
    generator = torch.Generator(distributed.device())
    total = torch.zeros((), device=distributed.device())
    for first in range(begin, begin + share, state.recipe.micro_batch):
        part = slice(first, min(first + state.recipe.micro_batch, begin + share))
        torch.manual_seed(_mixed(state.seed, state.step, first))
        context = StepContext(state.step, generator.manual_seed(_mixed(state.seed, state.step)), part)
        with _unsynchronised(net, part.stop < begin + share):
            with distributed.autocast():
                value = loss(net, context) * ((part.stop - part.start) / share)
            value.backward()  # type: ignore[no-untyped-call]
        total += value.detach()
    norm = nn.utils.clip_grad_norm_(net.parameters(), state.recipe.clip)
    if not (torch.isfinite(total) and torch.isfinite(norm)):
        raise DivergedError(
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
