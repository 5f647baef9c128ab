"""Augmentation of what the critic sees, real and drawn alike (DiffAugment, Zhao et al., arXiv 2006.10738).

With a few hundred volumes a critic soon knows each by heart. It is given moved, cut and rescaled ones, so
that it cannot; gradients flow through the changes to the generator, which therefore learns to draw unchanged
volumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT = 0.125
"""Largest shift, as a share of rows and columns."""
CUTOUT = 0.25
"""Side of the square that is cut out of all slices, as a share of rows and columns."""
CONTRAST = 0.2
"""Largest change of the contrast; air stays 0."""


@dataclass(frozen=True)
class Changes:
    """Random changes of N volumes.

    Attributes:
        shift: (N, 2) int, in rows and columns.
        cutout: (N, 2) int, first row and column of the square that is cut out.
        contrast: (N,) factor of the values.
    """

    shift: Tensor
    cutout: Tensor
    contrast: Tensor

    @classmethod
    def draw(cls, batch: int, plane: tuple[int, int], generator: torch.Generator) -> Changes:
        """Draw the changes of a whole batch.

        Args:
            batch: number of volumes.
            plane: rows, columns.
            generator: of the random numbers, on the device that the volumes will be on.
        """
        device = generator.device
        size = torch.tensor(plane, device=device)
        shift = (2 * torch.rand(batch, 2, generator=generator, device=device) - 1) * SHIFT * size
        cutout = torch.rand(batch, 2, generator=generator, device=device) * size * (1 - CUTOUT)
        contrast = 1 + CONTRAST * (2 * torch.rand(batch, generator=generator, device=device) - 1)
        return cls(shift.round().long(), cutout.long(), contrast)

    def part(self, rows: slice) -> Changes:
        """Take some rows."""
        return Changes(self.shift[rows], self.cutout[rows], self.contrast[rows])

    def apply(self, volumes: Tensor, lesion_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Change volumes and their lesion masks, both (N, 1, D, H, W); the mask keeps its contrast.

        What is moved in from outside, and what is cut out, is 0 in both.
        """
        contrast = self.contrast.view(-1, 1, 1, 1, 1)
        both = self._cut(self._move(torch.cat([volumes * contrast, lesion_mask], dim=1)))
        return both[:, :1], both[:, 1:]

    def _move(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, inside_rows = _source(self.shift[:, 0], height)
        columns, inside_columns = _source(self.shift[:, 1], width)
        n, c, d = images.shape[:3]
        moved = images.gather(-2, rows.view(n, 1, 1, height, 1).expand(n, c, d, height, width))
        moved = moved.gather(-1, columns.view(n, 1, 1, 1, width).expand(n, c, d, height, width))
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        return moved * inside[:, None, None]

    def _cut(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows = _within(self.cutout[:, 0], height)
        columns = _within(self.cutout[:, 1], width)
        return images * ~(rows[:, :, None] & columns[:, None, :])[:, None, None]


def _source(shift: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find where each of `size` positions comes from after a shift (N,): (N, size), and if it is inside."""
    source = torch.arange(size, device=shift.device) - shift[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def _within(first: Tensor, size: int) -> Tensor:
    """Find which of `size` positions lie in the square that begins at `first` (N,): (N, size) bool."""
    position = torch.arange(size, device=first.device) - first[:, None]
    return (position >= 0) & (position < CUTOUT * size)
