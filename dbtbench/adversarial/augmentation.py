"""Patches that both networks see, and their contrast: what keeps a critic from knowing each volume by heart.

With a few hundred volumes a critic soon knows each of them. It is given a patch of all slices at a random
place, with a random contrast, of real and drawn volumes alike (DiffAugment, Zhao et al., arXiv 2006.10738);
gradients flow through the change of contrast to the generator, which therefore learns to draw unchanged ones.
The generator is convolutional: it draws patches in training and whole volumes afterwards. A step then costs
the same on every grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CONTRAST = 0.2
"""Largest change of the contrast; air stays 0."""


@dataclass(frozen=True)
class Patches:
    """Random places and contrasts of N volumes.

    Attributes:
        first: (N, 2) int, first row and column.
        size: rows and columns.
        contrast: (N,) factor of the values.
    """

    first: Tensor
    size: tuple[int, int]
    contrast: Tensor

    @classmethod
    def draw(cls, centres: Tensor, plane: tuple[int, int], size: int, generator: torch.Generator) -> Patches:
        """Draw the patches of a whole batch, each place as likely as another.

        Args:
            centres: (N, 2) row and column that the patch must show, on the generator's device; NaN for none.
            plane: rows, columns of the volumes.
            size: wanted rows and columns; a smaller plane is taken whole.
            generator: of the random numbers.
        """
        rows, columns = min(size, plane[0]), min(size, plane[1])
        patch = torch.tensor((rows, columns), device=generator.device)
        last = torch.tensor(plane, device=generator.device) - patch
        low = (centres - patch + 1).nan_to_num(0).clamp(min=0).minimum(last)
        high = centres.nan_to_num(torch.inf).minimum(last)
        share = torch.rand(len(centres), 2, generator=generator, device=generator.device)
        contrast = torch.rand(len(centres), generator=generator, device=generator.device)
        first = (low + share * (high - low)).round().long()
        return cls(first, (rows, columns), 1 + CONTRAST * (2 * contrast - 1))

    def part(self, rows: slice) -> Patches:
        """Take some rows."""
        return Patches(self.first[rows], self.size, self.contrast[rows])

    def cut(self, volumes: Tensor) -> Tensor:
        """Cut the patches out of volumes (N, C, D, H, W): (N, C, D, *size)."""
        height, width = self.size
        corners = zip(volumes, self.first.tolist(), strict=True)
        return torch.stack([one[..., y : y + height, x : x + width] for one, (y, x) in corners])

    def change_contrast(self, volumes: Tensor) -> Tensor:
        """Change the contrast of volumes (N, 1, D, H, W)."""
        return volumes * self.contrast.view(-1, 1, 1, 1, 1)
