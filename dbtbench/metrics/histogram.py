"""Shape of the grey-level histogram of a set of volumes: distances, and whether it has two modes.

Every function but `histogram` takes counts of 256 grey levels, so that sets of any size are streamed and
the order of volumes does not matter. Statistics that need values take each level's mass as spread evenly
over the level: what jittering by half a grey level does, without random numbers. Bare quantised values
would count every level as a mode of its own (`dip` of 256 levels: p = 0 for a normal sample).
"""

from __future__ import annotations

import diptest
import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask

LEVELS = 256
CENTRES = (np.arange(LEVELS) + 0.5) / LEVELS
AIR_LEVELS = 8
MOMENT_VALUES = 72_000  # as many as the published table of the dip statistic goes to
MIXTURE_VALUES = 4_096
SMOOTHING_LEVELS = 3.0
SMALLEST_MODE = 0.01

Counts = NDArray[np.int64]


def histogram(volumes: Volume, mask: Mask | None = None) -> Counts:
    """Count the voxels of each of 256 grey levels.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1]; values beyond go to the first or last level.
        mask: same shape; only voxels where it is True are counted.

    Returns:
        (256,) int64; level i covers [i/256, (i+1)/256).
    """
    levels = np.clip((volumes if mask is None else volumes[mask]) * LEVELS, 0, LEVELS - 1).astype(np.uint8)
    return np.bincount(levels.ravel(), minlength=LEVELS).astype(np.int64)


def dip(counts: Counts) -> float:
    """Hartigan's dip: the largest distance between the distribution and the nearest unimodal one.

    Between 0 (one mode) and 0.25 (two equal spikes). Its p-value is left out: with millions of voxels every
    distribution has p = 0.

    Source: Hartigan JA, Hartigan PM. The dip test of unimodality. Annals of Statistics 13(1):70–84, 1985.
    """
    values = _values(counts, MOMENT_VALUES)
    return float(diptest.dipstat(values)) if values.size else float("nan")


def ashman_d(counts: Counts) -> float:
    """Ashman's D = √2 |μ₁ − μ₂| / √(σ₁² + σ₂²) of a two-component Gaussian mixture.

    D > 2 is needed for a clean separation; it is not proof of one (a uniform distribution has D ≈ 3).

    Source: Ashman KM, Bird CM, Zepf SE. Detecting bimodality in astronomical datasets.
    Astronomical Journal 108:2348–2361, 1994.
    """
    from sklearn.mixture import GaussianMixture

    # It takes no weights, so evenly spaced quantiles stand for all voxels.
    values = _values(counts, MIXTURE_VALUES)
    if not values.size:
        return float("nan")
    mixture = GaussianMixture(2, tol=1e-5, max_iter=1000, random_state=0).fit(values[:, None])
    first, second = mixture.means_[:, 0]
    return float(np.sqrt(2) * abs(first - second) / np.sqrt(mixture.covariances_.sum()))


def bimodality_coefficient(counts: Counts) -> float:
    """Sarle's bimodality coefficient, (skewness² + 1) / kurtosis, in the limit of many values.

    Kurtosis is the fourth standardised moment (3 for a normal distribution). 5/9 for a uniform distribution,
    1 for two spikes; a skewed distribution with one mode also exceeds 5/9.

    Source: SAS Institute. SAS/STAT User's Guide, the CLUSTER procedure (attributed to W. S. Sarle).
    """
    values = _values(counts, MOMENT_VALUES)
    if not values.size:
        return float("nan")
    return float((scipy.stats.skew(values) ** 2 + 1) / scipy.stats.kurtosis(values, fisher=False))


def valley_depth(counts: Counts) -> float:
    """Measure the valley between the two main modes of the smoothed histogram: 1 − valley / lower mode.

    0 for one mode, 1 when nothing lies between two.
    """
    if not counts.sum():
        return float("nan")
    smooth, peaks = _peaks(counts)
    if len(peaks) < 2:
        return 0.0
    low, high = sorted(peaks[:2])
    return float(1 - smooth[low:high].min() / min(smooth[low], smooth[high]))


def modes(counts: Counts) -> NDArray[np.float64]:
    """Intensities of the main modes of the smoothed histogram, most prominent first: none, one or two."""
    return CENTRES[_peaks(counts)[1][:2]]


def air_mode_mass(counts: Counts) -> float:
    """Share of the voxels in the air mode: darker than 8/256 (windowed air is 0, fat lies near 0.2)."""
    total = counts.sum()
    return float(counts[:AIR_LEVELS].sum() / total) if total else float("nan")


def wasserstein(counts: Counts, reference: Counts) -> float:
    """Wasserstein-1 distance between two histograms, in units of the intensity range.

    The area between the two cumulative distributions: by how much intensities would have to be moved.
    """
    if not counts.sum() or not reference.sum():
        return float("nan")
    return float(scipy.stats.wasserstein_distance(CENTRES, CENTRES, counts, reference))


def _values(counts: Counts, n: int) -> NDArray[np.float64]:
    """`n` evenly spaced quantiles of the distribution that is flat within each level; none of no voxels."""
    if not counts.sum():
        return np.empty(0)
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    return np.interp((np.arange(n) + 0.5) / n, cumulative, np.arange(LEVELS + 1) / LEVELS)


def _peaks(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the smoothed histogram and the levels of its peaks, most prominent first."""
    smooth = scipy.ndimage.gaussian_filter1d(counts.astype(np.float64), SMOOTHING_LEVELS, mode="reflect")
    floor = max(SMALLEST_MODE * smooth.max(), np.finfo(float).tiny)
    # Zeros on both sides make a mode at the first or last level a peak.
    peaks, found = scipy.signal.find_peaks(np.pad(smooth, 1), prominence=floor)
    return smooth, peaks[np.argsort(-found["prominences"], kind="stable")] - 1
