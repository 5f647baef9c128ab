"""The axes along which patients differ, each with the shares of patients that have a value.

Shares are met by the largest remainder, and dealt within each label: an axis is no hint at the label, and two
axes are independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dbtbench.data.dataset import LABELS
from dbtbench.errors import UsageError
from dbtbench.phantom.anatomy import DENSITIES
from dbtbench.phantom.lesions import SIZE_RANGE_MM
from dbtbench.phantom.numbers import stream

Value = str | float
Shares = Mapping[Any, float]
"""Frequencies of the values of an axis, on any scale."""

BOXED = ("benign", "cancer")
"""Labels of patients whose lesion has a box."""


@dataclass(frozen=True)
class Axis:
    """The values that an axis may have, and the labels of the patients who have one.

    Attributes:
        names: the values, where they are names.
        low, high: bounds of the values, where they are numbers.
        labels: of the patients who have a value.
    """

    names: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    labels: tuple[str, ...] = LABELS

    def read(self, text: str) -> Value | None:
        """Read a value; None where it is none."""
        if self.names:
            return text if text in self.names else None
        try:
            number = float(text)
        except ValueError:
            return None
        return number if self.low <= number <= self.high else None


AXES = {
    "mix": Axis(LABELS),
    "density": Axis(tuple(DENSITIES)),
    "dose": Axis(low=0.01, high=100.0),
    "conspicuity": Axis(low=0.0, high=100.0, labels=("actionable", *BOXED)),
    "lesion_size": Axis(low=SIZE_RANGE_MM[0], high=SIZE_RANGE_MM[1], labels=BOXED),
    "lesion_kind": Axis(("mass", "spiculated", "distortion"), labels=BOXED),
}


def parse_shares(axis: str, text: str) -> dict[Value, float]:
    """Read the shares of an axis: `b=0.5,c=0.5`, or one value alone, as `c`.

    Args:
        axis: of `AXES`.
        text: values with their frequencies, on any scale.

    Raises:
        UsageError: for a value that the axis has not, one that comes twice, or frequencies that are none.
    """
    known, option = AXES[axis], f"--{axis.replace('_', '-')}"
    shares: dict[Value, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        value = known.read(name.strip())
        if value is None:
            hint = ", ".join(known.names) or f"numbers from {known.low:g} to {known.high:g}"
            raise UsageError(f"{option} has no value {name.strip()!r}", f"known: {hint}")
        if value in shares:
            raise UsageError(f"{option} names {name.strip()} twice", "name each value once")
        try:
            shares[value] = float(share) if "=" in part else 1.0
        except ValueError:
            raise UsageError(f"{share!r} is no share of patients", f"as in {option} {part}=0.5") from None
    share_out(0, shares)
    return shares


def share_out(count: int, shares: Shares) -> dict[Value, int]:
    """Count the patients of each value: shares by the largest remainder (Hamilton's method).

    Ties go by the order of the values.

    Raises:
        UsageError: for shares that are no frequencies.
    """
    weights = np.array([*shares.values()], float)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise UsageError(f"{dict(shares)} are no frequencies", "give numbers from 0 up, not all 0")
    exact = count * weights / weights.sum()
    counts = np.floor(exact.round(9)).astype(int)
    # The rounding settles ties by the order of the values, whatever the last bits of the remainders.
    order = np.argsort(-(exact - counts).round(9), kind="stable")
    counts[order[: count - counts.sum()]] += 1
    return {value: int(n) for value, n in zip(shares, counts, strict=True)}


def deal(axis: str, shares: Shares, labels: Sequence[str], seed: int) -> list[Value | None]:
    """Give every patient a value: each value its share of all, and within each label to less than two.

    Args:
        axis: of `AXES`.
        shares: of its values.
        labels: of the patients, in order.
        seed: of the cohort.

    Returns:
        A value for each patient; None for a label whose patients have none.
    """
    order = [*range(len(labels))]
    stream(seed, axis).shuffle(order)
    wanted = [i for label in AXES[axis].labels for i in order if labels[i] == label]
    # The n patients of a value stand at (k + ½)/n: every stretch of the list has its share of each value.
    turns = [
        ((k + 0.5) / n, place, value)
        for place, (value, n) in enumerate(share_out(len(wanted), shares).items())
        for k in range(n)
    ]
    dealt: list[Value | None] = [None] * len(labels)
    for i, (_, _, value) in zip(wanted, sorted(turns, key=lambda turn: turn[:2]), strict=True):
        dealt[i] = value
    return dealt
