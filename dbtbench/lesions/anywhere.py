"""Lesions anywhere in a breast: places drawn evenly, sizes from a distribution fitted to training boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes
from dbtbench.lesions.hosts import HostReader
from dbtbench.lesions.places import Background

Values = NDArray[np.float64]


class SizeDistribution:
    """A log-normal distribution of lesions' heights and widths, with their correlation.

    Args:
        boxes: (n, 6) of training lesions, n ≥ 1.
    """

    def __init__(self, boxes: Boxes) -> None:
        logs = np.log(np.maximum(boxes[:, 4:] - boxes[:, 1:3], 1e-3).astype(np.float64))
        self.low, self.high = logs.min(axis=0), logs.max(axis=0)
        self.mean = logs.mean(axis=0)
        self.covariance = np.cov(logs.T) if len(logs) > 1 else np.zeros((2, 2))

    def draw(self, rng: np.random.Generator) -> Values:
        """Draw height and width in voxels, (2,), no smaller nor larger than those of the training boxes."""
        logs = rng.multivariate_normal(self.mean, self.covariance)
        return np.asarray(np.exp(logs.clip(self.low, self.high)))


class Anywhere:
    """Draws boxes anywhere in a breast where a lesion can lie: not in air, nor in the bright part of muscle.

    The breast is that of the layout's host, into which some generators put the lesion; without a host, that
    of the layout's source.

    Args:
        train: the training split, with at least one lesion.
    """

    def __init__(self, train: DBTDataset) -> None:
        self.reader, self.grid = HostReader(train, "layouts"), train.grid
        self.sizes = SizeDistribution(train.boxes[GRID_BOX].to_numpy(np.float32))
        self._breasts: dict[int, Background] = {}

    def draw(self, layout: Layout, rng: np.random.Generator) -> Boxes:
        """Draw as many boxes as a layout has, as deep as these, (n, 6) in its own laterality.

        A lesion too large for the breast stays where the layout has it.
        """
        right, width = laterality(layout.view) == "r", self.grid[2]
        wanted = mirror_boxes(layout.boxes, width) if right else layout.boxes
        breast = self._read(layout.source if layout.host is None else layout.host)
        drawn = np.stack([self._draw(box, breast, rng) for box in wanted])
        return mirror_boxes(drawn, width) if right else drawn

    def _draw(self, box: NDArray[np.float32], breast: Background, rng: np.random.Generator) -> Boxes:
        half, depth = self.sizes.draw(rng) / 2, box[3] - box[0]
        start = rng.uniform(0, max(self.grid[0] - depth, 0))
        voxels = breast.list_places(half)
        if not len(voxels):
            return box
        centre = voxels[rng.integers(len(voxels))] + 0.5
        drawn = np.array([start, *(centre - half), start + depth, *(centre + half)], np.float32)
        breast.fill(drawn)
        return drawn

    def _read(self, case: int) -> Background:
        """Read a breast without what was put into it before; each volume is read once."""
        if case not in self._breasts:
            self._breasts[case] = self.reader.read(case)[0]
        found = self._breasts[case]
        empty = np.empty((0, *self.grid[1:]), np.float32)
        return Background(empty, found.patient, found.inside, found.free.copy(), found.darkest)
