"""Library of what is pasted: signals of training lesions, or patches of normal tissue of their sizes."""

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
CANDIDATES = 8
"""Normal volumes that a patch of the placebo is sought in."""
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
    """

    def __init__(self, train: DBTDataset, lesions: Sequence[Lesion]) -> None:
        self.train, self.lesions, self.grid = train, lesions, train.grid
        self.hosts = HostReader(train, "paste")

    @classmethod
    def cut(cls, train: DBTDataset, margin: float, placebo: bool = False) -> Library:
        """Cut all training lesions out; the log says how many are left out, and why.

        Args:
            train: the training split.
            margin: width of the feather, in half-axes.
            placebo: whether each lesion is replaced by normal tissue.

        Raises:
            UsageError: when a layout would have no host, or no lesion can be pasted.
        """
        library = cls(train, [])
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
            f"paste: {len(library.lesions)} of {len(train.boxes)} training lesions can be pasted"
            + (f"; left out: {left_out}" if left_out else "")
        )
        if not library.lesions:
            raise UsageError(
                f"{train.name} has no training lesion that can be pasted"
                + (f": {left_out}" if left_out else ""),
                "import more patients with lesions, or with a larger share for training",
            )
        if placebo:
            library.lesions = [
                library._replace_by_normal(lesion, number, margin)
                for number, lesion in enumerate(library.lesions)
            ]
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

    def _replace_by_normal(self, lesion: Lesion, number: int, margin: float) -> Lesion:
        """Replace a lesion's signal by that of normal tissue of another patient, at its own place or near it.

        The flattest of a few patches is taken: a bright one would be a lesion without a box. What else is
        known of the lesion stays, so that the placebo is pasted where the lesion would be.

        Raises:
            UsageError: when no lesion-free volume has such a place.
        """
        hosts, rng = self.hosts, np.random.default_rng(number)
        others = (
            hosts.normal & (hosts.views == lesion.projection) & (hosts.cases["PatientID"] != lesion.patient)
        )
        patches = list[Lesion]()
        for case in rng.permutation(hosts.cases.index[others])[:CANDIDATES]:
            background, _ = hosts.read(int(case))
            centre = background.find_place(lesion.centre, lesion.half)
            if centre is None:
                continue
            move = np.round(centre - lesion.centre)  # the patch has whole voxels, as the lesion's has
            box = lesion.box + np.array([0, *move, 0, *move])
            patch = cut_out(background, box[None].astype(np.float32), 0, margin)
            patches += [patch] if patch else []
        if not patches:
            raise UsageError(
                f"{self.train.name} has no place in normal tissue for the lesion of patient {lesion.patient}",
                "import more normal cases, or use paste without placebo",
            )
        flat = min(patches, key=lambda patch: abs(patch.contrast))
        return replace(flat, projection=lesion.projection, patient=lesion.patient, aspect=lesion.aspect)
