"""Networks that are trained together, and what their losses are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dbtbench.training.recipe import Schedule


@dataclass(frozen=True)
class StepContext:
    """The step that a loss is computed for.

    Attributes:
        step: number of the step, from 0.
        generator: on `distributed.device()`, seeded with the seed, the step and the network's name. Draw
            everything random with it, for the whole global batch, and then take `part`: any number of
            processes trains on the same numbers.
        part: rows of the global batch to compute.
        networks: every network by name, with its present weights. Gradients flow through all of them, and
            only the one that is being trained keeps any.
    """

    step: int
    generator: torch.Generator
    part: slice
    networks: Mapping[str, nn.Module]


Loss = Callable[[nn.Module, StepContext], torch.Tensor]
"""`loss(net, context)`: mean loss (a scalar) over `context.part`.

It calls `net`, not the module that `fit` got.
"""


@dataclass(frozen=True)
class Network:
    """A network and how it is trained; a setting that is None is the recipe's.

    Attributes:
        module: the network with its initial weights; it is trained in place.
        loss: see `Loss`. Several losses by name make the training evolutionary: at every step each of them
            makes a child of the network by one optimiser step, on the same random numbers, and the fittest
            child stays (E-GAN, Wang et al., arXiv 1803.00657).
        fitness: called like a loss, on random numbers of its own and with gradients for all networks; the
            larger, the fitter. Needed with several losses, and not used with one.
        lr: peak learning rate.
        betas: decay rates of AdamW's moments.
        clip: largest norm of the gradient; `math.inf` for none.
        schedule: of the learning rate.
        ema: decay of the weights' moving average; 0 gives the last weights.
        compiled: whether a long training on a GPU compiles it: for a network that always gets tensors of the
            same shapes, and whose gradient is not differentiated again.

    Raises:
        ValueError: for several losses without a fitness.
    """

    module: nn.Module
    loss: Loss | Mapping[str, Loss]
    fitness: Loss | None = None
    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = None
    schedule: Schedule | None = None
    ema: float | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.loss, Mapping) and self.fitness is None:
            raise ValueError(f"no fitness to choose by between {', '.join(self.loss)}")


def store_channels_last(module: nn.Module) -> None:
    """Store the weights of 3-D convolutions with their channels last, in place: their kernels are faster.

    Not `module.to(memory_format=…)`, which refuses tensors of four dimensions.
    """
    for weight in module.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
