"""Cutting of volumes into patches, as rows of tokens in the order in which a block predicts them."""

from __future__ import annotations

from torch import Tensor

Size = tuple[int, int, int]


class Patches:
    """Patches of one size that fill a volume.

    Shifted patches begin half a patch further along every axis that has several, and those at the end wrap
    around: the seams of one block lie in the middle of the other's patches.

    Args:
        grid: slices, rows, columns; multiples of the patch's.
        size: slices, rows, columns of a patch.
        shifted: whether patches are shifted.
        backward: whether the last patch comes first.
    """

    def __init__(self, grid: Size, size: Size, *, shifted: bool = False, backward: bool = False) -> None:
        self.grid, self.size, self.backward = grid, size, backward
        depth, rows, columns = (length // part for length, part in zip(grid, size, strict=True))
        self.counts = (depth, rows, columns)
        self.shift = tuple(
            part // 2 if shifted and count > 1 else 0 for part, count in zip(size, self.counts, strict=True)
        )

    def cut(self, volumes: Tensor) -> Tensor:
        """Cut volumes (N, 1, D, H, W) into tokens (N, T, P), one for each patch."""
        (a, b, c), (depth, rows, columns) = self.counts, self.size
        if any(self.shift):
            volumes = volumes.roll([-by for by in self.shift], (2, 3, 4))
        parts = volumes.reshape(len(volumes), a, depth, b, rows, c, columns)
        tokens = parts.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(volumes), a * b * c, depth * rows * columns)
        return tokens.flip(1) if self.backward else tokens

    def join(self, tokens: Tensor) -> Tensor:
        """Join what `cut` gave: volumes (N, 1, D, H, W)."""
        parts = (tokens.flip(1) if self.backward else tokens).reshape(len(tokens), *self.counts, *self.size)
        volumes = parts.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(tokens), 1, *self.grid)
        return volumes.roll(self.shift, (2, 3, 4)) if any(self.shift) else volumes
