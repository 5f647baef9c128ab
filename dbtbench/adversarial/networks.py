"""Generator and critic of DBT volumes: residual networks without normalisation, conditioned at every scale.

Both see every slice unshuffled: four channels of half the rows and columns, a quarter of the work. From there
they stride over rows and columns only. Sizes are changed by averages and linear interpolation, never by
strided or transposed convolutions, nor is what is drawn shuffled back: those leave a checkerboard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dbtbench.adversarial.recipe import CHANNEL_MULTIPLES, UNSHUFFLE
from dbtbench.closed_form.start import LinearStart
from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS
from dbtbench.networks.unet import pixel_unshuffle_2d

EMBEDDING = 16
FEATURES = 128
"""Features that the projection head compares with the embedding of label and projection."""
SLOPE = 0.2
DETAIL = 40.0
"""Factor of grain, which is far weaker than tissue, where a network is given it."""
CORRECTION = 0.05
"""Factor of what the generator adds to a draft: one step of Adam moves every voxel the same way, and would
otherwise move it a tenth of the window."""
SMALLEST_VARIANCE = 1e-4
"""Added to variances: the root of 0 has no slope."""


class ResidualBlock(nn.Module):
    """Two convolutions, over all neighbours and over the channels, that begin as the identity.

    No normalisation; the last convolution starts at 0 and the first is scaled down by the number of blocks
    (Fixup, Zhang et al., arXiv 1901.09321).

    Args:
        channels: of input and output.
        blocks: residual blocks of the whole network.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.near = nn.Conv3d(channels, channels, 3, padding=1)
        self.mix = nn.Conv3d(channels, channels, 1)
        nn.init.kaiming_normal_(self.near.weight, a=SLOPE)
        with torch.no_grad():
            self.near.weight.mul_(blocks**-0.5)
        nn.init.zeros_(self.mix.weight)
        for layer in (self.near, self.mix):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same."""
        residual: Tensor = self.mix(F.leaky_relu(self.near(F.leaky_relu(x, SLOPE)), SLOPE))
        return x + residual


class Encoder(nn.Module):
    """Features at every scale, from fine to coarse, with the lesion mask given to each.

    Args:
        inputs: channels of the volumes, before they are unshuffled.
        width: channels at the finest scale.
        blocks: residual blocks of each scale.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        channels = [width * multiple for multiple in CHANNEL_MULTIPLES]
        self.first = nn.Conv3d(inputs * UNSHUFFLE**2, width, 3, padding=1)
        self.mask = _make_mask_layers(channels)
        self.blocks = _make_blocks(channels, blocks)
        self.down = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairwise(channels))

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Encode volumes (N, inputs, D, H, W) with the masks of all scales."""
        h, features = self.first(pixel_unshuffle_2d(x, UNSHUFFLE)), []
        for scale, mask in enumerate(masks):
            if scale:
                h = self.down[scale - 1](F.avg_pool3d(h, (1, 2, 2)))
            h = self.blocks[scale](h + self.mask[scale](mask))
            features.append(h)
        return features


class Draft(NamedTuple):
    """The closed-form model's draw, in roots of intensities (N, 1, D, H, W).

    Attributes:
        smooth: mean, bumps and components.
        texture: to be added.
        bumps: those of the lesions alone.
    """

    smooth: Tensor
    texture: Tensor
    bumps: Tensor

    @classmethod
    @torch.no_grad()
    def draw(
        cls, start: LinearStart, code: Tensor, noise: Tensor, projection: Tensor, bumps: Tensor
    ) -> Draft:
        """Draw with a fitted model.

        Args:
            start: the model.
            code: (N, K) standard normal: weights of the principal components.
            noise: (N, 1, D, H, W) standard normal: the texture.
            projection: (N,) int.
            bumps: (N, 1, D, H, W) lesion bumps of the model.
        """
        smooth = start.mean[projection] + bumps + start.decode(code)
        return cls(smooth, start.add_texture(smooth, noise) - smooth, bumps)


class GeneratorNetwork(nn.Module):
    """The closed-form model's draw, corrected by a network: with the network's output at 0 it is that draw.

    Args:
        start: the closed-form model, not yet fitted.
        width: channels at the finest scale.
        blocks: residual blocks of each scale.
    """

    def __init__(self, start: LinearStart, width: int, blocks: int) -> None:
        super().__init__()
        self.start = start
        channels = [width * multiple for multiple in CHANNEL_MULTIPLES]
        code = len(start.components)
        self.label, self.projection = _make_embeddings(EMBEDDING)
        self.encoder = Encoder(4, width, blocks)
        self.code = nn.Linear(code + EMBEDDING, channels[-1])
        self.up = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(channels))
        self.mask = _make_mask_layers(channels[:-1])
        self.blocks = _make_blocks(channels[:-1], blocks)
        self.grain = nn.Conv3d(4, width, 3, padding=1)
        self.last = nn.Conv3d(width, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, draft: Draft, code: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Correct a draft.

        Args:
            draft: of whole volumes or of patches.
            code: (N, K) weights of the principal components that the draft has.
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W) lesion mask.

        Returns:
            (N, 1, D, H, W) roots of intensities, not clipped.
        """
        masks = shrink_mask(mask)
        given = torch.cat([draft.smooth, DETAIL * draft.texture, draft.bumps, mask], dim=1)
        *fine, h = self.encoder(given, masks)
        embedding = self.label(label) + self.projection(projection)
        h = h + self.code(torch.cat([code, embedding], dim=1))[:, :, None, None, None]
        for scale in reversed(range(len(fine))):
            h = F.interpolate(self.up[scale](h), scale_factor=(1, 2, 2), mode="trilinear")
            h = self.blocks[scale](h + fine[scale] + self.mask[scale](masks[scale]))
        h = F.interpolate(h, scale_factor=(1, UNSHUFFLE, UNSHUFFLE), mode="trilinear") + self.grain(given)
        roots: Tensor = draft.smooth + draft.texture + CORRECTION * self.last(F.leaky_relu(h, SLOPE))
        return roots


class Critic(nn.Module):
    """A score for each volume, given its conditioning, by a projection head (arXiv 1802.05637).

    It compares mean and standard deviation of the features of every scale over their cells: what a volume
    looks like nearby, anywhere. Without the second, and without the grain as an input of its own, it learns
    nothing of texture for a long time: averages of random features do not show it.

    Args:
        width: channels at the finest scale.
        blocks: residual blocks of each scale.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.encoder = Encoder(3, width, blocks)
        for block in self.encoder.modules():
            if isinstance(
                block, ResidualBlock
            ):  # grain, which averages to 0, is to be seen from the beginning
                nn.init.kaiming_normal_(block.mix.weight, a=SLOPE)
        self.features = nn.Linear(2 * width * sum(CHANNEL_MULTIPLES), FEATURES)
        self.label, self.projection = _make_embeddings(FEATURES)
        self.score = nn.Linear(FEATURES, 1)

    def forward(self, roots: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Score roots of intensities (N, 1, D, H, W), label (N,), projection (N,), mask as roots: (N,)."""
        near = F.avg_pool3d(F.pad(roots, (1,) * 6, mode="replicate"), 3, stride=1)
        given = torch.cat([2 * roots - 1, DETAIL * (roots - near), mask], dim=1)
        scales = self.encoder(given, shrink_mask(mask))
        moments = [moment for h in scales for moment in _measure_moments(F.leaky_relu(h, SLOPE))]
        features = F.leaky_relu(self.features(torch.cat(moments, dim=1)), SLOPE)
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
    masks = [F.max_pool3d(mask, (1, UNSHUFFLE, UNSHUFFLE))]
    for _ in CHANNEL_MULTIPLES[1:]:
        masks.append(F.max_pool3d(masks[-1], (1, 2, 2)))
    return masks


def _measure_moments(h: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all cells of (N, C, D, H, W): (N, C) each."""
    variance, mean = torch.var_mean(h, dim=(2, 3, 4), correction=0)
    return mean, (variance + SMALLEST_VARIANCE).sqrt()


def _make_embeddings(size: int) -> tuple[nn.Embedding, nn.Embedding]:
    """Embeddings of label and projection, for the null values, too."""
    return nn.Embedding(len(LABELS) + 1, size), nn.Embedding(len(PROJECTIONS) + 1, size)


def _make_mask_layers(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv3d(1, c, 1) for c in channels)


def _make_blocks(channels: Sequence[int], blocks: int) -> nn.ModuleList:
    total = len(channels) * blocks
    return nn.ModuleList(nn.Sequential(*(ResidualBlock(c, total) for _ in range(blocks))) for c in channels)
