"""Library of training lesions: the signal of each, cut out of its volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes, Volume, projection
from dbtbench.lesions.hosts import HostReader
from dbtbench.lesions.places import Background, plane_distance
from dbtbench.runtime.progress import log

SHELL = (1.25, 2.0)
"""Inner and outer edge of the tissue that the plane is fitted to, in half-axes of the box."""
SMALLEST_SHELL = 8
SMALLEST_HALF_AXIS = 1.0
MARGIN = 1.0
"""Width of the feather, in half-axes of the box, unless another is asked for."""
PAD = 4
"""Voxels kept around what is pasted, so that splines know their neighbours."""

Values = NDArray[np.float64]
Area = NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """A lesion cut out of its volume, as in a left breast.

    Attributes:
        residual: (D, h, w) patch through all slices less a plane for each slice; 0 in air.
        rise: (h, w) how much of it is used: 0 in air, 1 away from the outline.
        box: (6,) its box in voxels of its volume.
        corner: (2,) first row and column of the patch.
        reach: how far the signal goes, in half-axes of the box.
        aspect: distance between rows in units of that between columns.
        contrast: mean of the residual in the box's ellipse and slices.
        projection: cc or mlo.
        patient: of which patient.
        label: of its case.
    """

    residual: Volume
    rise: Values
    box: Values
    corner: NDArray[np.intp]
    reach: float
    aspect: float
    contrast: float
    projection: str
    patient: str
    label: str

    @property
    def half(self) -> Values:
        """Half-axes of the box in the plane, (2,)."""
        return np.maximum((self.box[4:] - self.box[1:3]) / 2, SMALLEST_HALF_AXIS / 2)

    @property
    def centre(self) -> Values:
        """Centre of the box in the plane, (2,)."""
        return (self.box[4:] + self.box[1:3]) / 2


def subtract_planes(volume: Volume, shell: Area) -> Values:
    """Subtract from each slice the plane fitted to its voxels in the shell.

    Args:
        volume: (D, h, w).
        shell: (h, w) at least 8 voxels.

    Returns:
        (D, h, w) float64.
    """
    y, x = np.mgrid[: shell.shape[0], : shell.shape[1]].astype(np.float64)
    rows, columns = y[shell].mean(), x[shell].mean()
    terms = np.stack([np.ones(shell.shape), y - rows, x - columns], axis=-1)
    # With the origin in the middle of the shell, a shell on one line gets no slope across it.
    fit, *_ = np.linalg.lstsq(terms[shell], volume[:, shell].T.astype(np.float64), rcond=1e-6)
    planes = np.moveaxis(terms @ fit, -1, 0)
    return np.asarray(volume - planes)


def cut_out(background: Background, boxes: Boxes, number: int, margin: float) -> Lesion | None:
    """Cut one of a volume's lesions out.

    Args:
        background: the volume.
        boxes: (n, 6) all its lesions.
        number: of the lesion.
        margin: width of the feather, in half-axes.

    Returns:
        The lesion, with the label normal and no projection; None where there is too little tissue around it.
    """
    box, grid = boxes[number].astype(np.float64), background.volume.shape
    plane = plane_distance(box, grid[1:])
    others = [plane_distance(other, grid[1:]) <= 1 for n, other in enumerate(boxes) if n != number]
    clear = background.inside & ~np.any([np.zeros(grid[1:], bool), *others], axis=0)
    wide = plane_distance(box, grid[1:], SMALLEST_HALF_AXIS)
    shell = clear & (wide > SHELL[0]) & (wide <= SHELL[1])
    if shell.sum() < SMALLEST_SHELL:
        return None
    reach = 1 + margin
    extent = max(reach, SHELL[1]) * np.maximum((box[4:] - box[1:3]) / 2, SMALLEST_HALF_AXIS) + PAD
    centre = (box[4:] + box[1:3]) / 2
    low = np.floor(centre - extent).astype(int).clip(0)
    high = np.minimum(np.ceil(centre + extent).astype(int), grid[1:])
    part = (slice(low[0], high[0]), slice(low[1], high[1]))
    residual = subtract_planes(background.volume[:, part[0], part[1]], shell[part])
    residual *= background.inside[part]
    first, last = int(np.floor(box[0])), int(np.ceil(box[3]))
    lesion = (plane <= 1)[part] & background.inside[part]
    return Lesion(
        residual=residual.astype(np.float32),
        rise=(background.rise() * clear)[part],
        box=box,
        corner=low,
        reach=reach,
        aspect=1.0,
        contrast=float(residual[first:last, lesion].mean()) if lesion.any() else 0.0,
        projection="",
        patient=background.patient,
        label="normal",
    )


class Library:
    """Lesions that can be pasted, and the training volumes that they can be pasted into.

    Args:
        train: the training split.
        lesions: what is pasted.
        generator: name of the generator that pastes them, for log and errors.
    """

    def __init__(self, train: DBTDataset, lesions: Sequence[Lesion], generator: str) -> None:
        self.train, self.lesions, self.grid = train, lesions, train.grid
        self.hosts = HostReader(train, generator)

    @classmethod
    def cut(cls, train: DBTDataset, generator: str, margin: float = MARGIN) -> Library:
        """Cut all training lesions out; the log says how many are left out, and why.

        Args:
            train: the training split.
            generator: see `Library`.
            margin: width of the feather, in half-axes.

        Raises:
            UsageError: when a layout would have no host, or no lesion can be pasted.
        """
        library = cls(train, [], generator)
        library.hosts.check()
        outcomes = Counter[str]()
        for case in train.cases["case"][train.positive]:
            background, boxes = library.hosts.read(int(case))
            for number in range(len(boxes)):
                lesion = cut_out(background, boxes, number, margin)
                if lesion is None:
                    outcomes["with too little tissue around them"] += 1
                elif lesion.contrast <= 0:
                    outcomes["that are not brighter than the tissue around them"] += 1
                else:
                    library.lesions = [*library.lesions, library._describe(lesion, int(case))]
        left_out = ", ".join(f"{count} {why}" for why, count in outcomes.items())
        log.info(
            f"{generator}: {len(library.lesions)} of {len(train.boxes)} training lesions can be pasted"
            + (f"; left out: {left_out}" if left_out else "")
        )
        if not library.lesions:
            raise UsageError(
                f"{train.name} has no training lesion that can be pasted"
                + (f": {left_out}" if left_out else ""),
                "import more patients with lesions, or with a larger share for training",
            )
        return library

    def draw_order(self, kind: str, patient: str, rng: np.random.Generator) -> Iterator[Lesion]:
        """Draw an order of the lesions of other patients; those of the projection come first."""
        order = [self.lesions[number] for number in rng.permutation(len(self.lesions))]
        for same in (True, False):
            yield from (one for one in order if (one.projection == kind) == same and one.patient != patient)

    def _describe(self, lesion: Lesion, case: int) -> Lesion:
        row = self.hosts.cases.loc[case]
        y, x = row.get("y_mm"), row.get("x_mm")
        known = y is not None and x is not None and 0 < float(y) < np.inf and 0 < float(x) < np.inf
        return replace(
            lesion,
            projection=projection(str(row["View"])),
            label=str(row["label"]),
            aspect=float(y) / float(x) if known else 1.0,
        )
