"""The autoencoder of volumes: MONAI's AutoencoderKL, added to the best linear one.

Blocks of 4 x 4 x 4 voxels are projected onto their principal components: no linear code of as many numbers
loses less of them. MONAI's network starts at 0 and adds to that code and to what is decoded from it. So an
untrained autoencoder is the linear one, and training only has to find what lines and lesions need beyond it.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from torch import Tensor, nn

from dbtbench.diffusion.preconditioning import SqrtStandardisation
from dbtbench.networks.names import NUM_GROUPS

from . import FACTOR

LEVELS = 3
"""Levels of MONAI's network, which halves twice between them."""
LOG_VARIANCE = -6.0
"""Log variance of the codes before training: their noise is 5 % of their spread."""
BLOCKS = 200_000
"""Blocks from which the principal components are computed, at most."""
MIN_STD = 1e-4


class BlockComponents(nn.Module):
    """Principal components of blocks of 4 x 4 x 4 values, scaled to codes of variance 1.

    Args:
        channels: C, how many components.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FACTOR**3))
        self.register_buffer("basis", torch.zeros(channels, FACTOR**3))
        self.mean: Tensor
        self.basis: Tensor

    @torch.no_grad()
    def fit_statistics(self, values: Tensor) -> None:
        """Compute mean and components from evenly spaced blocks of volumes (N, 1, D, H, W)."""
        blocks = split_blocks(values).movedim(1, -1).flatten(0, -2)
        chosen = blocks[:: -(-len(blocks) // BLOCKS)].double()
        self.mean.copy_(chosen.mean(0))
        _, singular, components = torch.linalg.svd(chosen - chosen.mean(0), full_matrices=False)
        count = len(self.basis)
        std = (singular[:count] / len(chosen) ** 0.5).clamp(min=MIN_STD)
        self.basis.copy_(std[:, None] * components[:count])

    def encode(self, values: Tensor) -> Tensor:
        """Code volumes (N, 1, D, H, W): (N, C, D/4, H/4, W/4)."""
        centred = split_blocks(values) - self.mean.view(1, -1, 1, 1, 1)
        variances = self.basis.square().sum(1).clamp(min=MIN_STD**2)
        codes: Tensor = torch.einsum("nkdhw,ck->ncdhw", centred, self.basis / variances[:, None])
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Decode (N, C, D/4, H/4, W/4) to (N, 1, D, H, W)."""
        blocks = torch.einsum("ncdhw,ck->nkdhw", codes, self.basis) + self.mean.view(1, -1, 1, 1, 1)
        return join_blocks(blocks)


def split_blocks(values: Tensor) -> Tensor:
    """Split (N, 1, D, H, W) into blocks of 4 x 4 x 4: (N, 64, D/4, H/4, W/4)."""
    n, _, d, h, w = values.shape
    parts = values.reshape(n, d // FACTOR, FACTOR, h // FACTOR, FACTOR, w // FACTOR, FACTOR)
    return parts.permute(0, 2, 4, 6, 1, 3, 5).flatten(1, 3)


def join_blocks(blocks: Tensor) -> Tensor:
    """Undo `split_blocks`."""
    n, _, d, h, w = blocks.shape
    parts = blocks.reshape(n, FACTOR, FACTOR, FACTOR, d, h, w).permute(0, 4, 1, 5, 2, 6, 3)
    return parts.reshape(n, 1, d * FACTOR, h * FACTOR, w * FACTOR)


class Autoencoder(nn.Module):
    """Codes of volumes, four times smaller in each direction.

    Args:
        base_channels: channels of MONAI's network at full resolution; twice and four times as many below.
        blocks: residual blocks of each level.
        channels: C, of the codes.

    Attributes:
        intensities: how intensities in [0, 1] become the values that the network sees.
        lesion_contrast, roughness: what the trained autoencoder keeps of them (`quality.measure`), as
            shares; NaN where nothing could be measured.
    """

    def __init__(self, base_channels: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.intensities, self.linear = SqrtStandardisation(), BlockComponents(channels)
        net: Any = AutoencoderKL(
            spatial_dims=3,
            num_res_blocks=blocks,
            channels=[base_channels * 2**level for level in range(LEVELS)],
            attention_levels=[False] * LEVELS,
            latent_channels=channels,
            norm_num_groups=NUM_GROUPS,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        for last in (net.quant_conv_mu, net.quant_conv_log_sigma, net.decoder.blocks[-1]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        net.quant_conv_log_sigma.conv.bias.data.fill_(LOG_VARIANCE)
        self.net: AutoencoderKL = net
        self.register_buffer("lesion_contrast", torch.full((), torch.nan))
        self.register_buffer("roughness", torch.full((), torch.nan))
        self.lesion_contrast: Tensor
        self.roughness: Tensor

    def fit_statistics(self, volumes: Tensor) -> None:
        """Fit scaling and principal components to volumes (N, 1, D, H, W) in [0, 1]."""
        self.intensities.fit_statistics(volumes)
        self.linear.fit_statistics(self.intensities(volumes))

    def encode(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Give mean and standard deviation of the codes of values (N, 1, D, H, W)."""
        mean, std = self.net.encode(values)
        return self.linear.encode(values) + mean.float(), std.float()

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (N, C, D/4, H/4, W/4) to values (N, 1, D, H, W)."""
        values: Tensor = self.linear.decode(codes) + self.net.decode(codes).float()
        return values

    def forward(self, values: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Code values and decode them again.

        Args:
            values: (N, 1, D, H, W).
            noise: standard normal, in the shape of the codes.

        Returns:
            Reconstructed values, and mean and standard deviation of the codes.
        """
        mean, std = self.encode(values)
        return self.decode(mean + std * noise), mean, std
