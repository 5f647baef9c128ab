"""Networks of the VAE: what they add to the linear model. Untrained, both add nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS
from dbtbench.networks.unet import ResidualBlock, pixel_shuffle_2d, pixel_unshuffle_2d


class Embedding(nn.Module):
    """Embedding of label, projection and global code.

    Args:
        channels: channels of the embedding.
        code: numbers of the global code.
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.label = nn.Embedding(len(LABELS) + 1, channels)
        self.projection = nn.Embedding(len(PROJECTIONS) + 1, channels)
        self.mlp = nn.Sequential(nn.Linear(code, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, label: Tensor, projection: Tensor, code: Tensor) -> Tensor:
        """Embed (N,), (N,) and (N, K) to (N, channels)."""
        embedded: Tensor = self.label(label) + self.projection(projection) + self.mlp(code)
        return embedded


class LocalEncoder(nn.Module):
    """Reads the local code from a volume: what the decoder cannot know by the global one.

    Args:
        channels: channels of the first level; the second has twice as many.
        unshuffle: factor of the pixel-unshuffle of every slice.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
        code: numbers of the global code, K.
        local_channels: numbers of the local code at each cell, C.
    """

    def __init__(
        self, channels: int, unshuffle: int, factorised: bool, code: int, local_channels: int
    ) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        embedded = 4 * channels
        self.embedding = Embedding(embedded, code)
        self.in_conv = nn.Conv3d(2 * unshuffle**2, channels, (1, 3, 3), padding="same")
        self.block1 = ResidualBlock(channels, channels, embedded, factorised)
        self.down = nn.Conv3d(channels, 2 * channels, (1, 2, 2), (1, 2, 2))
        self.block2 = ResidualBlock(2 * channels, 2 * channels, embedded, factorised)
        self.read = nn.Conv3d(2 * channels, 2 * local_channels, 1)
        for parameter in self.read.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, rest: Tensor, label: Tensor, projection: Tensor, mask: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode what the components leave of a volume.

        Args:
            rest: (N, 1, D, H, W), of variance about 1.
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W).
            code: (N, K) weights of the components.

        Returns:
            Mean and log variance, both (N, C, D, h, w); 0 while untrained.
        """
        embedding = self.embedding(label, projection, code)
        h = self.in_conv(pixel_unshuffle_2d(torch.cat([rest, mask], dim=1), self.unshuffle))
        h = self.block2(self.down(self.block1(h, embedding)), embedding)
        mean, log_variance = self.read(h).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Corrects the linear image of a code, of which a sum of outlines is no outline.

    Args:
        channels: channels of the first level; the second has twice as many.
        blocks: residual blocks of each level.
        unshuffle: factor of the pixel-unshuffle of every slice.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
        code: numbers of the global code, K.
        local_channels: numbers of the local code at each cell, C; 0 for none.
    """

    def __init__(
        self, channels: int, blocks: int, unshuffle: int, factorised: bool, code: int, local_channels: int
    ) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        embedded = 4 * channels
        self.embedding = Embedding(embedded, code)

        def make_blocks(count: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, width, embedded, factorised) for _ in range(count))

        self.in_conv = nn.Conv3d(3 * unshuffle**2, channels, 3, padding="same")
        self.down = nn.Conv3d(channels, 2 * channels, (1, 2, 2), (1, 2, 2))
        self.write_local = nn.Conv3d(local_channels, 2 * channels, 1) if local_channels else None
        self.first, self.middle = make_blocks(blocks, channels), make_blocks(blocks, 2 * channels)
        self.last = make_blocks(blocks, channels)
        self.up = nn.Conv3d(2 * channels, 4 * channels, 1)  # depth to space
        self.merge = nn.Conv3d(2 * channels, channels, 1)
        self.out_conv = nn.Conv3d(channels, unshuffle**2, 1)
        for parameter in self.out_conv.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        image: Tensor,
        mean: Tensor,
        label: Tensor,
        projection: Tensor,
        mask: Tensor,
        code: Tensor,
        local: Tensor | None,
    ) -> Tensor:
        """Compute the correction.

        Args:
            image: (N, 1, D, H, W) linear image: mean and components.
            mean: (N, 1, D, H, W) mean and lesion bumps.
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W).
            code: (N, K) global code.
            local: (N, C, D, h, w) local code.

        Returns:
            (N, 1, D, H, W), in units of the deviation that is usual at the image's grey level.
        """
        embedding = self.embedding(label, projection, code)
        h = self.in_conv(pixel_unshuffle_2d(torch.cat([image, mean, mask], dim=1), self.unshuffle))
        for block in self.first:
            h = block(h, embedding)
        skip, h = h, self.down(h)
        if self.write_local is not None:
            h = h + self.write_local(local)
        for block in self.middle:
            h = block(h, embedding)
        h = self.merge(torch.cat([pixel_shuffle_2d(self.up(h), 2), skip], dim=1))
        for block in self.last:
            h = block(h, embedding)
        correction: Tensor = pixel_shuffle_2d(self.out_conv(h), self.unshuffle)
        return correction
