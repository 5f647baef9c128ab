"""Warnings about a drawn data set: what breaks no rule, and yet is seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import GRID_BOX, DBTDataset

LOOKED_AT = 64
"""The most volumes of either side that are read."""
AIR = 8 / 256
"""Intensities below this are air, as in the realism task."""
SPREADS = 3.0
BRIGHTNESS_MARGIN, AIR_MARGIN = 0.05, 0.1
"""A mean is odd when it is this far, and `SPREADS` standard deviations of the real volumes, from theirs."""


def find_oddities(drawn: DBTDataset, train: DBTDataset) -> Iterator[str]:
    """Find what a person should look at in a synthetic data set.

    Args:
        drawn: the synthetic volumes.
        train: the real volumes that its generator was fitted to.
    """
    own, real = _measure(drawn), _measure(train)
    constant = int((own[:, 2] == 0).sum())
    if constant:
        yield f"{constant} of {len(own)} volumes looked at are constant"
    for column, name, margin in ((0, "mean brightness", BRIGHTNESS_MARGIN), (1, "share of air", AIR_MARGIN)):
        found, expected = own[:, column].mean(), real[:, column].mean()
        if abs(found - expected) > margin + SPREADS * real[:, column].std():
            yield f"its {name} is {found:.2f}, that of the training volumes {expected:.2f}"
    corners = drawn.boxes[GRID_BOX].to_numpy(float)
    if len(corners) and ((corners[:, 3:] - corners[:, :3]) < 1).all():
        yield "all boxes are smaller than a voxel; boxes are in voxels, not in fractions of the grid"


def _measure(data: DBTDataset) -> NDArray[np.float64]:
    """Mean, share of air and range of volumes spread evenly over the data set, (n, 3)."""
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).round().astype(int))
    rows = []
    for case in data.cases["case"].iloc[chosen]:
        volume = data.volumes([case])
        rows.append([volume.mean(dtype=float), (volume < AIR).mean(), np.ptp(volume)])
    return np.array(rows)
