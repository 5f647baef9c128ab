"""Numbers that are the same on every processor: named random streams, and values on a grid.

Addition, multiplication, division and square root are exact to the last bit everywhere. Sums of many terms,
Fourier transforms, matrix products and functions such as exp are not: they depend on the width of a
processor's registers and on the library. So their results are rounded to a grid that is some 10⁹ times
coarser than those differences, before anything is decided by them. A value between two steps of the grid
can still fall on either side, once in 10⁹ or so; what follows differs by one step there, not elsewhere.
Where a result is itself a multiple of a power of two (a weighted sum of values on a grid, by weights on a
grid, of 53 bits at most), it is exact in any order of summation, and nothing can fall.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]

STEP = 2.0**-10
"""Grid of shares, of normalised fields, of lengths in mm and of the weights of interpolations."""
_TIES = 0.5 + 2.0**-14 / 3
"""Just above a half: a multiple of a finer power of two never lies on the border between two steps."""
_CHUNK = 1 << 14


def stream(*name: int | str) -> np.random.Generator:
    """Open the random numbers of a name, such as seed, patient, view and purpose.

    Of its methods, `random`, `uniform`, `integers`, `choice` and `shuffle` compute from integers. `normal`
    and `poisson` reject by the last bit of a logarithm: use `gaussian` instead.
    """
    digest = hashlib.sha256(repr(name).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def gaussian(rng: np.random.Generator, size: int | Sequence[int] = ()) -> Array:
    """Draw normal variates of mean 0 and variance 1: the inverse distribution function of 16 random bits.

    Each takes the same number of bits, so none shifts the others. None lies beyond ±4.3.
    """
    return _normal_quantiles()[rng.integers(0, 1 << 16, size, dtype=np.uint16)]


@cache
def _normal_quantiles() -> Array:
    return round_to_grid(ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)), 2.0**-12)


def round_to_grid(values: ArrayLike, step: float = STEP) -> Array:
    """Round to multiples of `step`, a power of two; into a new array.

    Sensible steps are 2⁻⁸ to 2⁻¹⁸ of the largest values: fine against what is modelled, coarse against 2⁻⁵².
    """
    out = np.array(values, np.float64, order="C")  # so that `flat` is a view
    flat = out.reshape(-1)
    for start in range(0, flat.size, _CHUNK):  # stays in the cache
        part = flat[start : start + _CHUNK]
        part *= 1 / step
        part += _TIES
        np.floor(part, out=part)
        part *= step
    return out
