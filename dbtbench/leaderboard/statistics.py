"""Tests whether a difference is luck: seeds and patients are resampled together, the same for every arm.

A bootstrap of patients alone answers for one trained detector. The gain of an augmentation must also hold for
the next seed, so seeds are resampled too: with patients alone, an augmentation that does nothing is
"significant" far more often than the nominal 5 % (`tests/leaderboard/test_statistics.py` simulates both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.metric import Metric, number
from dbtbench.metrics.resampling import Floats, patients
from dbtbench.runtime.progress import progress
from dbtbench.task import BASELINE, CEILING, PLACEBO

ENOUGH_SEEDS = 5
LEVEL = 0.05
SMALLEST_P = 0.001
SHARES = ("recovered", "equivalent", "over_placebo")
"""Attributes of a comparison that say how much a difference is worth, each with its interval."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of an arm with the baseline; NaN where something is not defined.

    Attributes:
        metric: what is compared.
        difference: mean over seeds of the arm's value less the baseline's with the same seed.
        low: lower end of the difference's 95 % interval.
        high: its upper end.
        p_better: share of replicates in which the arm is better; NaN for a target.
        p: two-sided p-value of no difference.
        p_holm: the same, corrected by Holm for the number of arms; NaN for the ceiling and the learning
            curve.
        seeds: number of seeds that arm and baseline share.
        differences: the difference with each of them, in their order.
        recovered: what is better as a share of what the ceiling has better; NaN for the ceiling itself, for a
            target, and unless the ceiling is better over its whole interval.
        recovered_low: lower end of its 95 % interval.
        recovered_high: its upper end.
        ceiling_factor: how many times the baseline's real volumes the ceiling trains with.
        equivalent: number of additional real volumes that are as much better by the learning curve: 0 below
            the curve, infinite beyond it; NaN for real data themselves and for a target.
        equivalent_low: lower end of its 95 % interval.
        equivalent_high: its upper end.
        over_placebo: by how much it is better than the placebo; NaN for the placebo itself, where there is
            none, and for a target.
        over_placebo_low: lower end of its 95 % interval.
        over_placebo_high: its upper end.
        method: how the intervals and p-values were made.
    """

    metric: Metric
    difference: float
    low: float
    high: float
    p_better: float
    p: float
    p_holm: float
    seeds: int
    differences: tuple[float, ...]
    recovered: float
    recovered_low: float
    recovered_high: float
    ceiling_factor: float
    equivalent: float
    equivalent_low: float
    equivalent_high: float
    over_placebo: float
    over_placebo_low: float
    over_placebo_high: float
    method: str

    def verdict(self, arm: str, baseline: str) -> str:
        """Say the comparison in one sentence.

        Args:
            arm: name of the arm compared.
            baseline: name of the arm that it is compared with.
        """
        if not self.seeds:
            return f"{arm}: no seed in common with {baseline}"
        if not np.isfinite(self.difference):
            return f"{arm}: {self.metric.title} is not defined on these data"
        said = f"{arm}: {self.metric.compare(self.difference, baseline)} {self._interval()}"
        said += f", {self.seeds} seed{'s' * (self.seeds > 1)}"
        if self.seeds < ENOUGH_SEEDS:
            return f"{said}: too few seeds to tell"
        which, p = ("Holm p", self.p_holm) if np.isfinite(self.p_holm) else ("p", self.p)
        said += f", {which} {p:.2g}" if p >= SMALLEST_P else f", {which} < {SMALLEST_P}"
        if not p <= LEVEL:
            return f"{said}: not distinguishable from {baseline}"
        better = self.metric.better(self.difference) > 0
        if better and np.isfinite(self.recovered):
            times = f"{self.ceiling_factor:.2g}x the" if np.isfinite(self.ceiling_factor) else "more"
            said += f"; {100 * self.recovered:.0f} % of what {times} real data gave"
        if better and np.isfinite(self.over_placebo):
            over = self.over_placebo
            word = "better" if over >= 0 else "worse"
            ends = [number(end, like=over) for end in (self.over_placebo_low, self.over_placebo_high)]
            said += f"; {number(abs(over))} {word} than the placebo [{', '.join(ends)}]"
        return said

    def _interval(self) -> str:
        """Format the difference's interval, in the sign in which the verdict words it."""
        ends = [self.low, self.high]
        if self.metric.direction != "higher" and self.difference < 0:
            ends = [-self.high, -self.low]
        return f"[{number(ends[0], like=self.difference)}, {number(ends[1], like=self.difference)}]"


def compare(
    metric: Metric,
    runs: Mapping[str, Mapping[int, pd.DataFrame]],
    baseline: str = BASELINE,
    ceiling: str = CEILING,
    placebo: str = PLACEBO,
    volumes: Mapping[str, int] | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare every arm with the baseline by a hierarchical bootstrap.

    A replicate draws patients (with all their volumes) and seeds with replacement, independently of each
    other and the same for every arm. Intervals are percentiles of the replicates in which the metric is
    defined; p is twice the smaller share on either side of 0, the data counted as a replicate on both sides.

    Source: Bouthillier X et al. Accounting for variance in machine learning benchmarks. MLSys 2021 (vary
    every source of variation); Davison AC, Hinkley DV. Bootstrap methods and their application. Cambridge
    University Press, 1997 (percentiles, p-values); Holm S. A simple sequentially rejective multiple test
    procedure. Scandinavian Journal of Statistics 6(2):65–70, 1979.

    Args:
        metric: one that can be resampled.
        runs: `runs[arm][seed]`, an outcomes table; all have the same patients.
        baseline: the arm that the others are compared with, and the floor.
        ceiling: the arm that has all better that can be recovered; it need not be there.
        placebo: the arm that is better by what more of the same gives; it need not be there.
        volumes: for each arm with real data only, how many volumes it trains with: the learning curve.
        replicates: how many.
        seed: of the draws.

    Returns:
        A comparison for each arm but the baseline.

    Raises:
        MissingError: when the baseline has no runs.
        StaleError: when the runs were not tested on the same patients.
        UsageError: for a metric that cannot be resampled.
    """
    values = _values(metric, runs, baseline, replicates, seed)
    by_seed = _by_seed(values, baseline)
    differences = {arm: _draw_seeds(own, replicates, seed) for arm, own in by_seed.items()}
    better = {arm: metric.better(difference) for arm, difference in differences.items()}
    real = {arm: n for arm, n in (volumes or {}).items() if arm == baseline or by_seed.get(arm)}
    over = {arm: _draw_seeds(own, replicates, seed) for arm, own in _by_seed(values, placebo).items()}
    shares = {name: dict.fromkeys(better, np.full(replicates + 1, np.nan)) for name in SHARES}
    if metric.direction != "target":  # nothing is better than a target
        shares["recovered"] |= _share_of_ceiling(better, ceiling)
        shares["equivalent"] |= _equivalent(better, real, baseline)
        shares["over_placebo"] |= {arm: metric.better(own) for arm, own in over.items() if arm in better}
    others = {arm: own for arm, own in differences.items() if arm != ceiling and arm not in real}
    corrected = holm({arm: _p(difference) for arm, difference in others.items()})
    made = {}
    for arm, difference in differences.items():
        low, high = _interval(difference)
        made[arm] = Comparison(
            metric=metric,
            difference=float(difference[0]),
            low=low,
            high=high,
            p_better=float("nan") if metric.direction == "target" else _share_above(better[arm]),
            p=_p(difference),
            p_holm=corrected.get(arm, float("nan")),
            seeds=len(by_seed[arm]),
            differences=tuple(float(own[0]) for own in by_seed[arm]),
            **_summarise({name: values[arm] for name, values in shares.items()}),
            ceiling_factor=real[ceiling] / real[baseline] if {ceiling, baseline} <= real.keys() else np.nan,
            method=f"hierarchical bootstrap, seeds x patients, {replicates} replicates",
        )
    return made


def _summarise(shares: Mapping[str, Floats]) -> dict[str, float]:
    """Summarise values on the data themselves, and their intervals, as attributes of a comparison."""
    made: dict[str, float] = {}
    for name, values in shares.items():
        low, high = _interval(values)
        made |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return made


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Compute Holm's corrected p-values; statsmodels has them too, but is no dependency for five lines.

    Args:
        p: the p-values of a family of hypotheses; NaN ones do not belong to it.

    Returns:
        The corrected ones, up to 1, NaN where they were.
    """
    known = sorted((value, name) for name, value in p.items() if np.isfinite(value))
    factors = np.arange(len(known), 0, -1)
    steps = np.minimum(np.maximum.accumulate([value for value, _ in known] * factors), 1.0)
    corrected = {name: float(step) for (_, name), step in zip(known, steps, strict=True)}
    return {name: corrected.get(name, float("nan")) for name in p}


def _values(
    metric: Metric, runs: Mapping[str, Mapping[int, pd.DataFrame]], baseline: str, replicates: int, seed: int
) -> dict[str, dict[int, Floats]]:
    """Compute each run's metric on the data themselves and on each replicate of its patients: (1 + R,)."""
    resample = metric.resample
    if resample is None:
        raise UsageError(f"metric {metric.name!r} cannot be resampled", "it declares no outcomes")
    if not runs.get(baseline):
        raise MissingError(f"there is no run of the arm {baseline!r} to compare with", "evaluate it too")
    named = patients(next(iter(runs[baseline].values())))
    for arm, seeds in runs.items():
        for of_seed, outcomes in seeds.items():
            if patients(outcomes) != named:
                raise StaleError(
                    f"{arm}, seed {of_seed}, was not tested on the same patients as {baseline}",
                    "compare runs on the same data and split",
                )
    weights = _draws(len(named), len(named), replicates, np.random.default_rng([seed, 0]))
    with progress("bootstrap", sum(map(len, runs.values())), "runs") as advance:

        def score(outcomes: pd.DataFrame) -> Floats:
            advance()
            return np.asarray(resample(outcomes, weights), np.float64)

        return {arm: {own: score(table) for own, table in seeds.items()} for arm, seeds in runs.items()}


def _draws(things: int, draws: int, replicates: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Count how often each of some things is drawn: (1 + R, things), first each of them once."""
    drawn = rng.multinomial(draws, np.full(things, 1 / things), size=replicates)
    return np.concatenate([np.ones((1, things), np.int64), drawn])


def _by_seed(values: Mapping[str, Mapping[int, Floats]], other: str) -> dict[str, list[Floats]]:
    """Compute every arm's difference from another one, with each seed that both have: (1 + R,) each."""
    than = values.get(other, {})
    return {
        arm: [own[seed] - than[seed] for seed in sorted(own.keys() & than.keys())]
        for arm, own in values.items()
        if arm != other
    }


def _draw_seeds(by_seed: Sequence[Floats], replicates: int, seed: int) -> Floats:
    """Average the difference over the seeds that each replicate draws: (1 + R,).

    One fewer is drawn than there are: of so few, as many as there are would vary too little, by 1/5 of the
    variance for five (Rao JNK, Wu CFJ. Resampling inference with complex survey data. Journal of the American
    Statistical Association 83(401):231–241, 1988).
    """
    if not by_seed:
        return np.full(replicates + 1, np.nan)
    drawn = max(1, len(by_seed) - 1)
    weights = _draws(len(by_seed), drawn, replicates, np.random.default_rng([seed, 1]))
    return np.asarray((weights.T * by_seed).sum(axis=0) / weights.sum(axis=1))


def _share_of_ceiling(gains: Mapping[str, Floats], ceiling: str) -> dict[str, Floats]:
    """Express gains as a share of the ceiling's, which must be above 0, or nothing can be recovered."""
    whole = gains.get(ceiling, np.empty(0))
    undefined = {arm: np.full_like(gain, np.nan) for arm, gain in gains.items()}
    if not whole.size or not _interval(whole)[0] > 0:
        return undefined
    with np.errstate(invalid="ignore", divide="ignore"):
        # Few replicates have no ceiling above the floor: any gain there is beyond all bounds.
        shares = {arm: gain / np.maximum(whole, 0) for arm, gain in gains.items() if arm != ceiling}
    return undefined | shares


def _equivalent(gains: Mapping[str, Floats], volumes: Mapping[str, int], baseline: str) -> dict[str, Floats]:
    """Count the additional real volumes that give the same gain, by each replicate's own learning curve.

    The curve is the isotonic regression of the gains of real data on their number, by least squares: a
    running maximum would take the luckiest point for the curve.
    """
    equivalent = {arm: np.full_like(gain, np.nan) for arm, gain in gains.items()}
    points = sorted(volumes, key=lambda arm: volumes[arm])
    if baseline not in points or len(points) < 2:
        return equivalent
    from sklearn.isotonic import isotonic_regression  # takes a second, which a board without a curve saves

    extra = np.array([volumes[arm] - volumes[baseline] for arm in points], np.float64)
    nothing = np.zeros(len(next(iter(gains.values()))))
    measured = np.stack([gains.get(arm, nothing) for arm in points], axis=1)
    defined = np.flatnonzero(np.isfinite(measured).all(axis=1))
    curves = np.array([isotonic_regression(measured[row]) for row in defined]).reshape(-1, len(points))
    for arm in gains.keys() - volumes.keys():
        equivalent[arm][defined] = _read_off(gains[arm][defined], extra, curves)
    return equivalent


def _read_off(gain: Floats, extra: Floats, curves: Floats) -> Floats:
    """Find where each row of `curves` (R, K), over the K numbers `extra`, first reaches its gain (R,)."""
    rows = np.arange(len(gain))
    right = (curves < gain[:, None]).sum(axis=1)
    inside = np.clip(right, 1, len(extra) - 1)
    low, high = curves[rows, inside - 1], curves[rows, inside]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = extra[inside - 1] + (gain - low) / (high - low) * (extra[inside] - extra[inside - 1])
    return np.select([np.isnan(gain), right == 0, right == len(extra)], [np.nan, extra[0], np.inf], between)


def _drop_undefined(values: Floats) -> Floats:
    """Select the replicates (R of 1 + R) in which a value is defined."""
    return values[1:][~np.isnan(values[1:])]


def _interval(values: Floats) -> tuple[float, float]:
    """Compute the 95 % percentile interval."""
    defined = _drop_undefined(values)
    if not defined.size:
        return float("nan"), float("nan")
    # This method interpolates nothing, as values may be infinite.
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2], method="inverted_cdf")
    return float(low), float(high)


def _share_above(values: Floats) -> float:
    """Compute the share of replicates above 0."""
    defined = _drop_undefined(values)
    return float((defined > 0).mean()) if defined.size else float("nan")


def _p(difference: Floats) -> float:
    """Compute the two-sided p-value of no difference."""
    defined = _drop_undefined(difference)
    if not defined.size:
        return float("nan")
    fewer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + fewer) / (1 + defined.size)))
