"""Training of the autoencoder: L1, gradients and a critic of slices, on crops of the training volumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.learned import LeftBreasts
from dbtbench.training.loop import Network, StepContext, fit_networks
from dbtbench.training.recipe import TrainingRecipe

from . import FACTOR, LatentRecipe
from .autoencoder import Autoencoder
from .quality import measure_quality

FOLDER = "autoencoder"
"""Of a run: weights and metrics of the first stage."""
BETAS = (0.5, 0.9)
"""Decay rates of Adam's moments, as for other networks that a critic trains."""


def train_autoencoder(recipe: LatentRecipe, data: LeftBreasts, run: Run) -> Autoencoder:
    """Train the autoencoder, continue or load it; measure at the end what it keeps of lesions and texture.

    Args:
        recipe: its settings.
        data: the training volumes; read only if there is something to train.
        run: its folder `autoencoder` takes weights, state and metrics.
    """
    torch.manual_seed(recipe.seed)
    autoencoder = Autoencoder(recipe.autoencoder_channels, recipe.autoencoder_blocks, recipe.latent_channels)
    critic = PatchDiscriminator(
        spatial_dims=2,
        num_layers_d=2,
        channels=recipe.autoencoder_channels,
        in_channels=1,
        norm="INSTANCE",
    )
    losses = _Losses(recipe, autoencoder, data)
    networks = {
        "critic": Network(critic, losses.judge, betas=BETAS, ema=0),
        "autoencoder": Network(autoencoder, losses.reconstruct, betas=BETAS),
    }
    settings = TrainingRecipe(
        steps=recipe.autoencoder_steps,
        batch=recipe.autoencoder_batch,
        micro_batch=recipe.micro_batch,
        lr=recipe.autoencoder_lr,
        warmup=recipe.autoencoder_steps // 20,
        ema=recipe.ema,
    )
    trained = fit_networks(
        networks,
        settings,
        run.path / FOLDER,
        seed=recipe.seed,
        title="training latent: autoencoder",
        measure=lambda averages: measure_quality(averages["autoencoder"], data),
    )["autoencoder"]
    assert isinstance(trained, Autoencoder)
    return trained


class _Losses:
    """Losses of the autoencoder and of its critic; they read the data when they are first called."""

    def __init__(self, recipe: LatentRecipe, autoencoder: Autoencoder, data: LeftBreasts) -> None:
        self.recipe, self.autoencoder, self.data = recipe, autoencoder, data
        self.adversarial = PatchAdversarialLoss(criterion="least_squares")

    @cached_property
    def values(self) -> Tensor:
        """Scaled volumes (n, 1, D, H, W); reading them fits scaling and principal components."""
        self.autoencoder.fit_statistics(self.data.volumes)
        values: Tensor = self.autoencoder.intensities(self.data.volumes)
        return values

    def judge(self, critic: nn.Module, context: StepContext) -> Tensor:
        """Loss of the critic, which learns to tell slices of crops from reconstructed ones."""
        with torch.no_grad():
            crop, _, drawn, _, _ = self._reconstruct(context.networks["autoencoder"], context)
        losses: list[Tensor] = [
            self.adversarial(critic(_slices(values))[-1], target_is_real=real, for_discriminator=True)
            for values, real in ((crop, True), (drawn, False))
        ]
        return (losses[0] + losses[1]) / 2

    def reconstruct(self, net: nn.Module, context: StepContext) -> Tensor:
        """Loss of the autoencoder; lesions, which are few of the voxels, weigh more."""
        recipe = self.recipe
        crop, mask, drawn, mean, std = self._reconstruct(net, context)
        weight = 1 + recipe.lesion_weight * mask
        loss = (weight * (drawn - crop).abs()).mean()
        for axis in (2, 3, 4):
            steps = F.l1_loss(drawn.diff(dim=axis), crop.diff(dim=axis))
            loss = loss + recipe.gradient_weight * steps
        if context.step >= recipe.autoencoder_steps * recipe.adversarial_start:
            judged = context.networks["critic"](_slices(drawn))[-1]
            loss = loss + recipe.adversarial_weight * self.adversarial(judged, True, for_discriminator=False)
        divergence = 0.5 * (mean.square() + std.square() - 2 * std.log() - 1).mean()
        return loss + recipe.kl_weight * divergence

    def _reconstruct(
        self, net: nn.Module, context: StepContext
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Crops, their lesion masks, the reconstruction, and mean and deviation of the codes."""
        recipe, values, device = self.recipe, self.values, distributed.device()
        rows = self.data.draw_rows(context, recipe.autoencoder_batch)
        size = [min(crop, whole) for crop, whole in zip(recipe.crop, values.shape[2:], strict=True)]
        room = torch.tensor(values.shape[2:]) - torch.tensor(size)
        chance = torch.rand(
            recipe.autoencoder_batch, 3, generator=context.generator, device=context.generator.device
        )[context.part].cpu()
        corners = (chance * (room // FACTOR + 1)).long() * FACTOR
        masks = self.data.conditioning.lesion_mask
        crops, lesions = (
            torch.stack([_cut(source[row], corner, size) for row, corner in zip(rows, corners, strict=True)])
            for source in (values, masks)
        )
        shape = (recipe.autoencoder_batch, recipe.latent_channels, *(side // FACTOR for side in size))
        noise = torch.randn(*shape, generator=context.generator, device=device)[context.part]
        crops, lesions = crops.to(device), lesions.to(device)
        drawn, mean, std = net(crops, noise)
        return crops, lesions.relu(), drawn, mean, std


def _cut(volume: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """Cut (1, D, H, W) to a size of slices, rows and columns from a corner (3,)."""
    for axis, (first, length) in enumerate(zip(corner.tolist(), size, strict=True), start=1):
        volume = volume.narrow(axis, first, length)
    return volume


def _slices(values: Tensor) -> Tensor:
    """Slices of crops as pictures: (N, 1, D, H, W) to (N·D, 1, H, W)."""
    return values.transpose(1, 2).flatten(0, 1)
