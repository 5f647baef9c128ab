"""A comparison of an arm with the baseline and with its controls, and its verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dbtbench.leaderboard.variance import LEVEL, Estimate
from dbtbench.metric import Metric, number

ENOUGH_SEEDS = 5
SMALLEST_P = 0.001


@dataclass(frozen=True)
class Contrast:
    """By how much an arm is better than another one; signed so that + is better.

    Attributes:
        other: label of the other arm; empty where there is none.
        gain: the difference.
        p_in_order: its p-value, and never less than those of the contrasts before it.
    """

    other: str = ""
    gain: Estimate = field(default_factory=Estimate)
    p_in_order: float = math.nan

    def words(self) -> str:
        """Say it in words; what was not reached in the order is never called better."""
        value, interval = self.gain.value, _ends(self.gain)
        if not np.isfinite(self.gain.p):
            return f"{number(value, '+')} over {self.other}"
        if value < 0 and self.gain.p <= LEVEL:
            return f"{number(-value)} worse than {self.other} {_ends(self.gain.turn(lambda x: -x))}"
        if self.p_in_order <= LEVEL:
            return f"{number(value)} better than {self.other} {interval}"
        if self.gain.p <= LEVEL:
            return f"{number(value, '+')} over {self.other} {interval}, which was not to be tested any more"
        return f"not distinguishable from {self.other}: {number(value, '+')} {interval}"


@dataclass(frozen=True)
class Comparison:
    """A comparison of an arm with the baseline; NaN where something is not defined.

    Attributes:
        metric: what is compared.
        difference: mean over seeds of the arm's score less that of the baseline's.
        p_holm: the difference's p-value, corrected by Holm for the number of augmentations; NaN for other
            arms.
        seeds: the arm's number of seeds.
        baseline_seeds: the baseline's.
        recovered: what is better as a share of what the ceiling has better; NaN for the ceiling itself, for a
            target, and unless the ceiling's whole interval is better.
        ceiling_factor: how many times the baseline's real volumes the ceiling trains with.
        patients_equivalent: additional real patients that are as much better by the learning curve.
        lesions_equivalent: additional real lesions that are.
        over_shuffled: over the same volumes with the boxes of others.
        over_normals: over its lesion-free volumes alone.
        over_unlearned: over the best augmentation that learns nothing.
        method: how the intervals and p-values were made.
    """

    metric: Metric
    difference: Estimate
    p_holm: float = math.nan
    seeds: int = 0
    baseline_seeds: int = 0
    recovered: Estimate = field(default_factory=Estimate)
    ceiling_factor: float = math.nan
    patients_equivalent: Estimate = field(default_factory=Estimate)
    lesions_equivalent: Estimate = field(default_factory=Estimate)
    over_shuffled: Contrast = field(default_factory=Contrast)
    over_normals: Contrast = field(default_factory=Contrast)
    over_unlearned: Contrast = field(default_factory=Contrast)
    method: str = ""

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Contrasts with other arms than the baseline, in the order in which they are tested."""
        return tuple(c for c in (self.over_shuffled, self.over_normals, self.over_unlearned) if c.other)

    def verdict(self, arm: str, baseline: str) -> str:
        """Say the comparison in one sentence.

        Args:
            arm: name of the arm compared.
            baseline: name of the arm that it is compared with.
        """
        value = self.difference.value
        if not np.isfinite(value):
            return f"{arm}: {self.metric.title} is not defined on these data"
        said = f"{arm}: {self.metric.compare(value, baseline)}"
        if np.isfinite(self.difference.low):
            turned = self.metric.direction != "higher" and value < 0
            shown = self.difference.turn(lambda end: -end) if turned else self.difference
            said += f" {_ends(shown)}"
        said += f", {self.seeds} seed{'s' * (self.seeds > 1)} against {self.baseline_seeds}"
        if min(self.seeds, self.baseline_seeds) < ENOUGH_SEEDS:
            return f"{said}: too few seeds to tell"
        which, p = ("Holm p", self.p_holm) if np.isfinite(self.p_holm) else ("p", self.difference.p)
        if not np.isfinite(p):
            return f"{said}: nothing varies between seeds and patients, so nothing can be tested"
        said += f", {which} {p:.2g}" if p >= SMALLEST_P else f", {which} < {SMALLEST_P}"
        if p > LEVEL:
            said += f": not distinguishable from {baseline}"
        elif self.metric.better(value) > 0 and np.isfinite(self.recovered.value):
            times = f"{self.ceiling_factor:.2g}x the" if np.isfinite(self.ceiling_factor) else "more"
            said += f"; {100 * self.recovered.value:.0f} % of what {times} real data gave"
        return "; ".join([said, *(contrast.words() for contrast in self.contrasts)])


def judge_learning(metric: Metric, baseline: str, value: float, references: Mapping[str, float]) -> str:
    """Say in one sentence whether the baseline is better than what trains on nothing.

    Args:
        metric: what is compared.
        baseline: name of the baseline.
        value: its score.
        references: scores of the arms that train on nothing; the best of them counts.

    Returns:
        The sentence; empty without references.
    """
    known = {name: score for name, score in references.items() if np.isfinite(score)}
    if not known or not np.isfinite(value):
        return ""
    best = max(known, key=lambda name: metric.better(known[name] - value))
    learned = "something" if metric.better(value - known[best]) > 0 else "nothing that counts"
    against = f"{number(known[best])} of {best}, the best without training"
    return f"{baseline}: {metric.title} {number(value)} against {against}: it has learned {learned}"


def _ends(estimate: Estimate) -> str:
    """Format an interval as finely as its value."""
    return f"[{', '.join(number(end, like=estimate.value) for end in (estimate.low, estimate.high))}]"
