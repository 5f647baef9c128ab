"""Whether a gain is more than luck: seeds and patients are resampled together, the same for every arm.

A bootstrap of patients alone answers for one trained detector. The gain of an augmentation must also hold for
the next seed, so seeds are resampled too: with patients alone, an augmentation that does nothing is
"significant" far more often than the nominal 5 % (`tests/test_statistics.py` simulates both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.metrics import classification, froc
from dbtbench.metrics.resampling import patients
from dbtbench.runtime.progress import progress

Floats = NDArray[np.float64]

RESAMPLED: dict[str, Callable[[pd.DataFrame, Any], Floats]] = {
    "mean_sensitivity_positive": froc.mean_sensitivity,
    "auroc": classification.auroc,
}
"""Metrics that are a function of an outcomes table and of how often each patient is drawn."""

NAMES = {"mean_sensitivity_positive": "mean sensitivity", "auroc": "AUROC"}
ENOUGH_SEEDS = 5
LEVEL = 0.05
SMALLEST_P = 0.001


@dataclass(frozen=True)
class Comparison:
    """What an arm gains over the baseline; NaN where something is not defined.

    Attributes:
        metric: what is gained.
        gain: mean over seeds of the arm's value less the baseline's with the same seed.
        low: lower end of the gain's 95 % interval.
        high: its upper end.
        p_gain: share of replicates with a gain above 0.
        p: two-sided p-value of no gain.
        p_holm: the same, corrected by Holm for the number of arms; NaN for the ceiling and the learning
            curve.
        seeds: number of seeds that arm and baseline share.
        gains: the gain with each of them, in their order.
        recovered: the gain as a share of the ceiling's; NaN for the ceiling itself, and unless the whole
            interval of the ceiling's gain is above 0.
        recovered_low: lower end of its 95 % interval.
        recovered_high: its upper end.
        ceiling_factor: how many times the baseline's real volumes the ceiling trains with.
        equivalent: number of additional real volumes that give the same gain by the learning curve: 0 below
            the curve, infinite beyond it; NaN for real data themselves.
        equivalent_low: lower end of its 95 % interval.
        equivalent_high: its upper end.
        over_placebo: the gain over the placebo; NaN for the placebo itself, and where there is none.
        over_placebo_low: lower end of its 95 % interval.
        over_placebo_high: its upper end.
        method: how the intervals and p-values were made.
    """

    metric: str
    gain: float
    low: float
    high: float
    p_gain: float
    p: float
    p_holm: float
    seeds: int
    gains: tuple[float, ...]
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
        """The comparison in one sentence.

        Args:
            arm: name of the arm compared.
            baseline: name of the arm that it is compared with.
        """
        if not self.seeds:
            return f"{arm}: no seed in common with {baseline}"
        if not np.isfinite(self.gain):
            return f"{arm}: {NAMES[self.metric]} is not defined on these data"
        said = (
            f"{arm}: {self.gain:+.2f} {NAMES[self.metric]} over {baseline} [{self.low:.2f}, {self.high:.2f}]"
        )
        said += f", {self.seeds} seed{'s' * (self.seeds > 1)}"
        if self.seeds < ENOUGH_SEEDS:
            return f"{said}: too few seeds to tell"
        which, p = ("Holm p", self.p_holm) if np.isfinite(self.p_holm) else ("p", self.p)
        said += f", {which} {p:.2g}" if p >= SMALLEST_P else f", {which} < {SMALLEST_P}"
        if not p <= LEVEL:
            return f"{said}: not distinguishable from {baseline}"
        if self.gain > 0 and np.isfinite(self.recovered):
            times = f"{self.ceiling_factor:.2g}x the" if np.isfinite(self.ceiling_factor) else "more"
            said += f"; {100 * self.recovered:.0f} % of what {times} real data gave"
        if self.gain > 0 and np.isfinite(self.over_placebo):
            interval = f"[{self.over_placebo_low:.2f}, {self.over_placebo_high:.2f}]"
            said += f"; {self.over_placebo:+.2f} over the placebo {interval}"
        return said


def compare(
    metric: str,
    runs: Mapping[str, Mapping[int, pd.DataFrame]],
    baseline: str = "none",
    ceiling: str = "more-real",
    placebo: str = "oversample",
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
        metric: one of `RESAMPLED`.
        runs: `runs[arm][seed]`, an outcomes table; all have the same patients.
        baseline: the arm that the others are compared with, and the floor.
        ceiling: the arm whose gain is all that can be recovered; it need not be there.
        placebo: the arm that gains what more of the same gives; it need not be there.
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
    gains = {arm: _draw_seeds(gains, replicates, seed) for arm, gains in by_seed.items()}
    over_placebo = {
        arm: _draw_seeds(gains, replicates, seed) for arm, gains in _by_seed(values, placebo).items()
    }
    real = {arm: n for arm, n in (volumes or {}).items() if arm == baseline or by_seed.get(arm)}
    recovered = _recovered(gains, ceiling)
    equivalent = _equivalent(gains, real, baseline)
    corrected = holm({arm: _p(gain) for arm, gain in gains.items() if arm != ceiling and arm not in real})
    made = {}
    for arm, gain in gains.items():
        (low, high), (recovered_low, recovered_high), (equivalent_low, equivalent_high) = map(
            _interval, (gain, recovered[arm], equivalent[arm])
        )
        over = over_placebo.get(arm, np.full_like(gain, np.nan))
        over_low, over_high = _interval(over)
        made[arm] = Comparison(
            metric=metric,
            gain=float(gain[0]),
            low=low,
            high=high,
            p_gain=_p_gain(gain),
            p=_p(gain),
            p_holm=corrected.get(arm, float("nan")),
            seeds=len(by_seed[arm]),
            gains=tuple(float(gain[0]) for gain in by_seed[arm]),
            recovered=float(recovered[arm][0]),
            recovered_low=recovered_low,
            recovered_high=recovered_high,
            ceiling_factor=real[ceiling] / real[baseline] if {ceiling, baseline} <= real.keys() else np.nan,
            equivalent=float(equivalent[arm][0]),
            equivalent_low=equivalent_low,
            equivalent_high=equivalent_high,
            over_placebo=float(over[0]),
            over_placebo_low=over_low,
            over_placebo_high=over_high,
            method=f"hierarchical bootstrap, seeds x patients, {replicates} replicates",
        )
    return made


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's corrected p-values; statsmodels has them too, but is no dependency for five lines.

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
    metric: str, runs: Mapping[str, Mapping[int, pd.DataFrame]], baseline: str, replicates: int, seed: int
) -> dict[str, dict[int, Floats]]:
    """The metric of each run, on the data themselves and on each replicate of its patients: (1 + R,)."""
    if metric not in RESAMPLED:
        raise UsageError(f"metric {metric!r} cannot be resampled", f"known: {', '.join(RESAMPLED)}")
    if not runs.get(baseline):
        raise MissingError(f"there is no run of the arm {baseline!r} to compare with", "evaluate it too")
    named = patients(next(iter(runs[baseline].values())))
    for arm, seeds in runs.items():
        for number, outcomes in seeds.items():
            if patients(outcomes) != named:
                raise StaleError(
                    f"{arm}, seed {number}, was not tested on the same patients as {baseline}",
                    "compare runs on the same data and split",
                )
    weights = _draws(len(named), len(named), replicates, np.random.default_rng([seed, 0]))
    with progress("bootstrap", sum(map(len, runs.values())), "runs") as advance:

        def score(outcomes: pd.DataFrame) -> Floats:
            advance()
            return RESAMPLED[metric](outcomes, weights)

        return {arm: {number: score(table) for number, table in seeds.items()} for arm, seeds in runs.items()}


def _draws(things: int, draws: int, replicates: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of some things is drawn: (1 + R, things), first each of them once."""
    drawn = rng.multinomial(draws, np.full(things, 1 / things), size=replicates)
    return np.concatenate([np.ones((1, things), np.int64), drawn])


def _by_seed(values: Mapping[str, Mapping[int, Floats]], other: str) -> dict[str, list[Floats]]:
    """Every arm's gain over another one, with each seed that both have: (1 + R,) each."""
    than = values.get(other, {})
    return {
        arm: [own[seed] - than[seed] for seed in sorted(own.keys() & than.keys())]
        for arm, own in values.items()
        if arm != other
    }


def _draw_seeds(by_seed: Sequence[Floats], replicates: int, seed: int) -> Floats:
    """Mean gain over the seeds that each replicate draws: (1 + R,).

    One fewer is drawn than there are: of so few, as many as there are would vary too little, by 1/5 of the
    variance for five (Rao JNK, Wu CFJ. Resampling inference with complex survey data. Journal of the American
    Statistical Association 83(401):231–241, 1988).
    """
    if not by_seed:
        return np.full(replicates + 1, np.nan)
    drawn = max(1, len(by_seed) - 1)
    weights = _draws(len(by_seed), drawn, replicates, np.random.default_rng([seed, 1]))
    return np.asarray((weights.T * by_seed).sum(axis=0) / weights.sum(axis=1))


def _recovered(gains: Mapping[str, Floats], ceiling: str) -> dict[str, Floats]:
    """Gains as a share of the ceiling's, which must be above 0 for there to be a distance to recover."""
    whole = gains.get(ceiling, np.empty(0))
    undefined = {arm: np.full_like(gain, np.nan) for arm, gain in gains.items()}
    if not whole.size or not _interval(whole)[0] > 0:
        return undefined
    with np.errstate(invalid="ignore", divide="ignore"):
        # Few replicates have no ceiling above the floor: any gain there is beyond all bounds.
        shares = {arm: gain / np.maximum(whole, 0) for arm, gain in gains.items() if arm != ceiling}
    return undefined | shares


def _equivalent(gains: Mapping[str, Floats], volumes: Mapping[str, int], baseline: str) -> dict[str, Floats]:
    """Additional real volumes that give the same gain, by each replicate's own learning curve.

    The curve is the isotonic regression of the gains of real data on their number, by least squares: a
    running maximum would take the luckiest point for the curve.
    """
    equivalent = {arm: np.full_like(gain, np.nan) for arm, gain in gains.items()}
    points = sorted(volumes, key=lambda arm: volumes[arm])
    if baseline not in points or len(points) < 2:
        return equivalent
    extra = np.array([volumes[arm] - volumes[baseline] for arm in points], np.float64)
    nothing = np.zeros(len(next(iter(gains.values()))))
    measured = np.stack([gains.get(arm, nothing) for arm in points], axis=1)
    defined = np.flatnonzero(np.isfinite(measured).all(axis=1))
    curves = np.array([isotonic_regression(measured[row]) for row in defined]).reshape(-1, len(points))
    for arm in gains.keys() - volumes.keys():
        equivalent[arm][defined] = _read_off(gains[arm][defined], extra, curves)
    return equivalent


def _read_off(gain: Floats, extra: Floats, curves: Floats) -> Floats:
    """Where each row of `curves` (R, K), over the K numbers `extra`, first reaches the row's gain (R,)."""
    rows = np.arange(len(gain))
    right = (curves < gain[:, None]).sum(axis=1)
    inside = np.clip(right, 1, len(extra) - 1)
    low, high = curves[rows, inside - 1], curves[rows, inside]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = extra[inside - 1] + (gain - low) / (high - low) * (extra[inside] - extra[inside - 1])
    return np.select([np.isnan(gain), right == 0, right == len(extra)], [np.nan, extra[0], np.inf], between)


def _defined(values: Floats) -> Floats:
    """The replicates (R of 1 + R) in which a value is defined."""
    return values[1:][~np.isnan(values[1:])]


def _interval(values: Floats) -> tuple[float, float]:
    """95 % percentile interval."""
    defined = _defined(values)
    if not defined.size:
        return float("nan"), float("nan")
    # This method interpolates nothing, as values may be infinite.
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2], method="inverted_cdf")
    return float(low), float(high)


def _p_gain(gain: Floats) -> float:
    """Share of replicates with a gain above 0."""
    defined = _defined(gain)
    return float((defined > 0).mean()) if defined.size else float("nan")


def _p(gain: Floats) -> float:
    """Two-sided p-value of no gain."""
    defined = _defined(gain)
    if not defined.size:
        return float("nan")
    fewer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + fewer) / (1 + defined.size)))
