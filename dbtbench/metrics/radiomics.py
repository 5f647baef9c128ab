"""Radiomic features of volumes: first order, co-occurrences and runs of grey levels, as IBSI defines them.

Source: Zwanenburg A et al. The Image Biomarker Standardization Initiative: standardized quantitative
radiomics for high-throughput phenotyping. Radiology 295(2):328–338, 2020; reference manual, v1.1.
Neighbours are those in the plane, because slices of tomosynthesis lie further apart than pixels and are
smeared; one matrix holds all slices and directions (the manual's 2.5D, fully merged).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.mask import Mask
from dbtbench.metrics.texture import choose_slices

GREY_LEVELS = 32
CROP = np.array([1.0, 1.5, 1.5])
"""Size of a lesion's crop, as a multiple of its box: margins belong to it."""
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""The four directions in the plane, as steps in rows and columns; the others are these backwards."""

STATISTICS = (
    *("mean", "variance", "skewness", "excess_kurtosis", "median", "p10", "p90", "iqr", "mad"),
    *("robust_mad", "rms", "entropy", "uniformity"),
)

Levels = NDArray[np.int64]
Features = dict[str, float]


def radiomics(volumes: Volume, mask: Mask) -> dict[str, NDArray[np.float64]]:
    """Compute features of the breast in each volume, in at most 8 of its slices, evenly spaced.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1]; 32 grey levels divide this range.
        mask: same shape, True inside the breast.

    Returns:
        (N,) float64 for each feature by its name; NaN where the mask is empty or a feature is not defined.
    """
    rows = []
    for volume, inside in zip(volumes[:, 0], mask[:, 0], strict=True):
        chosen = choose_slices(len(volume))
        planes, own = volume[chosen], inside[chosen]
        levels = np.where(own, np.clip((planes * GREY_LEVELS).astype(np.int64), 0, GREY_LEVELS - 1) + 1, 0)
        rows.append(first_order(planes[own], levels[own]) | glcm(levels) | glrlm(levels))
    names = rows[0] if rows else {}
    return {name: np.array([row[name] for row in rows], np.float64) for name in names}


def lesion_radiomics(volumes: Volume, mask: Mask, boxes: Sequence[Boxes]) -> dict[str, NDArray[np.float64]]:
    """Compute the features of a crop around each lesion: its box, half as wide and high again.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.
        boxes: for each volume (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels.

    Returns:
        (L,) float64 for each feature by its name, in the order of the boxes; NaN where a crop shows no
        breast.
    """
    rows: dict[str, list[float]] = {}
    for volume, inside, own in zip(volumes, mask, boxes, strict=True):
        for box in own.astype(np.float64):
            centre, half = (box[3:] + box[:3]) / 2, (box[3:] - box[:3]) / 2 * CROP
            low = np.floor(np.maximum(centre - half, 0)).astype(int)
            high = np.maximum(np.ceil(centre + half).astype(int), low + 1)
            place = (None, slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
            for name, values in radiomics(volume[place], inside[place]).items():
                rows.setdefault(name, []).extend(values.tolist())
    return {name: np.array(values, np.float64) for name, values in rows.items()}


def first_order(values: NDArray[np.floating], levels: Levels) -> Features:
    """Compute 13 statistics of intensities, whatever their places.

    Args:
        values: (n,) intensities.
        levels: (n,) the same as grey levels from 1.
    """
    if not values.size:
        return {f"firstorder_{name}": float("nan") for name in STATISTICS}
    x = values.astype(np.float64)
    centred = x - x.mean()
    variance = np.mean(centred**2)
    p10, p25, p50, p75, p90 = np.percentile(x, (10, 25, 50, 75, 90))
    middle = x[(x >= p10) & (x <= p90)]
    p = np.bincount(levels) / levels.size
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = np.mean(centred**3) / variance**1.5, np.mean(centred**4) / variance**2 - 3
    spread = p75 - p25, np.abs(centred).mean(), np.abs(middle - middle.mean()).mean(), np.sqrt(np.mean(x**2))
    found = [x.mean(), variance, *shape, p50, p10, p90, *spread, _entropy(p), np.sum(p**2)]
    return {f"firstorder_{name}": float(value) for name, value in zip(STATISTICS, found, strict=True)}


def glcm(levels: Levels, grey_levels: int = GREY_LEVELS) -> Features:
    """Compute 25 features of the co-occurrence matrix: which grey levels lie side by side.

    Source: Haralick RM, Shanmugam K, Dinstein I. Textural features for image classification. IEEE
    Transactions on Systems, Man, and Cybernetics SMC-3(6):610–621, 1973; as in IBSI's manual.

    Args:
        levels: (D, H, W) grey levels from 1; 0 outside.
        grey_levels: how many there can be.

    Returns:
        The features by name, each with `glcm_` before it; NaN where no two voxels are neighbours.
    """
    top = int(levels.max(initial=0)) + 1
    counts = np.zeros((top, top))
    for step in DIRECTIONS:
        one, other = _neighbours(levels, step)
        counts += np.bincount((one * top + other).ravel(), minlength=top * top).reshape(top, top)
    counts = (counts + counts.T)[1:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        described = _describe_pairs(
            counts / counts.sum() if counts.size else np.full((1, 1), np.nan), grey_levels
        )
    known = counts.sum() > 0
    return {f"glcm_{name}": float(value) if known else np.nan for name, value in described.items()}


def glrlm(levels: Levels) -> Features:
    """Compute 16 features of the run length matrix: how long a grey level stays the same.

    Source: Galloway MM. Texture analysis using gray level run lengths. Computer Graphics and Image Processing
    4(2):172–179, 1975; as in IBSI's manual.

    Args:
        levels: as for `glcm`.

    Returns:
        The features by name, each with `glrlm_` before it; NaN of no voxels.
    """
    longest, top = max(levels.shape[1:]) + 1, int(levels.max(initial=1)) + 1
    runs = np.zeros((top, longest))
    for step in DIRECTIONS:
        order, new_line = _lines(levels.shape[1], levels.shape[2], step)
        along = levels.reshape(len(levels), -1)[:, order]
        change = np.ones(along.shape, bool)
        change[:, 1:] = (along[:, 1:] != along[:, :-1]) | new_line[1:]
        starts = np.flatnonzero(change)
        length = np.diff(starts, append=along.size)
        found = along.ravel()[starts] * longest + length
        runs += np.bincount(found, minlength=top * longest)[: top * longest].reshape(top, longest)
    voxels = len(DIRECTIONS) * int(np.count_nonzero(levels))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {f"glrlm_{name}": float(value) for name, value in _describe_runs(runs, voxels).items()}


def _neighbours(levels: Levels, step: tuple[int, int]) -> tuple[Levels, Levels]:
    """Pair each voxel with its neighbour one step on, in the same slice."""
    down, right = step
    height, width = levels.shape[1:]
    rows, columns = slice(0, height - down), slice(max(0, -right), width - max(0, right))
    beyond = slice(columns.start + right, columns.stop + right)
    return levels[:, rows, columns], levels[:, down:, beyond]


@lru_cache(maxsize=16)
def _lines(height: int, width: int, step: tuple[int, int]) -> tuple[Levels, NDArray[np.bool_]]:
    """Order the pixels of a plane along the lines of a direction, and say where a line begins."""
    rows, columns = (place.ravel() for place in np.mgrid[:height, :width])
    down, right = step
    line = columns * down - rows * right  # the same for all pixels of a line
    order = np.lexsort((rows * down + columns * right * (not down), line))
    return order, np.diff(line[order], prepend=line.min() - 1) != 0


def _describe_pairs(p: NDArray[np.float64], grey_levels: int) -> dict[str, Any]:
    i, j = np.mgrid[1 : len(p) + 1, 1 : len(p) + 1]
    away, together = np.abs(i - j), i + j
    of_difference: NDArray[Any] = np.bincount(away.ravel(), p.ravel())
    of_sum: NDArray[Any] = np.bincount(together.ravel(), p.ravel())[2:]
    k, s = np.arange(len(of_difference)), np.arange(2, len(of_sum) + 2)
    margin = p.sum(axis=1)
    level = np.arange(1, len(p) + 1)
    mean = level @ margin
    variance = (level - mean) ** 2 @ margin
    both = margin[:, None] * margin
    entropy, of_margin = _entropy(p), _entropy(margin)
    crossed = -np.sum(p * _log2(both))
    centred = i + j - 2 * mean
    return {
        "joint_maximum": p.max(),
        "joint_average": np.sum(p * i),
        "joint_variance": np.sum(p * (i - mean) ** 2),
        "joint_entropy": entropy,
        "difference_average": of_difference @ k,
        "difference_variance": of_difference @ (k - of_difference @ k) ** 2,
        "difference_entropy": _entropy(of_difference),
        "sum_average": of_sum @ s,
        "sum_variance": of_sum @ (s - of_sum @ s) ** 2,
        "sum_entropy": _entropy(of_sum),
        "angular_second_moment": np.sum(p**2),
        "contrast": np.sum(p * away**2),
        "dissimilarity": np.sum(p * away),
        "inverse_difference": np.sum(p / (1 + away)),
        "normalised_inverse_difference": np.sum(p / (1 + away / grey_levels)),
        "inverse_difference_moment": np.sum(p / (1 + away**2)),
        "normalised_inverse_difference_moment": np.sum(p / (1 + away**2 / grey_levels**2)),
        "inverse_variance": of_difference[1:] @ (1 / k[1:] ** 2),
        "correlation": (np.sum(p * i * j) - mean**2) / variance,
        "autocorrelation": np.sum(p * i * j),
        "cluster_tendency": np.sum(p * centred**2),
        "cluster_shade": np.sum(p * centred**3),
        "cluster_prominence": np.sum(p * centred**4),
        "information_correlation_1": (entropy - crossed) / of_margin,
        "information_correlation_2": np.sqrt(np.maximum(1 - np.exp(-2 * (_entropy(both) - entropy)), 0)),
    }


def _describe_runs(runs: NDArray[np.float64], voxels: int) -> dict[str, float]:
    runs = runs[1:, 1:]
    total = runs.sum()
    level, length = np.mgrid[1 : runs.shape[0] + 1, 1 : runs.shape[1] + 1]
    p = runs / total
    by_level, by_length = runs.sum(axis=1), runs.sum(axis=0)
    return {
        "short_runs_emphasis": np.sum(p / length**2),
        "long_runs_emphasis": np.sum(p * length**2),
        "low_grey_level_emphasis": np.sum(p / level**2),
        "high_grey_level_emphasis": np.sum(p * level**2),
        "short_low_emphasis": np.sum(p / (level**2 * length**2)),
        "short_high_emphasis": np.sum(p * level**2 / length**2),
        "long_low_emphasis": np.sum(p * length**2 / level**2),
        "long_high_emphasis": np.sum(p * level**2 * length**2),
        "grey_level_non_uniformity": np.sum(by_level**2) / total,
        "normalised_grey_level_non_uniformity": np.sum(by_level**2) / total**2,
        "run_length_non_uniformity": np.sum(by_length**2) / total,
        "normalised_run_length_non_uniformity": np.sum(by_length**2) / total**2,
        "run_percentage": total / voxels if voxels else np.nan,
        "grey_level_variance": np.sum(p * (level - np.sum(p * level)) ** 2),
        "run_length_variance": np.sum(p * (length - np.sum(p * length)) ** 2),
        "run_entropy": _entropy(p),
    }


def _log2(p: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms to the base of 2, and 0 where there is none."""
    found: NDArray[np.float64] = np.log2(np.where(p > 0, p, 1))
    return found


def _entropy(p: NDArray[Any]) -> float:
    return float(np.where(np.isnan(p), np.nan, -p * _log2(p)).sum())
