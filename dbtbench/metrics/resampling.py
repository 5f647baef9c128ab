"""Resampling of patients: outcomes by patient, and how often each patient is drawn.

An outcomes table holds all that a metric depends on, one or more rows for each patient. A replicate of a
bootstrap is a row of whole numbers, one for each patient, so that all replicates are scored at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dbtbench.errors import UsageError

AT_ONCE = 2**21

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def patients(outcomes: pd.DataFrame) -> list[str]:
    """List the patients of an outcomes table in the order in which weights name them: sorted, as text."""
    return sorted(set(outcomes["PatientID"].astype(str)))


def patient_numbers(outcomes: pd.DataFrame) -> Integers:
    """Number each row of an outcomes table by its patient's place in `patients(outcomes)`."""
    return np.unique(outcomes["PatientID"].to_numpy(str), return_inverse=True)[1].astype(np.int64)


def draw_weights(n_patients: int, replicates: int, rng: np.random.Generator) -> Floats:
    """Draw as many patients as there are, with replacement, in each replicate: (R, P) how often each."""
    share = np.full(n_patients, 1 / n_patients)
    return rng.multinomial(n_patients, share, replicates).astype(np.float64)


def resample(weights: ArrayLike, n_patients: int, width: int, score: Callable[[Floats], Floats]) -> Floats:
    """Score replicates, as many at once as fit into a few megabytes.

    Args:
        weights: (R, P) whole numbers ≥ 0: how often each patient is drawn in each replicate.
        n_patients: P.
        width: how many numbers a replicate's score needs at a time.
        score: (r, P) float64 → (r,) or (r, K) float64.

    Returns:
        (R,) or (R, K) float64.

    Raises:
        UsageError: when the weights are not such numbers, or not as many.
    """
    drawn = np.asarray(weights, np.float64)
    if drawn.ndim != 2 or drawn.shape[1] != n_patients:
        raise UsageError(
            f"weights have shape {drawn.shape} for {n_patients} patients", "(replicates, patients)"
        )
    if (drawn < 0).any() or (drawn != np.round(drawn)).any():
        raise UsageError("weights must be whole numbers, 0 or more", "how often each patient is drawn")
    rows = max(1, AT_ONCE // max(width, 1))
    parts = [score(drawn[row : row + rows]) for row in range(0, max(len(drawn), 1), rows)]
    return np.concatenate(parts)
