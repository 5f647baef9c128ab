"""Classic augmentation with torchio: flips, affine, gamma, blur and noise of training volumes.

Not a model: each volume is the layout's source case, changed a little, with its lesions' boxes carried along.
What a generator is worth beyond this is what a benchmark wants to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Boxes, Volume, laterality, mirror_boxes, projection
from dbtbench.recipe import Recipe
from dbtbench.runs import Run

if TYPE_CHECKING:  # torch and torchio are imported by what uses them: this module is loaded to be listed
    import torchio as tio

TRIES = 20
VISIBLE = 0.5


class ClassicRecipe(Recipe):
    """Strengths of the augmentation; each value is drawn uniformly up to its limit.

    Attributes:
        degrees: rotation in the plane, to both sides.
        scale: change of size in the plane, as a fraction, up and down.
        shift: shift in the plane, as a fraction of rows and columns, to all sides.
        gamma: logarithm of the exponent that intensities are raised to, up and down.
        blur: largest standard deviation of a Gaussian blur in the plane, in voxels.
        noise: largest standard deviation of Gaussian noise, as a fraction of full scale.
    """

    degrees: float = Field(default=8.0, ge=0, le=45)
    scale: float = Field(default=0.08, ge=0, lt=0.5)
    shift: float = Field(default=0.04, ge=0, lt=0.5)
    gamma: float = Field(default=0.15, ge=0)
    blur: float = Field(default=0.5, ge=0)
    noise: float = Field(default=0.02, ge=0)


class Classic(Generator[ClassicRecipe]):
    """Changes the source case of each layout; its boxes are the source's own, carried along."""

    recipe_class = ClassicRecipe
    derived = True
    learned = False

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Keep the training split; nothing is learned."""
        self.train = train
        self.views = dict(zip(train.cases["case"], train.cases["View"], strict=True))

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Change the source of each layout, in order."""
        import torch

        for layout in layouts:
            # Every torchio transform draws global random numbers, if only to decide whether to be applied.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(layout.seed)
                sample = self._augment(layout)
            yield sample

    def _augment(self, layout: Layout) -> Sample:
        volume = self.train.volumes([layout.source])[0, 0]
        boxes = self.train.boxes_of(layout.source)
        if laterality(layout.view) != laterality(self.views[layout.source]):
            volume, boxes = volume[..., ::-1], mirror_boxes(boxes, volume.shape[2])
        rng = np.random.default_rng(layout.seed)
        # An mlo breast has the pectoral muscle at the top: upside down it would be no breast at all.
        if projection(layout.view) == "cc" and rng.random() < 0.5:
            volume, boxes = volume[:, ::-1], upside_down(boxes, volume.shape[1])
        volume, boxes = self._move(volume, boxes, rng)
        return Sample(self._shade(volume), boxes)

    def _move(self, volume: Volume, boxes: Boxes, rng: np.random.Generator) -> tuple[Volume, Boxes]:
        """Rotate, scale and shift in the plane, such that lesions stay in view, and their reflections out."""
        import torchio as tio

        recipe, image = self.recipe, to_torchio(volume)
        rows, columns = volume.shape[1:]
        for _ in range(TRIES):
            scale = 1 + rng.uniform(-recipe.scale, recipe.scale)
            shift = rng.uniform(-recipe.shift, recipe.shift, 2) * (columns, rows)
            affine = tio.Affine(
                scales=(scale, scale, 1),
                degrees=(0, 0, rng.uniform(-recipe.degrees, recipe.degrees)),
                translation=(*shift, 0),
            )
            moved = carry(boxes, affine, image)
            inside = clip(moved, volume.shape)
            ghosts = np.concatenate([mirror_boxes(boxes, 0), mirror_boxes(boxes, 2 * columns)])
            unseen = _areas(clip(carry(ghosts, affine, image), volume.shape)) == 0
            if (_areas(inside) >= VISIBLE * _areas(moved)).all() and unseen.all():
                return from_torchio(_apply(affine, image)), inside
        return volume, boxes

    def _shade(self, volume: Volume) -> Volume:
        """Change gamma, sharpness and noise; air stays at 0."""
        import torchio as tio

        recipe = self.recipe
        gamma = tio.RandomGamma(log_gamma=recipe.gamma)
        in_plane = (0, recipe.blur, 0, recipe.blur, 0, 0)
        blur = tio.RandomBlur(std=in_plane)  # type: ignore[arg-type]
        smooth = blur(gamma(to_torchio(volume)))
        noisy = tio.RandomNoise(std=(0, recipe.noise))(smooth)
        tissue = from_torchio(smooth)
        shaded = np.where(tissue > 0, from_torchio(noisy), tissue)
        return np.asarray(shaded.clip(0, 1), np.float32)


def to_torchio(volume: Volume) -> tio.ScalarImage:
    """(D, H, W) to torchio's (1, W, H, D): columns along x, rows along y, slices along z, voxels of 1 mm."""
    import torch
    import torchio as tio

    tensor = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 1, 0)[None]))
    return tio.ScalarImage(tensor=tensor)  # type: ignore[no-untyped-call]


def from_torchio(image: tio.ScalarImage) -> Volume:
    """Undo `to_torchio`."""
    volume: Volume = np.ascontiguousarray(image.numpy()[0].transpose(2, 1, 0))
    return volume


def carry(boxes: Boxes, affine: tio.Affine, image: tio.ScalarImage) -> Boxes:
    """Boxes around where an affine takes the corners of boxes.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        affine: the transform.
        image: what it is applied to; its centre is what torchio turns it about.

    Returns:
        (n, 6), not clipped to the image.
    """
    # torchio gives the transform that resampling needs, from output to input, in LPS millimetres; an index
    # is a voxel's centre, half a voxel from its edge.
    forward = affine.get_affine_transform(image).GetInverse()  # type: ignore[no-untyped-call]
    carried = []
    for z0, y0, x0, z1, y1, x1 in boxes.astype(float):
        corners = [(0.5 - x, 0.5 - y, z - 0.5) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]
        x, y, z = np.array([forward.TransformPoint(corner) for corner in corners]).T
        points = np.array([z + 0.5, 0.5 - y, 0.5 - x])
        carried.append([*points.min(axis=1), *points.max(axis=1)])
    return np.array(carried, np.float32).reshape(-1, 6)


def clip(boxes: Boxes, grid: tuple[int, ...]) -> Boxes:
    """The part of each box that lies inside the volume (D, H, W)."""
    limits = np.array([*grid, *grid], np.float32)
    inside: Boxes = np.clip(boxes, 0, limits)
    return inside


def upside_down(boxes: Boxes, height: int) -> Boxes:
    """Boxes of the volume of `height` rows whose rows are reversed."""
    out = boxes.copy()
    out[:, 1], out[:, 4] = height - boxes[:, 4], height - boxes[:, 1]
    return out


def _areas(boxes: Boxes) -> Boxes:
    """Area in the plane, (n,)."""
    areas: Boxes = (boxes[:, 4] - boxes[:, 1]) * (boxes[:, 5] - boxes[:, 2])
    return areas


def _apply(affine: tio.Affine, image: tio.ScalarImage) -> tio.ScalarImage:
    """Apply an affine; what it moves in from outside continues the image.

    Sideways that is its reflection, or the chest wall would come off the border; above and below it is the
    outermost row, or another breast's edge would come in.
    """
    import torchio as tio

    x, y = (n // 3 for n in image.spatial_shape[:2])
    wider = tio.Pad((x, x, 0, 0, 0, 0), padding_mode="symmetric")(image)
    padded = tio.Pad((0, 0, y, y, 0, 0), padding_mode="edge")(wider)
    return tio.Crop((x, x, y, y, 0, 0))(affine(padded))
