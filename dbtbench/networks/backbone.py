"""The network of a recipe: the project's U-Net, or MONAI's as a second opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dbtbench.errors import UsageError
from dbtbench.networks.names import NUM_GROUPS, Backbone
from dbtbench.networks.unet import HEAD_CHANNELS, UNet, pixel_shuffle_2d, pixel_unshuffle_2d


class NetworkRecipe(Protocol):
    """The settings that a network is built from (see `dbtbench.training.diffusion_recipe`)."""

    backbone: Backbone
    base_channels: int
    channel_mults: tuple[int, ...]
    blocks: int
    unshuffle: int
    factorised: bool


def build_network(
    recipe: NetworkRecipe, num_labels: int, num_projections: int, channels: int = 1, num_changes: int = 0
) -> nn.Module:
    """Make an untrained network, called like `UNet`: `net(x, t, label, projection, mask)`.

    Args:
        recipe: its settings; MONAI's network has no `factorised` convolutions.
        num_labels: number of labels; the index `num_labels` is the null label.
        num_projections: number of projections; the index `num_projections` is the null projection.
        channels: of x_t.
        num_changes: see `UNet`; MONAI's network is given none.

    Returns:
        A network that predicts 0 until it is trained.
    """
    width, mults = recipe.base_channels, recipe.channel_mults
    blocks, unshuffle = recipe.blocks, recipe.unshuffle
    conditions = num_labels, num_projections
    if recipe.backbone == "monai":
        return MonaiUNet(width, mults, blocks, unshuffle, *conditions, channels)
    return UNet(width, mults, blocks, unshuffle, recipe.factorised, *conditions, channels, num_changes)


class MonaiUNet(nn.Module):
    """MONAI's `DiffusionModelUNet` (Rombach et al., arXiv 2112.10752) with the conditioning of `UNet`.

    It differs from the paper's network: 3x3x3 convolutions without weight standardisation, an embedding that
    is only added, full attention at the last level, and slices that are halved with the plane.

    Args:
        base_channels: channels of the first level.
        channel_mults: channels of each level, in units of `base_channels`; slices, rows and columns are
            halved between levels.
        num_res_blocks: residual blocks of each level.
        unshuffle: factor of the pixel-unshuffle of every slice before the first level.
        num_labels: number of labels.
        num_projections: number of projections.
        channels: of x_t.
    """

    def __init__(
        self,
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        unshuffle: int,
        num_labels: int,
        num_projections: int,
        channels: int = 1,
    ) -> None:
        super().__init__()
        # Imported here because it takes seconds, which the default network does not need.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        widths = [base_channels * mult for mult in channel_mults]
        self.levels, self.unshuffle, self.num_projections = len(widths), unshuffle, num_projections
        self.net = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=(channels + 1) * unshuffle**2,
            out_channels=channels * unshuffle**2,
            num_res_blocks=num_res_blocks,
            channels=widths,
            attention_levels=[False] * (len(widths) - 1) + [True],
            norm_num_groups=NUM_GROUPS,
            num_head_channels=math.gcd(HEAD_CHANNELS, widths[-1]),
            # Besides time it only embeds a class: every pair of label and projection is one class.
            num_class_embeds=(num_labels + 1) * (num_projections + 1),
            use_flash_attention=True,
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Predict the target; arguments and result are those of `UNet.forward`.

        Raises:
            UsageError: when the slices cannot be halved between the levels.
        """
        check_slices(x.shape[2], self.levels)
        pair = label * (self.num_projections + 1) + projection
        h = pixel_unshuffle_2d(torch.cat([x, mask], dim=1), self.unshuffle)
        return pixel_shuffle_2d(self.net(h, 1000 * t, class_labels=pair), self.unshuffle)


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
            f"ingest on a grid of {nearest} slices, or use fewer --set channel_mults or --set backbone=unet",
        )
