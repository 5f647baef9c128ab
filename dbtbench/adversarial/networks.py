"""Generator and critic of DBT volumes: residual networks without normalisation, conditioned at every scale.

Both stride over rows and columns only. Sizes are changed by averages and linear interpolation, never by
strided or transposed convolutions: those leave a checkerboard at the skin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dbtbench.adversarial.recipe import CHANNEL_MULTIPLES, PLANE_FACTOR
from dbtbench.closed_form.start import LinearStart
from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS

EMBEDDING = 16
FEATURES = 128
"""Features that the projection head compares with the embedding of label and projection."""
SLOPE = 0.2


class ResidualBlock(nn.Module):
    """Two convolutions, in the plane and over the slices, that begin as the identity.

    No normalisation; the last convolution starts at 0 and the first is scaled down by the number of blocks
    (Fixup, Zhang et al., arXiv 1901.09321).

    Args:
        channels: of input and output.
        blocks: residual blocks of the whole network.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.plane = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.depth = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        nn.init.kaiming_normal_(self.plane.weight, a=SLOPE)
        with torch.no_grad():
            self.plane.weight.mul_(blocks**-0.5)
        nn.init.zeros_(self.depth.weight)
        for layer in (self.plane, self.depth):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same."""
        residual: Tensor = self.depth(F.leaky_relu(self.plane(F.leaky_relu(x, SLOPE)), SLOPE))
        return x + residual


class Encoder(nn.Module):
    """Features at every scale, from fine to coarse, with the lesion mask given to each.

    Args:
        inputs: channels of the volumes.
        width: channels at full resolution.
        blocks: residual blocks of each scale.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        channels = [width * multiple for multiple in CHANNEL_MULTIPLES]
        self.first = nn.Conv3d(inputs, width, (1, 3, 3), padding=(0, 1, 1))
        self.mask = _make_mask_layers(channels)
        self.blocks = _make_blocks(channels, blocks)
        self.down = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairwise(channels))

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Encode volumes (N, inputs, D, H, W) with the masks of all scales."""
        h, features = self.first(x), []
        for scale, mask in enumerate(masks):
            if scale:
                h = self.down[scale - 1](F.avg_pool3d(h, (1, 2, 2)))
            h = self.blocks[scale](h + self.mask[scale](mask))
            features.append(h)
        return features


class GeneratorNetwork(nn.Module):
    """The closed-form model's draw, corrected by a network: with the network's output at 0 it is that draw.

    Args:
        start: the closed-form model, not yet fitted.
        width: channels at full resolution.
        blocks: residual blocks of each scale.
    """

    def __init__(self, start: LinearStart, width: int, blocks: int) -> None:
        super().__init__()
        self.start = start
        channels = [width * multiple for multiple in CHANNEL_MULTIPLES]
        code = len(start.components)
        self.label, self.projection = _make_embeddings(EMBEDDING)
        self.encoder = Encoder(3, width, blocks)
        self.code = nn.Linear(code + EMBEDDING, channels[-1])
        self.up = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(channels))
        self.mask = _make_mask_layers(channels[:-1])
        self.blocks = _make_blocks(channels[:-1], blocks)
        self.last = nn.Conv3d(width, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(
        self, code: Tensor, noise: Tensor, label: Tensor, projection: Tensor, mask: Tensor, bumps: Tensor
    ) -> Tensor:
        """Draw roots of intensities, not clipped.

        Args:
            code: (N, K) standard normal: weights of the principal components.
            noise: (N, 1, D, H, W) standard normal: the texture.
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W) lesion mask.
            bumps: (N, 1, D, H, W) lesion bumps of the closed-form model.

        Returns:
            (N, 1, D, H, W).
        """
        smooth = self.start.mean[projection] + bumps + self.start.decode(code)
        draft = self.start.add_texture(smooth, noise)
        masks = shrink_mask(mask)
        *fine, h = self.encoder(torch.cat([smooth, draft - smooth, bumps], dim=1), masks)
        embedding = self.label(label) + self.projection(projection)
        h = h + self.code(torch.cat([code, embedding], dim=1))[:, :, None, None, None]
        for scale in reversed(range(len(fine))):
            h = F.interpolate(self.up[scale](h), scale_factor=(1, 2, 2), mode="trilinear")
            h = self.blocks[scale](h + fine[scale] + self.mask[scale](masks[scale]))
        roots: Tensor = draft + self.last(F.leaky_relu(h, SLOPE))
        return roots


class Critic(nn.Module):
    """A score for each volume, given its conditioning, by a projection head (arXiv 1802.05637).

    Args:
        grid: slices, rows, columns.
        width: channels at full resolution.
        blocks: residual blocks of each scale.
    """

    def __init__(self, grid: tuple[int, int, int], width: int, blocks: int) -> None:
        super().__init__()
        cells = grid[0] * (grid[1] // PLANE_FACTOR) * (grid[2] // PLANE_FACTOR)
        self.encoder = Encoder(2, width, blocks)
        self.narrow = nn.Conv3d(width * CHANNEL_MULTIPLES[-1], 2 * width, 1)
        self.features = nn.Linear(2 * width * cells, FEATURES)
        self.label, self.projection = _make_embeddings(FEATURES)
        self.score = nn.Linear(FEATURES, 1)

    def forward(self, roots: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Score roots of intensities (N, 1, D, H, W), label (N,), projection (N,), mask as roots: (N,)."""
        h = self.encoder(torch.cat([2 * roots - 1, mask], dim=1), shrink_mask(mask))[-1]
        features = self.features(self.narrow(F.leaky_relu(h, SLOPE)).flatten(1))
        embedding = self.label(label) + self.projection(projection)
        scores: Tensor = self.score(features)[:, 0] + (features * embedding).sum(dim=1) / math.sqrt(FEATURES)
        return scores


def clip_roots(roots: Tensor) -> Tensor:
    """Clip roots to [0, 1] as they are stored, with the gradient of no clipping.

    Air is exactly 0 in real volumes. The critic must see it so in drawn ones, else it tells them by that
    alone; and the generator must still learn where its air should have been tissue.
    """
    return roots + (roots.clamp(0, 1) - roots).detach()


def shrink_mask(mask: Tensor) -> list[Tensor]:
    """Shrink a lesion mask (N, 1, D, H, W) to every scale, each the maximum over its voxels."""
    masks = [mask]
    for _ in CHANNEL_MULTIPLES[1:]:
        masks.append(F.max_pool3d(masks[-1], (1, 2, 2)))
    return masks


def _make_embeddings(size: int) -> tuple[nn.Embedding, nn.Embedding]:
    """Embeddings of label and projection, for the null values, too."""
    return nn.Embedding(len(LABELS) + 1, size), nn.Embedding(len(PROJECTIONS) + 1, size)


def _make_mask_layers(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv3d(1, c, 1) for c in channels)


def _make_blocks(channels: Sequence[int], blocks: int) -> nn.ModuleList:
    total = len(channels) * blocks
    return nn.ModuleList(nn.Sequential(*(ResidualBlock(c, total) for _ in range(blocks))) for c in channels)
