"""The fit loop: global batches, EMA, mixed precision, progress, and exact continuation after a kill.

class MyRecipe(TrainingRecipe):                 # steps, batch, lr, … are settings of the recipe
    width: int = 32

def loss(net, context):                      # one part of the global batch of one step
    rows = torch.randint(n, (recipe.batch,), generator=context.generator)[context.part]
    return net(volumes[rows]).square().mean()

net = fit(net, loss, recipe, run.path, seed=0, title="my generator")

Several networks train together, each with its own loss, which sees the others:

def critic_loss(critic, context):
    fake = context.networks["generator"](noise)
    return …

networks = {"critic": Network(critic, critic_loss, ema=0), "generator": Network(generator, generator_loss)}
trained = fit_networks(networks, recipe, run.path, seed=0, title="my GAN")

A training in stages is one call after the other, each in a folder of its own. What a finished stage left is
loaded, and `measure` keeps numbers with its weights that the next stage needs:

encoder = fit(encoder, loss, first, run.path / "encoder", seed=0, title="encoder", measure=measure_latents)
net = fit(net, loss_on(encoder), second, run.path, seed=0, title="diffusion")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.runtime.signals import Terminated, defer_sigterm
from dbtbench.training.log import MetricsLogger, sync_metrics
from dbtbench.training.network import Loss, Network, StepContext, store_channels_last
from dbtbench.training.recipe import TrainingRecipe
from dbtbench.training.state import State
from dbtbench.training.step import train_step

__all__ = ["Loss", "Measure", "Network", "Preview", "StepContext", "fit", "fit_networks"]

WEIGHTS = "weights.safetensors"
STATE = "state/training.pt"
PREVIEW = "preview.png"
CHECKPOINT_SECONDS = 60.0
PREVIEW_SECONDS = 300.0
PREVIEW_SHARE = 0.05
"""Most of the time that goes into previews."""
COMPILED_STEPS = 500
"""Steps below which compiling, which takes about a minute, does not pay."""

Preview = Callable[[nn.Module, Path], None]
"""`preview(net, path)`: draw with the averaged network, in evaluation mode, and write a PNG.

It uses a random generator of its own, and does not change the network.
"""

Measure = Callable[[nn.Module], None]
"""`measure(net)`: write measurements into buffers of the averaged network, in place.

They are kept with the weights. It is called once, after the last step, on process 0, without gradients, in
evaluation mode and with the global random numbers seeded.
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
    measure: Measure | None = None,
    compiled: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    preview_seconds: float = PREVIEW_SECONDS,
) -> nn.Module:
    """Train one network: `fit_networks` for a network without a name.

    Args:
        net: the network with its initial weights; moved to `distributed.device()` and trained in place.
        loss: see `Loss`.
        recipe: settings of the training.
        folder: see `fit_networks`.
        seed: seed of everything random in the training.
        title: name of the training in progress lines.
        preview: see `Preview`; called on process 0, and without any effect on what is trained.
        measure: see `Measure`.
        compiled: see `Network`.
        checkpoint_seconds: see `fit_networks`.
        preview_seconds: see `fit_networks`.

    Returns:
        The averaged network, in evaluation mode and frozen, on `distributed.device()`.

    Raises:
        DBTBenchError: see `fit_networks`.
    """
    networks = fit_networks(
        {"": Network(net, loss, compiled=compiled)},
        recipe,
        folder,
        seed=seed,
        title=title,
        preview=preview and (lambda networks, path: preview(networks[""], path)),
        measure=measure and (lambda networks: measure(networks[""])),
        checkpoint_seconds=checkpoint_seconds,
        preview_seconds=preview_seconds,
    )
    return networks[""]


def fit_networks(
    networks: Mapping[str, Network],
    recipe: TrainingRecipe,
    folder: Path,
    *,
    seed: int,
    title: str = "training",
    preview: Callable[[Mapping[str, nn.Module], Path], None] | None = None,
    measure: Callable[[Mapping[str, nn.Module]], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    preview_seconds: float = PREVIEW_SECONDS,
) -> dict[str, nn.Module]:
    """Train networks together, continue where a killed training stopped, or load a finished one.

    In every step the networks are trained in the order given. With the same number of processes a continued
    training ends with the same bits as an uninterrupted one (on the CPU; GPU kernels need not be
    deterministic). The global random number generator is seeded too, with the seed, the step, the part and
    the network's name, for dropout and the like; afterwards it is as it was before.

    Args:
        networks: what to train, by name.
        recipe: settings of the training, for all that a `Network` leaves open.
        folder: takes `weights.safetensors` (the moving averages; keys begin with `NAME.`), `metrics.jsonl`
            and, until the training ends, `state/training.pt` and `preview.png`.
        seed: seed of everything random in the training.
        title: name of the training in progress lines.
        preview: a `Preview` of all networks by name.
        measure: a `Measure` of all networks by name.
        checkpoint_seconds: seconds between two copies of the state.
        preview_seconds: least seconds between two previews, which come right after the state was kept.

    Returns:
        The averaged networks by name, in evaluation mode and frozen, on `distributed.device()`.

    Raises:
        UsageError: when the global batch cannot be divided among the processes.
        DivergedError: when a loss or a gradient is not finite, naming the step and the network.
        MissingError: when TensorBoard is asked for and not installed.
        StaleError: when the folder holds the state of another training.
        Terminated: when SIGTERM came to any process; the step was finished and its state is kept.
    """
    recipe.divide_batch(distributed.size())
    for network in networks.values():
        network.module.to(distributed.device())
        if distributed.device().type == "cuda":
            store_channels_last(network.module)
    state = State(networks, recipe, seed)
    if distributed.size() > 1:
        # Process 0 may have cleared the folder; nobody looks into it before that is done.
        torch.distributed.barrier()
    if (folder / WEIGHTS).is_file():
        _remove_state(folder)
        return state.load_weights(folder / WEIGHTS)
    state.resume(folder / STATE)
    _compile(state)
    keeper = _Keeper(state, folder, checkpoint_seconds, preview, preview_seconds)
    gpus = [distributed.device()] if distributed.device().type == "cuda" else []
    with closing(MetricsLogger(folder, state)) as metrics, torch.random.fork_rng(gpus):
        _train(state, title, metrics, keeper)
        if measure:
            keeper.keep()  # a kill while it measures costs no step
            _measure(state, measure)
    sync_metrics(folder)
    state.save_weights(folder / WEIGHTS)
    _remove_state(folder)
    return state.averages()


def _remove_state(folder: Path) -> None:
    """Remove the state of a training that has its weights, also where a kill came between the two."""
    if distributed.rank() == 0 and (folder / STATE).is_file():
        (folder / STATE).unlink()


def _compile(state: State) -> None:
    """Let torch.compile fuse networks on a GPU; what it cannot compile runs as it is, with a warning.

    In place, so that the weights keep their names, and before DistributedDataParallel wraps the network, as
    torch's guide "Where to apply torch.compile" has it. TORCH_COMPILE_DISABLE=1 turns it off.
    """
    if not distributed.compiles() or state.recipe.steps - state.step < COMPILED_STEPS:
        return
    for learner in state.learners:
        if learner.network.compiled:
            torch._dynamo.config.suppress_errors = True
            learner.module.compile()


def _train(state: State, title: str, metrics: MetricsLogger, keeper: _Keeper) -> None:
    """Take the steps that are left."""
    for learner in state.learners:
        learner.net = distributed.data_parallel(learner.module)
        learner.module.train()
    steps, done = state.recipe.steps, state.step
    with defer_sigterm() as terminated, distributed.leader_progress(title, steps, "steps", done) as advance:
        while state.step < steps:
            metrics.add(train_step(state))
            state.step += 1
            advance(1, metrics.note())
            written = metrics.write_when_due()
            if distributed.any_process(terminated()):
                keeper.keep()
                log.info(f"{title}: state kept at step {state.step} of {steps}")
                raise Terminated
            if written:
                keeper.keep_when_due()


def _measure(state: State, measure: Callable[[Mapping[str, nn.Module]], None]) -> None:
    """Let process 0 measure, and give all processes what it wrote."""
    averages = state.averages()
    torch.manual_seed(state.seed)
    if distributed.rank() == 0:
        with torch.no_grad():
            measure(averages)
    distributed.copy_from_leader(chain.from_iterable(net.buffers() for net in averages.values()))


class _Keeper:
    """Regular copies of the state, and previews."""

    def __init__(
        self,
        state: State,
        folder: Path,
        checkpoint_seconds: float,
        preview: Callable[[Mapping[str, nn.Module], Path], None] | None,
        preview_seconds: float,
    ) -> None:
        self.state, self.folder, self.preview = state, folder, preview
        self.checkpoint_seconds, self.preview_seconds = checkpoint_seconds, preview_seconds
        self.kept = self.previewed = time.monotonic()

    def keep(self) -> None:
        """Keep the state, after the metrics of its steps: these are not written again."""
        sync_metrics(self.folder)
        self.state.save(self.folder / STATE)
        self.kept = time.monotonic()

    def keep_when_due(self) -> None:
        """Keep the state when it is time, and then, when it is time, draw a preview."""
        if time.monotonic() - self.kept < self.checkpoint_seconds:
            return
        self.keep()
        if self.preview and distributed.rank() == 0 and self.kept - self.previewed >= self.preview_seconds:
            self.preview(self.state.averages(), self.folder / PREVIEW)
            self.previewed = time.monotonic()
            self.preview_seconds = max(self.preview_seconds, (self.previewed - self.kept) / PREVIEW_SHARE)
