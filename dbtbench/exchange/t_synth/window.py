"""The window of a set: two robust quantiles of its training volumes become 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.errors import UnreadableError
from dbtbench.exchange.t_synth.header import read_header
from dbtbench.exchange.t_synth.reconstruction import LARGEST, open_raw
from dbtbench.runtime.pool import Pool

QUANTILES = (0.005, 0.995)
ENOUGH = 64
"""Volumes that are sampled, where there are as many."""
SLICES = 5
LATTICE = 128
"""Slices of a volume, and pixels along each axis of a slice, that are sampled."""

NOTHING = "nothing: no volume can be read"


@dataclass(frozen=True)
class Window:
    """The stored values that become 0 and 1, and the volumes that they were measured on.

    Attributes:
        low, high: in the file's own values.
        measured_on: such as `64 volumes of the training split`.
    """

    low: float
    high: float
    measured_on: str

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map values to [0, 1]; what lies outside the window is clipped."""
        scaled = (values - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.clip(scaled, 0, 1, dtype=np.float32)  # type: ignore[no-any-return]

    def describe(self) -> dict[str, Any]:
        """Describe it for `intensity` of dataset.json."""
        low, high = QUANTILES
        return {
            "window": "quantiles",
            "low": self.low,
            "high": self.high,
            "quantiles": f"{low:g} and {high:g}",
            "measured_on": self.measured_on,
            "resample": "area",
        }

    @classmethod
    def recall(cls, described: Any) -> Window | None:
        """Make a window of its description; None when that is not one."""
        try:
            window = cls(float(described["low"]), float(described["high"]), str(described["measured_on"]))
        except (KeyError, TypeError, ValueError):
            return None
        return window if window.describe() == described and window.low < window.high else None


def measure_window(root: Path, train: Iterable[str], others: Iterable[str], pool: Pool) -> Window:
    """Measure the window on the training volumes; on all of them only where none is for training.

    The first `ENOUGH` volumes that can be read are sampled, so that the result does not depend on the number
    of processes. It is rounded to 6 digits.

    Args:
        root: the collection's folder.
        train: raw files of the training split, relative to it, in an order that mixes the cohorts.
        others: those of the other splits.
        pool: the workers.
    """
    for files, name in ((train, "training volumes"), (others, "volumes, none of them for training")):
        samples = _sample_enough(root, list(files), pool)
        if samples:
            low, high = _span(np.concatenate(samples))
            return Window(low, high, f"{len(samples)} {name}")
    return Window(0.0, 1.0, NOTHING)


def _sample_enough(root: Path, files: list[str], pool: Pool) -> list[NDArray[np.float32]]:
    """Sample volumes until there are enough of them."""
    samples: list[NDArray[np.float32]] = []
    for first in range(0, len(files), ENOUGH):
        part = files[first : first + ENOUGH]
        sampled = dict(pool.run(partial(sample_values, root), part))
        good = [sampled[file] for file in part]
        samples += [values for values in good if values is not None and len(values)]
        if len(samples) >= ENOUGH:
            break
    return samples[:ENOUGH]


def sample_values(root: Path, file: str) -> NDArray[np.float32]:
    """Read values of a few slices, on a lattice; none when the volume will be rejected for its values.

    Args:
        root: the collection's folder.
        file: the raw file, relative to it.
    """
    try:
        header = read_header((root / file).with_suffix(".mhd"))
        raw = open_raw(root / file, header)
    except UnreadableError:
        return np.empty(0, np.float32)
    slices, *plane = header.shape
    rows, columns = (slice(None, None, -(-n // LATTICE)) for n in plane)
    numbers = sorted({int((part + 0.5) * slices / SLICES) for part in range(SLICES)})
    with np.errstate(over="ignore"):
        values = np.concatenate([np.asarray(raw[n, rows, columns], np.float32).ravel() for n in numbers])
    low, high = values.min(), values.max()
    real = -LARGEST <= low < high <= LARGEST  # false for NaN
    return values if real else np.empty(0, np.float32)


def _span(values: Sequence[float] | NDArray[np.float32]) -> tuple[float, float]:
    """Compute the ends of the window; where nearly all values are one, they are the least and the largest."""
    low, high = (float(f"{value:.6g}") for value in np.quantile(values, QUANTILES))
    if low < high:
        return low, high
    low, high = float(np.min(values)), float(np.max(values))
    return (low, high) if low < high else (low, low + 1)
