"""The paper's 3-D U-Net, small and configurable; slices are never strided away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dbtbench.networks.names import NUM_GROUPS

NUM_HEADS, HEAD_CHANNELS = 4, 32
Kernel = tuple[int, int, int]


class WeightStandardisedConv3d(nn.Conv3d):
    """3-D convolution with filters of mean 0 and variance 1 (Qiao et al., arXiv 1903.10520).

    The statistics are always computed in float32, because they overflow in half precision. The epsilon is
    that of Kolesnikov et al. (arXiv 1912.11370): small against the variance of wide filters.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, in_channels, D, H, W) to (N, out_channels, D, H, W)."""
        y: Tensor = self._conv_forward(x, self.standardised_weight().to(x.dtype), self.bias)
        return y

    def standardised_weight(self) -> Tensor:
        """Compute the standardised filters: (out_channels, in_channels, kD, kH, kW) float32."""
        weight = self.weight.float()
        variance, mean = torch.var_mean(weight, (1, 2, 3, 4), correction=0, keepdim=True)
        return (weight - mean) * torch.rsqrt(variance + 1e-10)


def sinusoidal_embedding(t: Tensor, channels: int) -> Tensor:
    """Compute the sinusoidal embedding of time (Vaswani et al., arXiv 1706.03762).

    Args:
        t: (N,) in [0, 1000].
        channels: even number of channels.

    Returns:
        (N, channels) float32 in [-1, 1].
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """Two weight-standardised convolutions with GroupNorm; the embedding scales and shifts in between.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_channels: channels of the embedding.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding_channels: int, factorised: bool
    ) -> None:
        super().__init__()
        kernels: tuple[Kernel, Kernel] = ((1, 3, 3), (3, 1, 1)) if factorised else ((3, 3, 3), (3, 3, 3))
        self.conv1 = WeightStandardisedConv3d(in_channels, out_channels, kernels[0], padding="same")
        self.conv2 = WeightStandardisedConv3d(out_channels, out_channels, kernels[1], padding="same")
        self.norm1, self.norm2 = (
            nn.GroupNorm(NUM_GROUPS, out_channels),
            nn.GroupNorm(NUM_GROUPS, out_channels),
        )
        self.scale_shift = nn.Linear(embedding_channels, 2 * out_channels)
        self.skip = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (N, in_channels, D, H, W) and (N, embedding_channels) to (N, out_channels, D, H, W)."""
        scale, shift = self.scale_shift(F.silu(embedding))[:, :, None, None, None].chunk(2, dim=1)
        h = F.silu(self.norm1(self.conv1(x)) * (scale + 1) + shift)
        h = F.silu(self.norm2(self.conv2(h)))
        skip: Tensor = self.skip(x)
        return skip + h


class Attention(nn.Module):
    """Residual self-attention over all voxels: full, or linear (Shen et al., arXiv 1812.01243).

    Args:
        channels: channels of the input and the output.
        linear: linear attention, with a normalised output; its cost is linear in the number of voxels.
    """

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv3d(channels, 3 * NUM_HEADS * HEAD_CHANNELS, 1, bias=False)
        self.out = nn.Conv3d(NUM_HEADS * HEAD_CHANNELS, channels, 1)
        self.out_norm = nn.GroupNorm(1, channels) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Attend over (N, channels, D, H, W); same shape."""
        tokens = self.qkv(self.norm(x)).flatten(2)
        q, k, v = tokens.unflatten(1, (3, NUM_HEADS, HEAD_CHANNELS)).transpose(-1, -2).unbind(1)
        if self.linear:
            # q, k, v are (N, heads, voxels, channels); the context is channels x channels at any volume size.
            context = k.softmax(dim=-2).transpose(-1, -2) @ v
            attended = (q.softmax(dim=-1) * HEAD_CHANNELS**-0.5) @ context
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        merged = attended.transpose(-1, -2).flatten(1, 2).unflatten(-1, x.shape[2:])
        residual: Tensor = self.out_norm(self.out(merged))
        return x + residual


class Level(nn.Module):
    """One resolution of the encoder or decoder: residual blocks, linear attention, resampling.

    Args:
        blocks: residual blocks; each block of a decoder level also gets the output of an encoder block.
        attention: applied after the blocks.
        resample: applied last.
        up: whether it is a level of the decoder.
    """

    def __init__(
        self, blocks: Sequence[ResidualBlock], attention: nn.Module, resample: nn.Module, up: bool
    ) -> None:
        super().__init__()
        self.blocks, self.attention, self.resample = nn.ModuleList(blocks), attention, resample
        self.up = up

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Run the level; `skips` is a stack that the encoder fills and the decoder empties."""
        for block in self.blocks:
            if self.up:
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            else:
                x = block(x, embedding)
                skips.append(x)
        resampled: Tensor = self.resample(self.attention(x))
        return resampled


class UNet(nn.Module):
    """3-D U-Net that predicts a diffusion target from x_t, time, label, projection and lesion mask.

    Args:
        base_channels: channels of the first level.
        channel_mults: channels of each level, in units of `base_channels`; rows and columns are halved
            between levels, slices are not.
        num_res_blocks: residual blocks of each level.
        unshuffle: factor of the pixel-unshuffle of every slice before the first level.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
        num_labels: number of labels; one more embedding is that of the null label.
        num_projections: number of projections; one more embedding is that of the null projection.
        channels: C, of x_t: 1 for intensities, more for the latents of an autoencoder.
        num_changes: numbers that say how a training volume was changed; 0 for a network that is given none.
    """

    def __init__(
        self,
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        unshuffle: int,
        factorised: bool,
        num_labels: int,
        num_projections: int,
        channels: int = 1,
        num_changes: int = 0,
    ) -> None:
        super().__init__()
        embedding_channels = 4 * base_channels
        self.base_channels, self.unshuffle = base_channels, unshuffle
        self.time_mlp = nn.Sequential(
            nn.Linear(base_channels, embedding_channels),
            nn.GELU(),
            nn.Linear(embedding_channels, embedding_channels),
        )
        self.label_embedding = nn.Embedding(num_labels + 1, embedding_channels)
        self.projection_embedding = nn.Embedding(num_projections + 1, embedding_channels)
        kernel = (1, 7, 7) if unshuffle == 1 else (1, 3, 3)
        self.in_conv = nn.Conv3d((channels + 1) * unshuffle**2, base_channels, kernel, padding="same")

        def block(in_channels: int, out_channels: int) -> ResidualBlock:
            return ResidualBlock(in_channels, out_channels, embedding_channels, factorised)

        widths = [base_channels, *(base_channels * mult for mult in channel_mults)]
        deepest = widths[-1]
        down, up = [], []
        for i, (shallow, deep) in enumerate(pairwise(widths)):
            # The order in which layers are made decides their initial weights.
            shrink = _conv(shallow, deep) if i == len(channel_mults) - 1 else _downsample(shallow, deep)
            grow = _conv(deep, shallow) if i == 0 else _upsample(deep, shallow)
            encoder = [block(shallow, shallow) for _ in range(num_res_blocks)]
            down.append(Level(encoder, _level_attention(shallow, i), shrink, up=False))
            decoder = [block(deep + shallow, deep) for _ in range(num_res_blocks)]
            up.append(Level(decoder, _level_attention(deep, i), grow, up=True))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        self.mid_block1, self.mid_block2 = block(deepest, deepest), block(deepest, deepest)
        self.mid_attention = Attention(deepest, linear=False)
        self.final_block = block(2 * base_channels, base_channels)
        self.out_conv = nn.Conv3d(base_channels, channels * unshuffle**2, 1)
        # The mask is known at full resolution. Added in proportion, it need not pass through narrow levels.
        self.mask_gain = nn.Linear(embedding_channels, channels)
        for parameter in (*self.out_conv.parameters(), *self.mask_gain.parameters()):
            nn.init.zeros_(parameter)
        # Made last, and without a bias: it changes neither other weights nor what is drawn without changes.
        self.change_embedding = (
            nn.Linear(num_changes, embedding_channels, bias=False) if num_changes else None
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor,
        projection: Tensor,
        mask: Tensor,
        changes: Tensor | None = None,
    ) -> Tensor:
        """Predict the target.

        Args:
            x: x_t, (N, C, D, H, W); H and W are multiples of `unshuffle * 2 ** (levels - 1)`.
            t: (N,) float, time in [0, 1].
            label: (N,) int; `num_labels` is the null label.
            projection: (N,) int; `num_projections` is the null projection.
            mask: (N, 1, D, H, W), 0 to 1 where lesions are wanted; -1 everywhere is the null mask.
            changes: (N, num_changes) how training volumes were changed; None for volumes as they are.

        Returns:
            (N, C, D, H, W).
        """
        embedding = self.time_mlp(sinusoidal_embedding(1000 * t, self.base_channels))
        embedding = embedding + self.label_embedding(label) + self.projection_embedding(projection)
        if changes is not None and self.change_embedding is not None:
            embedding = embedding + self.change_embedding(changes)
        h = first = self.in_conv(pixel_unshuffle_2d(torch.cat([x, mask], dim=1), self.unshuffle))
        skips: list[Tensor] = []
        for level in self.down:
            h = level(h, embedding, skips)
        h = self.mid_block2(self.mid_attention(self.mid_block1(h, embedding)), embedding)
        for level in self.up:
            h = level(h, embedding, skips)
        h = self.final_block(torch.cat([h, first], dim=1), embedding)
        gain = self.mask_gain(F.silu(embedding))[:, :, None, None, None]
        predicted: Tensor = pixel_shuffle_2d(self.out_conv(h), self.unshuffle) + gain * mask.relu()
        return predicted


def pixel_unshuffle_2d(x: Tensor, factor: int) -> Tensor:
    """Unshuffle every slice: (N, C, D, H, W) to (N, C * factor**2, D, H / factor, W / factor)."""
    slices = F.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), factor)
    return slices.view(x.shape[0], x.shape[2], *slices.shape[1:]).transpose(1, 2)


def pixel_shuffle_2d(x: Tensor, factor: int) -> Tensor:
    """Undo `pixel_unshuffle_2d`."""
    slices = F.pixel_shuffle(x.transpose(1, 2).flatten(0, 1), factor)
    return slices.view(x.shape[0], x.shape[2], *slices.shape[1:]).transpose(1, 2)


def _level_attention(channels: int, level: int) -> nn.Module:
    """Make linear attention; none at the first level, where it would cost most."""
    return Attention(channels, linear=True) if level else nn.Identity()


def _conv(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv3d(in_channels, out_channels, 3, padding=1)


def _downsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv3d(in_channels, out_channels, (1, 4, 4), (1, 2, 2), (0, 1, 1))


def _upsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, out_channels), nn.Upsample(scale_factor=(1, 2, 2)))
