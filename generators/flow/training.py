"""Training of the flow by maximum likelihood, and drawing with it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dbtbench.errors import DivergedError
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.training.loop import Preview, StepContext, fit

from .model import Flow

if TYPE_CHECKING:
    from . import FlowRecipe

MEASURED = 256
"""Most training volumes that the gain is measured on."""


def train_flow(recipe: FlowRecipe, data: LeftBreasts, run: Run, preview: Preview) -> nn.Module:
    """Train the flow, continue or load it (see `dbtbench.training.loop.fit`); the log says what it gained."""
    torch.manual_seed(recipe.seed)
    model = Flow(recipe, data.split.grid)
    objective = Objective(recipe, model, data)
    trained = fit(
        model,
        objective,
        recipe,
        run.path,
        seed=recipe.seed,
        title="training flow",
        preview=preview,
        measure=objective.measure,
        compiled=True,
    )
    if distributed.rank() == 0:
        gain: Any = trained.gain
        log.info(
            f"flow: its training volumes are {float(gain):.4f} nats a voxel more likely than under the "
            f"whitened Gaussian, at noise {recipe.noise:g}"
        )
    return trained


class Objective:
    """Loss: the gain in nats a voxel over the whitened Gaussian, negative; reads data at the first call."""

    def __init__(self, recipe: FlowRecipe, model: Flow, data: LeftBreasts) -> None:
        self.recipe, self.model, self.data = recipe, model, data

    @cached_property
    def residuals(self) -> Tensor:
        """Residuals (n, 1, D, H, W) of the training volumes.

        Reading them fits the model's statistics, also when a training continues.
        """
        return self.model.fit_statistics(self.data)

    def __call__(self, net: nn.Module, context: StepContext) -> Tensor:
        """Compute the mean loss over `context.part` of the batch."""
        rows = self.data.draw_rows(context, self.recipe.batch)
        shape = (self.recipe.batch, *self.residuals.shape[1:])
        noise = torch.randn(shape, generator=context.generator, device=context.generator.device)
        return -self._compute_gain(net, rows, noise[context.part]).mean()

    def measure(self, net: nn.Module) -> None:
        """Measure the gain over the training volumes, and keep it in `net.gain`."""
        rows, size = torch.arange(min(len(self.data), MEASURED)), self.recipe.sample_batch
        gains = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size].to(self.data.device)
            noise = torch.randn(len(part), *self.residuals.shape[1:])
            gains.append(self._compute_gain(net, part, noise.to(distributed.device())))
        gain: Any = net.gain
        gain.copy_(torch.cat(gains).mean())

    def _compute_gain(self, net: nn.Module, rows: Tensor, noise: Tensor) -> Tensor:
        """Compute the gain (N,) of training volumes with standard normal noise (N, 1, D, H, W)."""
        device = distributed.device()
        conditioning = self.data.conditioning[rows].to(device)
        residual = self.residuals[rows].to(device) + self.recipe.noise * noise
        gain: Tensor = net(residual, conditioning.label, conditioning.projection, conditioning.lesion_mask)
        return gain


def draw_volumes(recipe: FlowRecipe, model: Flow, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
    """Draw volumes of left breasts: (N, 1, D, H, W) in [0, 1].

    Raises:
        DivergedError: when the flow's inverse is not finite.
    """
    given = (conditioning.label, conditioning.projection, conditioning.lesion_mask)
    residual = model.decode(noise(), *given)
    if recipe.denoise:
        residual = model.denoise(residual, *given)
    if not torch.isfinite(residual).all():
        raise DivergedError(
            "flow: a drawn volume is not finite, so the inverse of the blocks has run away",
            f"train with a lower learning rate: --set lr={recipe.lr / 2:g}",
        )
    return model.start.to_intensities(residual + model.start.predict_mean(conditioning))
