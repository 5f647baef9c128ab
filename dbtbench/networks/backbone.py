"""The network that a recipe asks for: the project's U-Net, or MONAI's as a second opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dbtbench.errors import UsageError
from dbtbench.networks.unet import GROUPS, HEAD_CHANNELS, UNet, fold, unfold

Backbone = Literal["unet", "monai"]


class NetworkRecipe(Protocol):
    """The settings that a network is built from (see `DDPMRecipe`)."""

    backbone: Backbone
    dim: int
    mults: tuple[int, ...]
    blocks: int
    unshuffle: int
    factorised: bool


def build(recipe: NetworkRecipe, labels: int, projections: int) -> nn.Module:
    """Make an untrained network, called as `UNet` is: `net(x, t, label, projection, mask)`.

    Args:
        recipe: its settings; MONAI's network has no `factorised` convolutions.
        labels: number of labels; index `labels` stands for "not told".
        projections: number of projections; likewise.

    Returns:
        A network that predicts 0 until it is trained.
    """
    dim, mults, blocks, unshuffle = recipe.dim, recipe.mults, recipe.blocks, recipe.unshuffle
    if recipe.backbone == "monai":
        return MonaiUNet(dim, mults, blocks, unshuffle, labels, projections)
    return UNet(dim, mults, blocks, unshuffle, recipe.factorised, labels, projections)


class MonaiUNet(nn.Module):
    """MONAI's `DiffusionModelUNet` (Rombach et al., arXiv 2112.10752), told what `UNet` is told.

    It differs from the paper's: 3x3x3 convolutions that are not weight-standardised, an embedding that is
    only added, full attention at the last level, and slices that are halved with the plane.

    Args:
        dim: channels of the first level.
        mults: channels of each level, in units of `dim`; slices and plane are halved between levels.
        blocks: residual blocks a level.
        unshuffle: the plane is folded this many times each way into channels before the first level.
        labels: number of labels.
        projections: number of projections.
    """

    def __init__(
        self, dim: int, mults: Sequence[int], blocks: int, unshuffle: int, labels: int, projections: int
    ) -> None:
        super().__init__()
        # Imported here because it takes seconds, which the default network need not wait for.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        widths = [dim * m for m in mults]
        self.levels, self.unshuffle, self.projections = len(mults), unshuffle, projections
        self.net = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2 * unshuffle**2,
            out_channels=unshuffle**2,
            num_res_blocks=blocks,
            channels=widths,
            attention_levels=[False] * (len(mults) - 1) + [True],
            norm_num_groups=GROUPS,
            num_head_channels=math.gcd(HEAD_CHANNELS, widths[-1]),
            # Its only embedding besides time is of a class: every pair of label and projection is one.
            num_class_embeds=(labels + 1) * (projections + 1),
            use_flash_attention=True,
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Predict the target; arguments and result are those of `UNet.forward`.

        Raises:
            UsageError: when the slices cannot be halved between the levels.
        """
        check_slices(x.shape[2], self.levels)
        told = label * (self.projections + 1) + projection
        folded = fold(torch.cat([x, mask], dim=1), self.unshuffle)
        return unfold(self.net(folded, 1000 * t, class_labels=told), self.unshuffle)


def check_slices(slices: int, levels: int) -> None:
    """Check that MONAI's network can halve the slices between its levels.

    Raises:
        UsageError: when their number is not a multiple of what it needs.
    """
    factor = 2 ** (levels - 1)
    if slices % factor:
        nearest = max(1, round(slices / factor)) * factor
        raise UsageError(
            f"{slices} slices cannot be divided by {factor}, as MONAI's network does",
            f"ingest on a grid of {nearest} slices, or use fewer --set mults or --set backbone=unet",
        )
