"""Insertion of a lesion into a host: turned, flipped, scaled, and added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from dbtbench.lesions.library import Lesion, Library
from dbtbench.lesions.places import Background

GAIN = (0.8, 1.25)
"""Smallest and largest factor of a lesion's signal, unless others are asked for."""
SCALE = 0.2
"""Largest change of a lesion's size in the plane towards the wanted one, as a fraction, likewise."""

Values = NDArray[np.float64]


def make_matrix(angle: float, flip: bool, scale: float, aspect: float) -> Values:
    """Make the matrix that carries offsets (rows, columns) in voxels from the lesion into the host.

    Args:
        angle: turn in the plane, in radians; it is a turn in mm, where voxels may be oblong.
        flip: whether rows are flipped first.
        scale: factor of the size.
        aspect: distance between rows in units of that between columns.
    """
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    length = np.array([aspect, 1.0])
    matrix: Values = scale * turn / length[:, None] * length * (-1 if flip else 1, 1)
    return matrix


@dataclass(frozen=True)
class Insertion:
    """A lesion and its place in a host.

    Attributes:
        lesion: what is added.
        host: to what.
        centre: (2,) where its centre comes to lie, in voxels.
        matrix: (2, 2) see `make_matrix`.
        shift: by how many slices.
    """

    lesion: Lesion
    host: Background
    centre: Values
    matrix: Values
    shift: int

    @classmethod
    def plan(
        cls,
        lesion: Lesion,
        host: Background,
        wanted: NDArray[np.float32],
        angle: float,
        flip: bool,
        scale: float,
    ) -> Insertion | None:
        """Fit a lesion into a host.

        Args:
            lesion: the lesion.
            host: the host.
            wanted: (6,) box in voxels; its centre is the wanted place, and its area the wanted size.
            angle: see `make_matrix`.
            flip: see `make_matrix`.
            scale: largest change of the lesion's size, as a fraction.

        Returns:
            None where the lesion has no place in the host.
        """
        box = wanted.astype(np.float64)
        area = np.prod(box[4:] - box[1:3]) / np.prod(2 * lesion.half)
        factor = float(np.clip(np.sqrt(area), 1 - scale, 1 + scale))
        matrix = make_matrix(angle, flip, factor, lesion.aspect)
        centre = host.find_place((box[1:3] + box[4:]) / 2, cls._spread(matrix, lesion))
        if centre is None:
            return None
        shift = round((box[0] + box[3] - lesion.box[0] - lesion.box[3]) / 2)
        return cls(lesion, host, centre, matrix, shift)

    @staticmethod
    def _spread(matrix: Values, lesion: Lesion) -> Values:
        """Compute half the height and width of the lesion's ellipse in the host, (2,)."""
        return np.asarray(np.sqrt(matrix**2 @ lesion.half**2))

    @property
    def box(self) -> NDArray[np.float32]:
        """The lesion's box in the host, (6,)."""
        slices, half = len(self.host.volume), self._spread(self.matrix, self.lesion)
        z0, z1 = np.clip(self.lesion.box[[0, 3]] + self.shift, 0, slices)
        low, high = self.centre - half, self.centre + half
        shape = self.host.inside.shape
        return np.array([z0, *np.maximum(low, 0), z1, *np.minimum(high, shape)], np.float32)

    def add(self, gain: float) -> NDArray[np.float32]:
        """Add the lesion's signal to the host, and keep its place free of other lesions.

        Where fat lay between glands around the lesion, the signal is negative. It makes no voxel darker than
        the host's darkest tissue, which is fat as well.

        Returns:
            (6,) its box.
        """
        lesion, host = self.lesion, self.host
        reach = lesion.reach * self._spread(self.matrix, lesion)
        low = np.floor(self.centre - reach).astype(int).clip(0)
        high = np.minimum(np.ceil(self.centre + reach).astype(int), host.inside.shape)
        part = (slice(low[0], high[0]), slice(low[1], high[1]))
        y, x = np.mgrid[part].astype(np.float64) + 0.5
        to_host = np.stack([y - self.centre[0], x - self.centre[1]])
        offset = np.tensordot(np.linalg.inv(self.matrix), to_host, axes=1)
        distance = np.hypot(*(offset / lesion.half[:, None, None]))
        source = offset + (lesion.centre - lesion.corner - 0.5)[:, None, None]
        rise = scipy.ndimage.map_coordinates(lesion.rise, source, order=1, mode="constant")
        weight = gain * feather(distance, lesion.reach) * rise * host.rise()[part]
        touched = weight > 0
        for number, slice_ in enumerate(host.volume):
            residual = lesion.residual[self.source_slice(number)]
            signal = scipy.ndimage.map_coordinates(residual, source, order=3, mode="mirror")
            own = slice_[part]
            sum_ = np.maximum(own + weight * signal, np.minimum(own, host.darkest))
            own[touched] = np.minimum(sum_, 1)[touched]
        host.free[part] &= distance > lesion.reach
        return self.box

    def source_slice(self, number: int) -> int:
        """Give the slice of the lesion's own volume that a slice of the host gets.

        Tomosynthesis smears a lesion alike to both sides. A slice that the lesion's volume does not have is
        the one as far on the other side of the lesion, or else the nearest.
        """
        slices, own = len(self.lesion.residual), number - self.shift
        if not 0 <= own < slices:
            own = round(self.lesion.box[0] + self.lesion.box[3] - 1 - own)
        return min(max(own, 0), slices - 1)


def feather(distance: Values, reach: float) -> Values:
    """Compute the feather: 1 up to a distance of 1, 0 from `reach` on, smooth between."""
    t = ((reach - distance) / (reach - 1)).clip(0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def insert_lesion(
    library: Library,
    host: Background,
    wanted: NDArray[np.float32],
    projection: str,
    rng: np.random.Generator,
    gain: tuple[float, float] = GAIN,
    scale: float = SCALE,
) -> tuple[Lesion, NDArray[np.float32]] | None:
    """Add the first lesion, in a drawn order, that has a place in the host.

    Args:
        library: the lesions.
        host: a left breast; its volume is changed.
        wanted: (6,) box in voxels; its centre is the wanted place, and its area the wanted size.
        projection: cc or mlo; lesions of this projection come first.
        rng: draws turn, flip, gain and order.
        gain: smallest and largest factor of the lesion's signal.
        scale: largest change of the lesion's size, as a fraction.

    Returns:
        The lesion and its box in the host, (6,); None where none has a place.
    """
    angle, flip, factor = rng.uniform(0, 2 * np.pi), bool(rng.random() < 0.5), rng.uniform(*gain)
    for lesion in library.draw_order(projection, host.patient, rng):
        insertion = Insertion.plan(lesion, host, wanted, angle, flip, scale)
        if insertion:
            return lesion, insertion.add(factor)
    return None
