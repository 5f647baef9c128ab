"""Augmentation on the fly: every volume of a batch is flipped, moved and shaded, otherwise at every step.

Strengths are those of the `classic` generator and of nnDetection's and MONAI's detection recipes, as far as
a breast allows them. As there, volumes are mirrored in depth, too: few lesions lie at few depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

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
        flipped and shaded only.
    """
    # The products that carry boxes would be of bfloat16, which cannot tell voxel 257 from voxel 258.
    with torch.autocast(volumes.device.type, enabled=False):
        volumes, boxes = _mirror_depth(volumes, boxes, changes.flip[:, 2])
        moves, carried = _carry_all(boxes, upright, changes, *volumes.shape[-2:])
        return _shade(_resample(volumes, moves), changes), carried


def _mirror_depth(volumes: Tensor, boxes: Sequence[Tensor], mirrored: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Mirror some of the volumes, and their boxes: the last slice becomes the first."""
    carried = [own.clone() for own in boxes]
    for own, turned in zip(carried, mirrored, strict=True):
        if turned:
            own[:, [0, 3]] = volumes.shape[2] - own[:, [3, 0]]
    return torch.where(mirrored[:, None, None, None, None], volumes.flip(2), volumes), carried


def _carry_all(
    boxes: Sequence[Tensor], upright: Sequence[bool], changes: Changes, rows: int, columns: int
) -> tuple[Tensor, list[Tensor]]:
    """Decide every volume's move, as `affine_grid` takes them (N, 2, 3), and carry its boxes."""
    upside_down = changes.flip[:, 1] & ~torch.tensor(list(upright), device=changes.flip.device)
    signs = torch.stack([upside_down, changes.flip[:, 0]], dim=1).float().mul(-2).add(1)
    moves, carried = [], []
    for number, own in enumerate(boxes):
        move = _Move.of(changes, signs, number, rows, columns)
        moved = move.carry(own)
        if not _in_view(moved, rows, columns):
            move = _Move(torch.diag(signs[number]), torch.zeros(2, device=own.device), 1.0, rows, columns)
            moved = move.carry(own)
        moves.append(move.to_grid())
        carried.append(_clip(moved, rows, columns))
    return torch.stack(moves), carried


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
    def of(cls, changes: Changes, signs: Tensor, number: int, rows: int, columns: int) -> _Move:
        """Make the move of one row of a batch: flips first, then turn and scale, then the shift."""
        cos, sin = changes.turn[number].cos(), changes.turn[number].sin()
        turn = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        shift = changes.shift[number] * torch.tensor([rows, columns], device=turn.device)
        scale = float(changes.scale[number])
        return cls(scale * turn @ torch.diag(signs[number]), shift, scale, rows, columns)

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
