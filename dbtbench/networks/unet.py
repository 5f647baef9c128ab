"""The paper's 3-D U-Net, small and configurable; slices are never strided away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8
HEADS, HEAD_CHANNELS = 4, 32
Kernel = tuple[int, int, int]


class WeightStandardisedConv3d(nn.Conv3d):
    """3-D convolution whose filters have mean 0 and variance 1 (Qiao et al., arXiv 1903.10520).

    The statistics are in float32 whatever the weights are in: in half precision they overflow. The
    epsilon is that of Kolesnikov et al. (arXiv 1912.11370): small against the variance of wide filters.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, D, H, W) to (N, out, D, H, W)."""
        y: Tensor = self._conv_forward(x, self.standardised().to(x.dtype), self.bias)
        return y

    def standardised(self) -> Tensor:
        """The filters that are used: (out, in, kD, kH, kW) float32."""
        weight = self.weight.float()
        variance, mean = torch.var_mean(weight, (1, 2, 3, 4), correction=0, keepdim=True)
        return (weight - mean) * torch.rsqrt(variance + 1e-10)


def sinusoidal(t: Tensor, channels: int) -> Tensor:
    """Sinusoidal embedding of time (Vaswani et al., arXiv 1706.03762).

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
        inside: channels that come in.
        outside: channels that go out.
        embedding: channels of the embedding.
        factorised: 1x3x3 then 3x1x1 convolutions instead of two 3x3x3.
    """

    def __init__(self, inside: int, outside: int, embedding: int, factorised: bool) -> None:
        super().__init__()
        kernels: tuple[Kernel, Kernel] = ((1, 3, 3), (3, 1, 1)) if factorised else ((3, 3, 3), (3, 3, 3))
        self.conv1 = WeightStandardisedConv3d(inside, outside, kernels[0], padding="same")
        self.conv2 = WeightStandardisedConv3d(outside, outside, kernels[1], padding="same")
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, outside), nn.GroupNorm(GROUPS, outside)
        self.scale_shift = nn.Linear(embedding, 2 * outside)
        self.skip = nn.Conv3d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, inside, D, H, W) and (N, embedding) to (N, outside, D, H, W)."""
        scale, shift = self.scale_shift(F.silu(embedding))[:, :, None, None, None].chunk(2, dim=1)
        h = F.silu(self.norm1(self.conv1(x)) * (scale + 1) + shift)
        h = F.silu(self.norm2(self.conv2(h)))
        skipped: Tensor = self.skip(x)
        return skipped + h


class Attention(nn.Module):
    """Residual self-attention over all voxels: full, or linear (Shen et al., arXiv 1812.01243).

    Args:
        channels: channels in and out.
        linear: cost linear in the number of voxels, with a normalised output.
    """

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv3d(channels, 3 * HEADS * HEAD_CHANNELS, 1, bias=False)
        self.out = nn.Conv3d(HEADS * HEAD_CHANNELS, channels, 1)
        self.out_norm = nn.GroupNorm(1, channels) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, D, H, W) to the same shape."""
        tokens = self.qkv(self.norm(x)).flatten(2)
        q, k, v = tokens.unflatten(1, (3, HEADS, HEAD_CHANNELS)).transpose(-1, -2).unbind(1)
        if self.linear:
            # (N, heads, voxels, channels): the keys' context is channels x channels, whatever the size.
            context = k.softmax(dim=-2).transpose(-1, -2) @ v
            attended = (q.softmax(dim=-1) * HEAD_CHANNELS**-0.5) @ context
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        merged = attended.transpose(-1, -2).flatten(1, 2).unflatten(-1, x.shape[2:])
        added: Tensor = self.out_norm(self.out(merged))
        return x + added


class Level(nn.Module):
    """One resolution, on the way down or up: residual blocks, linear attention, a change of size.

    Args:
        blocks: the residual blocks; on the way up each also takes what a block on the way down gave.
        attention: after them.
        resize: last.
        up: on the way up.
    """

    def __init__(
        self, blocks: Sequence[ResidualBlock], attention: nn.Module, resize: nn.Module, up: bool
    ) -> None:
        super().__init__()
        self.blocks, self.attention, self.resize, self.up = nn.ModuleList(blocks), attention, resize, up

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Run the level; `skips` is a stack that the way down fills and the way up empties."""
        for block in self.blocks:
            if self.up:
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            else:
                x = block(x, embedding)
                skips.append(x)
        resized: Tensor = self.resize(self.attention(x))
        return resized


class UNet(nn.Module):
    """Predicts a diffusion target from noisy volumes, time, labels, projections and a mask of boxes.

    Args:
        dim: channels of the first level.
        mults: channels of each level, in units of `dim`; the plane is halved between levels.
        blocks: residual blocks a level.
        unshuffle: the plane is folded this many times each way into channels before the first level.
        factorised: 1x3x3 and 3x1x1 convolutions instead of 3x3x3.
        labels: number of labels; one more embedding stands for "not told".
        projections: number of projections; likewise.
    """

    def __init__(
        self,
        dim: int,
        mults: Sequence[int],
        blocks: int,
        unshuffle: int,
        factorised: bool,
        labels: int,
        projections: int,
    ) -> None:
        super().__init__()
        embedding = 4 * dim
        self.dim, self.unshuffle = dim, unshuffle
        self.time = nn.Sequential(nn.Linear(dim, embedding), nn.GELU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(labels + 1, embedding)
        self.projection = nn.Embedding(projections + 1, embedding)
        kernel = (1, 7, 7) if unshuffle == 1 else (1, 3, 3)
        self.first = nn.Conv3d(2 * unshuffle**2, dim, kernel, padding="same")

        def block(inside: int, outside: int) -> ResidualBlock:
            return ResidualBlock(inside, outside, embedding, factorised)

        widths = [dim, *(dim * m for m in mults)]
        down, up = [], []
        for i, (narrow, wide) in enumerate(pairwise(widths)):
            shrink = _same_size(narrow, wide) if i == len(mults) - 1 else _halved(narrow, wide)
            grow = _same_size(wide, narrow) if i == 0 else _doubled(wide, narrow)
            down.append(
                Level([block(narrow, narrow) for _ in range(blocks)], _attention(narrow, i), shrink, False)
            )
            up.append(
                Level([block(wide + narrow, wide) for _ in range(blocks)], _attention(wide, i), grow, True)
            )
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        self.before, self.after = block(widths[-1], widths[-1]), block(widths[-1], widths[-1])
        self.attention = Attention(widths[-1], linear=False)
        self.final = block(2 * dim, dim)
        self.out = nn.Conv3d(dim, unshuffle**2, 1)
        # The mask is known to the voxel: passed on in proportion, narrow levels need not carry it.
        self.gain = nn.Linear(embedding, 1)
        for parameter in (*self.out.parameters(), *self.gain.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Predict the target.

        Args:
            x: (N, 1, D, H, W) noisy volumes; H and W are multiples of `unshuffle * 2 ** (levels - 1)`.
            t: (N,) float, time in [0, 1].
            label: (N,) int; `labels` where it is not told.
            projection: (N,) int; `projections` where it is not told.
            mask: (N, 1, D, H, W), 0 to 1 where lesions are wanted; -1 everywhere where it is not told.

        Returns:
            (N, 1, D, H, W).
        """
        embedding = (
            self.time(sinusoidal(1000 * t, self.dim)) + self.label(label) + self.projection(projection)
        )
        h = first = self.first(fold(torch.cat([x, mask], dim=1), self.unshuffle))
        skips: list[Tensor] = []
        for level in self.down:
            h = level(h, embedding, skips)
        h = self.after(self.attention(self.before(h, embedding)), embedding)
        for level in self.up:
            h = level(h, embedding, skips)
        h = self.final(torch.cat([h, first], dim=1), embedding)
        gain = self.gain(F.silu(embedding))[:, :, None, None, None]
        predicted: Tensor = unfold(self.out(h), self.unshuffle) + gain * mask.relu()
        return predicted


def fold(x: Tensor, factor: int) -> Tensor:
    """Pixel-unshuffle of every slice: (N, C, D, H, W) to (N, C * factor**2, D, H / factor, W / factor)."""
    slices = F.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), factor)
    return slices.view(x.shape[0], x.shape[2], *slices.shape[1:]).transpose(1, 2)


def unfold(x: Tensor, factor: int) -> Tensor:
    """Undo `fold`."""
    slices = F.pixel_shuffle(x.transpose(1, 2).flatten(0, 1), factor)
    return slices.view(x.shape[0], x.shape[2], *slices.shape[1:]).transpose(1, 2)


def _attention(channels: int, level: int) -> nn.Module:
    """Linear attention; none at the first level, where most of its cost would be."""
    return Attention(channels, linear=True) if level else nn.Identity()


def _same_size(inside: int, outside: int) -> nn.Module:
    return nn.Conv3d(inside, outside, 3, padding=1)


def _halved(inside: int, outside: int) -> nn.Module:
    return nn.Conv3d(inside, outside, (1, 4, 4), (1, 2, 2), (0, 1, 1))


def _doubled(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(_same_size(inside, outside), nn.Upsample(scale_factor=(1, 2, 2)))
