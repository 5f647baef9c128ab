"""Augmentation on the fly: every volume of a batch is flipped, moved and shaded, otherwise at every step.

Strengths are those of the `classic` generator and of nnDetection's and MONAI's detection recipes, as far as
a breast allows them. As there, volumes are mirrored in depth, too: few lesions lie at few depths.

A generator must not draw changed volumes. It is given the changes in training, as numbers that are 0 for a
volume as it is (`Changes.labels`), and draws with zeros (Karras et al., arXiv 2206.00364, app. F.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

FLIP = 0.5
DEGREES = 8.0
SCALE = 0.1
SHIFT = 0.05
GAMMA = 0.15
BLUR = 0.5
NOISE = 0.02
NUM_LABELS = 7
"""Numbers that say how a volume was changed, for a generator."""
VISIBLE = 0.5
"""Share of a lesion's box, in the plane, that must stay in view."""


@dataclass(frozen=True)
class Changes:
    """Random changes of the volumes of a batch; each field has one row a volume.

    Attributes:
        flip: (N, 3) bool: left to right, upside down, the last slice first.
        turn: (N,) angle in the plane, in radians.
        scale: (N,) factor of the size in the plane.
        shift: (N, 2) shift in rows and columns, as a share of them.
        gamma: (N,) exponent of the intensities.
        blur: (N,) standard deviation of a Gaussian in the plane, in voxels.
        noise: (N, 1, D, H, W) noise that is added where there is tissue.
    """

    flip: Tensor
    turn: Tensor
    scale: Tensor
    shift: Tensor
    gamma: Tensor
    blur: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, batch: int, grid: tuple[int, int, int], generator: torch.Generator) -> Changes:
        """Draw the changes of a whole batch.

        Args:
            batch: number of volumes.
            grid: slices, rows, columns.
            generator: of the random numbers, on the device that the volumes will be on.
        """
        device = generator.device

        def within(limit: float, *shape: int) -> Tensor:
            return limit * (2 * torch.rand(batch, *shape, generator=generator, device=device) - 1)

        flip = torch.rand(batch, 3, generator=generator, device=device) < FLIP
        turn, scale, shift = within(DEGREES).deg2rad(), 1 + within(SCALE), within(SHIFT, 2)
        gamma, blur, strength = within(GAMMA).exp(), within(BLUR).abs(), within(NOISE).abs()
        noise = torch.randn(batch, 1, *grid, generator=generator, device=device)
        return cls(flip, turn, scale, shift, gamma, blur, noise * strength[:, None, None, None, None])

    def keep_some(self, probability: float, generator: torch.Generator) -> Changes:
        """Keep each change of each volume with a probability, for a generator of left breasts.

        Left breasts stay left ones, and nothing is blurred or gets noise, as neither is in `labels`.

        Args:
            probability: of each change, in [0, 1].
            generator: of the random numbers, on the device of the changes.
        """
        kept = torch.rand(len(self.turn), 6, generator=generator, device=self.turn.device) < probability
        upside_down, reversed_depth, turn, scale, shift, gamma = kept.unbind(1)
        flip = self.flip & torch.stack([torch.zeros_like(upside_down), upside_down, reversed_depth], dim=1)
        return Changes(
            flip,
            self.turn * turn,
            self.scale.where(scale, 1.0),
            self.shift * shift[:, None],
            self.gamma.where(gamma, 1.0),
            torch.zeros_like(self.blur),
            torch.zeros_like(self.noise),
        )

    def settle(self, boxes: Sequence[Tensor], upright: Sequence[bool], rows: int, columns: int) -> Changes:
        """Leave out what volumes must not get: to be upside down, and to lose half of a lesion at the border.

        Args:
            boxes: see `augment`.
            upright: see `augment`.
            rows: of the volumes.
            columns: of the volumes.
        """
        flip, device = self.flip.clone(), self.flip.device
        flip[:, 1] &= ~torch.tensor(list(upright), device=device)
        flipped = replace(self, flip=flip)
        moves = [_Move.of(flipped, number, rows, columns) for number in range(len(boxes))]
        seen = [_in_view(move.carry(own), rows, columns) for move, own in zip(moves, boxes, strict=True)]
        moved = torch.tensor(seen, device=device)
        return replace(
            flipped,
            turn=self.turn.where(moved, 0.0),
            scale=self.scale.where(moved, 1.0),
            shift=self.shift.where(moved[:, None], 0.0),
        )

    def labels(self) -> Tensor:
        """Describe flips, turn, scale, shift and gamma: (N, 7) float32 in [-1, 1], 0 for no change."""
        gamma = self.gamma.log() / GAMMA
        turn, scale = self.turn.rad2deg() / DEGREES, (self.scale - 1) / SCALE
        return torch.cat(
            [self.flip[:, 1:].float(), torch.stack([turn, scale, gamma], dim=1), self.shift / SHIFT], dim=1
        )

    def part(self, rows: slice) -> Changes:
        """Take some rows."""
        return Changes(*(getattr(self, field.name)[rows] for field in fields(self)))


def augment(
    volumes: Tensor, boxes: Sequence[Tensor], upright: Sequence[bool], changes: Changes
) -> tuple[Tensor, list[Tensor]]:
    """Change volumes, and carry the boxes of their lesions along.

    MONAI's dictionary transforms take one item at a time, and turn boxes by multiples of 90° only; a batch
    of volumes is changed here at once, in a few operations of torch.

    Args:
        volumes: (N, 1, D, H, W) in [0, 1].
        boxes: for each (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels.
        upright: for each whether it must not be turned upside down, as an mlo view has its muscle at the top.
        changes: one row a volume.

    Returns:
        Volumes and boxes as they came, changed. Where half of a lesion would leave a volume, that volume is
        flipped and shaded only (`Changes.settle`).
    """
    # The products that carry boxes would be of bfloat16, which cannot tell voxel 257 from voxel 258.
    with torch.autocast(volumes.device.type, enabled=False):
        rows, columns = volumes.shape[-2:]
        changes = changes.settle(boxes, upright, rows, columns)
        volumes, boxes = _mirror_depth(volumes, boxes, changes.flip[:, 2])
        moves = [_Move.of(changes, number, rows, columns) for number in range(len(boxes))]
        carried = [_clip(move.carry(own), rows, columns) for move, own in zip(moves, boxes, strict=True)]
        grids = torch.stack([move.to_grid() for move in moves])
        return _shade(_resample(volumes, grids), changes), carried


def _mirror_depth(volumes: Tensor, boxes: Sequence[Tensor], mirrored: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Mirror some of the volumes, and their boxes: the last slice becomes the first."""
    carried = [own.clone() for own in boxes]
    for own, turned in zip(carried, mirrored, strict=True):
        if turned:
            own[:, [0, 3]] = volumes.shape[2] - own[:, [3, 0]]
    return torch.where(mirrored[:, None, None, None, None], volumes.flip(2), volumes), carried


@dataclass(frozen=True)
class _Move:
    """Map of a volume's points, in the plane and about its centre: p → matrix · p + shift, in voxels.

    Attributes:
        matrix: (2, 2), of rows and columns.
        shift: (2,) voxels.
        scale: by which a lesion grows.
        rows: of the volume.
        columns: of the volume.
    """

    matrix: Tensor
    shift: Tensor
    scale: float
    rows: int
    columns: int

    @classmethod
    def of(cls, changes: Changes, number: int, rows: int, columns: int) -> _Move:
        """Make the move of one row of a batch: flips first, then turn and scale, then the shift."""
        signs = 1 - 2 * changes.flip[number, [1, 0]].float()
        cos, sin = changes.turn[number].cos(), changes.turn[number].sin()
        turn = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        shift = changes.shift[number] * torch.tensor([rows, columns], device=turn.device)
        scale = float(changes.scale[number])
        return cls(scale * turn @ torch.diag(signs), shift, scale, rows, columns)

    @property
    def centre(self) -> Tensor:
        return torch.tensor([self.rows / 2, self.columns / 2], device=self.matrix.device)

    def carry(self, boxes: Tensor) -> Tensor:
        """Carry boxes along (n, 6): their centres move, their sides grow.

        Boxes around turned corners would be up to a fifth wider than the lesions, which are round.
        """
        low, high = boxes[:, 1:3], boxes[:, 4:6]
        middle = ((low + high) / 2 - self.centre) @ self.matrix.T + self.shift + self.centre
        half = self.scale * (high - low) / 2
        depth = boxes[:, [0, 3]]
        return torch.cat([depth[:, :1], middle - half, depth[:, 1:], middle + half], dim=1)

    def to_grid(self) -> Tensor:
        """Give what `affine_grid` takes (2, 3): from output to input, x before y, edges at -1 and 1."""
        back = torch.linalg.inv(self.matrix)
        size = 2 * self.centre
        linear = back * size / size[:, None]
        offset = -(back @ self.shift) * 2 / size
        return torch.cat([linear.flip(0, 1), offset.flip(0)[:, None]], dim=1)


def _in_view(boxes: Tensor, rows: int, columns: int) -> bool:
    kept = _clip(boxes, rows, columns)
    return bool((_areas(kept) >= VISIBLE * _areas(boxes)).all())


def _clip(boxes: Tensor, rows: int, columns: int) -> Tensor:
    limits = torch.tensor([torch.inf, rows, columns] * 2, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limits)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 4:] - boxes[:, 1:3]).clamp(min=0).prod(dim=1)


def _resample(volumes: Tensor, moves: Tensor) -> Tensor:
    """Move volumes in the plane; what comes in from outside continues the border."""
    planes = volumes[:, 0]  # slices as channels: one map serves them all
    grid = F.affine_grid(moves, list(planes.shape), align_corners=False)
    moved = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return moved[:, None]


def _shade(volumes: Tensor, changes: Changes) -> Tensor:
    """Change gamma, sharpness and noise; air stays at 0."""

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None, None]

    bright = volumes.clamp(0, 1) ** each(changes.gamma)
    side = each(torch.exp(-0.5 / changes.blur.clamp(min=1e-3) ** 2))
    for axis in (-2, -1):  # a Gaussian of at most half a voxel has three taps
        before, after = (bright.roll(step, axis) for step in (1, -1))
        first, last = (bright.narrow(axis, place, 1) for place in (0, bright.shape[axis] - 1))
        before.narrow(axis, 0, 1).copy_(first)
        after.narrow(axis, bright.shape[axis] - 1, 1).copy_(last)
        bright = (bright + side * (before + after)) / (1 + 2 * side)
    noisy = (bright + changes.noise).clamp(0, 1)
    return torch.where(bright > 0, noisy, bright)
