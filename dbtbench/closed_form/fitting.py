"""Fitting of a closed-form model: several passes over the training volumes, of which a block is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dbtbench.closed_form.lesions import ContrastTable, LesionBump, lesion_area
from dbtbench.closed_form.model import LEVELS, ClosedForm, grey_levels
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import PROJECTIONS, Boxes, Volume, laterality, mirror_boxes, projection
from dbtbench.metrics.mask import breast_mask
from dbtbench.runtime.progress import Advance, log, progress

BLOCK_BYTES = 256 * 2**20
"""Size of a block of volumes; two are in memory at a time."""
SMALLEST_PROJECTION = 2
"""Volumes of a projection below which it takes the mean of both, and volumes without which nothing varies."""
SMALLEST_NOISE = 1e-4
COLUMNS = 2**16

Rows = NDArray[np.intp]


class Roots:
    """Square roots of the training volumes' intensities, as left breasts, read in blocks.

    Args:
        train: the training split.
        block_bytes: size of a block. Volumes that fit into one are read once.

    Attributes:
        grid: slices, rows, columns.
        projections: (n,) indices of `PROJECTIONS`.
        boxes: (n, 6) boxes of each volume, turned as the volume is.
        advance: called with a number of volumes when a pass is done with them.
    """

    def __init__(self, train: DBTDataset, block_bytes: int = BLOCK_BYTES) -> None:
        self.train, self.grid = train, train.grid
        self.cases, views = list(train.cases["case"]), list(train.cases["View"])
        self.right = [laterality(view) == "r" for view in views]
        self.projections = np.array([PROJECTIONS.index(projection(view)) for view in views], np.intp)
        self.boxes: list[Boxes] = [
            mirror_boxes(train.boxes_of(case), self.grid[2]) if right else train.boxes_of(case)
            for case, right in zip(self.cases, self.right, strict=True)
        ]
        size = max(1, block_bytes // (4 * int(np.prod(self.grid))))
        self.blocks = np.split(np.arange(len(self)), range(size, len(self), size))
        self.advance: Advance = lambda _: None
        self._whole: Volume | None = None

    def __len__(self) -> int:
        return len(self.cases)

    def read(self, rows: Rows) -> Volume:
        """Read volumes: (m, D, H, W) float32, a copy that may be changed."""
        if len(self.blocks) > 1:
            return self._read(rows)
        if self._whole is None:
            self._whole = self._read(np.arange(len(self)))
        return self._whole[rows]

    def _read(self, rows: Rows) -> Volume:
        volumes = self.train.volumes([self.cases[row] for row in rows])[:, 0]
        for volume, row in zip(volumes, rows, strict=True):
            if self.right[row]:
                volume[:] = volume[..., ::-1].copy()
        np.sqrt(volumes, out=volumes)
        return volumes

    def walk(self) -> Iterator[tuple[Rows, Volume]]:
        """Go once over all volumes: rows and volumes of each block."""
        for rows in self.blocks:
            yield rows, self.read(rows)
            self.advance(len(rows))


def fit_closed_form(train: DBTDataset, components: int, block_bytes: int = BLOCK_BYTES) -> ClosedForm:
    """Fit the model to a training split.

    Args:
        train: the training split.
        components: how many principal components; at most half the number of volumes.
        block_bytes: size of a block of volumes.

    Raises:
        UsageError: for fewer than two volumes.
    """
    roots = Roots(train, block_bytes)
    if len(roots) < SMALLEST_PROJECTION:
        raise UsageError(
            f"{train.name} has {len(roots)} training volumes; a closed-form model measures how they differ",
            "import more patients, or with a larger share for training",
        )
    count = limit_components(components, len(roots))
    if count < components:
        log.info(f"{count} components instead of {components}, half the {len(roots)} training volumes")
    with progress("statistics", len(roots) * (5 if count else 3)) as roots.advance:
        return _fit(roots, count)


def limit_components(wanted: int, volumes: int) -> int:
    """Cut a number of components to half the volumes: nearly as many as volumes would leave no residual."""
    return min(wanted, volumes // 2)


def _fit(roots: Roots, count: int) -> ClosedForm:
    mean = fit_means(roots)
    lesion = fit_lesions(roots, mean)

    def predict(rows: Rows) -> Volume:
        predicted = mean[roots.projections[rows]]
        for volume, row in zip(predicted, rows, strict=True):
            if len(roots.boxes[row]):
                volume += lesion.draw(roots.boxes[row], roots.grid)
        return predicted

    basis, weights = fit_components(roots, predict, count)

    def predict_all(rows: Rows) -> Volume:
        predicted = predict(rows)
        predicted += np.tensordot(weights[rows], basis, axes=1)
        return predicted

    noise = fit_noise(roots, predict_all)
    spectrum = fit_spectrum(roots, predict_all, noise)
    return ClosedForm(mean, basis, noise, spectrum, lesion)


def fit_means(roots: Roots) -> Volume:
    """Average the volumes of each projection without their lesions: (2, D, H, W) float32.

    A voxel that shows a lesion in every volume takes the mean of all. So does a projection with fewer than
    two volumes, which would else be one of them.
    """
    total = np.zeros((2, len(PROJECTIONS), *roots.grid), np.float64)  # without lesions, and with
    counts = np.zeros(total.shape, np.float32)
    for rows, volumes in roots.walk():
        for row, volume in zip(rows, volumes, strict=True):
            place, clear = roots.projections[row], ~lesion_area(roots.boxes[row], roots.grid)
            total[0, place] += np.where(clear, volume, 0)
            counts[0, place] += clear
            total[1, place] += volume
            counts[1, place] += 1
    for place, name in enumerate(PROJECTIONS):
        if (found := int(counts[1, place].max())) < SMALLEST_PROJECTION:
            log.info(f"{found} training volumes of the projection {name}; it takes the mean of both")
            total[:, place], counts[:, place] = total.sum(axis=1), counts.sum(axis=1)
    empty = counts[0] == 0
    mean: Volume = (np.where(empty, total[1], total[0]) / np.where(empty, counts[1], counts[0])).astype(
        np.float32
    )
    return mean


def fit_lesions(roots: Roots, mean: Volume) -> LesionBump:
    """Fit the lesion bump to the volumes with boxes, one at a time."""
    table = ContrastTable()
    for row in (row for row, boxes in enumerate(roots.boxes) if len(boxes)):
        volume = roots.read(np.array([row]))[0]
        inside = breast_mask(volume[None, None] ** 2)[0, 0, 0]
        table.add(volume - mean[roots.projections[row]], inside, roots.boxes[row])
    return table.fit()


def fit_components(
    roots: Roots, predict: Callable[[Rows], Volume], count: int
) -> tuple[Volume, NDArray[np.float32]]:
    """Find the principal components of what differs from the prediction, by the volumes' Gram matrix.

    This is exact, and needs as many reads of each volume as there are blocks. The Gram matrix of n volumes
    takes n² numbers, its eigenvectors n³ operations.

    Args:
        roots: the training volumes.
        predict: mean and lesions of rows.
        count: how many components, fewer than there are volumes.

    Returns:
        Components (K, D, H, W), of the length of one standard deviation, the largest first; and the weights
        of the training volumes (n, K), of variance 1.
    """
    from scipy.linalg import eigh

    basis = np.zeros((count, *roots.grid), np.float32)
    if not count:
        return basis, np.zeros((len(roots), 0), np.float32)

    def differ(rows: Rows) -> NDArray[np.float32]:
        volumes = roots.read(rows)
        volumes -= predict(rows)
        return volumes.reshape(len(rows), -1)

    gram = np.empty((len(roots), len(roots)))
    for number, rows in enumerate(roots.blocks):
        first = differ(rows)
        gram[np.ix_(rows, rows)] = first @ first.T
        for others in roots.blocks[number + 1 :]:
            product = first @ differ(others).T
            gram[np.ix_(rows, others)], gram[np.ix_(others, rows)] = product, product.T
        roots.advance(len(rows))
    _, vectors = eigh(gram, subset_by_index=(len(roots) - count, len(roots) - 1), overwrite_a=True)
    vectors = vectors[:, ::-1].astype(np.float32)
    flat = basis.reshape(count, -1)
    for rows in roots.blocks:
        block = differ(rows)
        for start in range(0, flat.shape[1], COLUMNS):  # the product of all at once would be a second `basis`
            part = slice(start, start + COLUMNS)
            flat[:, part] += vectors[rows].T @ block[:, part]
        roots.advance(len(rows))
    basis /= np.float32(np.sqrt(len(roots)))
    return basis, vectors * np.float32(np.sqrt(len(roots)))


def fit_noise(roots: Roots, predict: Callable[[Rows], Volume]) -> NDArray[np.float32]:
    """Measure the residual's standard deviation by predicted grey level: (LEVELS,).

    A level that no voxel has takes the deviation between its neighbours'.
    """
    squares, counts = np.zeros(LEVELS), np.zeros(LEVELS)
    for rows, volumes in roots.walk():
        for volume, predicted in zip(volumes, predict(rows), strict=True):
            levels = grey_levels(predicted).ravel()
            counts += np.bincount(levels, minlength=LEVELS)
            squares += np.bincount(levels, weights=((volume - predicted) ** 2).ravel(), minlength=LEVELS)
    filled = np.flatnonzero(counts)
    deviations = np.sqrt(squares[filled] / counts[filled])
    return np.interp(np.arange(LEVELS), filled, deviations).astype(np.float32)


def fit_spectrum(roots: Roots, predict: Callable[[Rows], Volume], noise: NDArray[np.float32]) -> Volume:
    """Measure the variance of each DCT coefficient of the residual, divided by its standard deviation.

    Returns:
        (D, H, W) float32 of mean 1; 1 everywhere when the prediction leaves nothing.
    """
    from scipy.fft import dctn

    total = np.zeros(roots.grid, np.float64)
    for rows, volumes in roots.walk():
        for volume, predicted in zip(volumes, predict(rows), strict=True):
            deviation = np.maximum(noise[grey_levels(predicted)], SMALLEST_NOISE)
            total += dctn((volume - predicted) / deviation, norm="ortho") ** 2
    mean = total.mean()
    return (total / mean if mean > 0 else np.ones(roots.grid)).astype(np.float32)
