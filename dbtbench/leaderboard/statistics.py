"""Tests whether a difference is luck: of the seeds, or of the patients.

Every arm is compared with the baseline, an augmentation also with its controls; `variance` has the test,
`curve` what a gain is worth, `comparison` the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.comparison import Comparison, Contrast
from dbtbench.leaderboard.curve import equivalents
from dbtbench.leaderboard.roles import Roles
from dbtbench.leaderboard.variance import Estimate, Moments, draw_patients
from dbtbench.metric import Metric
from dbtbench.metrics.resampling import Floats, patients
from dbtbench.runtime.progress import progress
from dbtbench.task import BASELINE, NORMALS, SHUFFLED

REPLICATES = 1000
"""Of the patients: a standard error then differs by 2 % between two seeds of the draws."""
UNLEARNED = "unlearned"


def compare(
    metric: Metric,
    runs: Mapping[str, Mapping[int, pd.DataFrame]],
    roles: Roles | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare every arm with the baseline, by a t-test on the variance between seeds and between patients.

    Seeds of different arms are no pairs: what they share (first weights, order of the real cases) does not
    make their scores alike. Arms of the baseline's distribution are one sample with it.

    Source: Bouthillier X et al. Accounting for variance in machine learning benchmarks. MLSys 2021 (vary
    every source of variation); Holm S. A simple sequentially rejective multiple test procedure. Scandinavian
    Journal of Statistics 6(2):65–70, 1979.

    Args:
        metric: one that can be resampled.
        runs: `runs[arm][seed]`, an outcomes table; all have the same patients.
        roles: of the arms; the default ones know `real` and `more-real` only.
        replicates: bootstrap replicates of the patients.
        seed: of their draws.

    Returns:
        A comparison for each arm that is no part of the baseline.

    Raises:
        MissingError: when the baseline has no runs.
        StaleError: when the runs were not tested on the same patients.
        UsageError: for a metric that cannot be resampled.
    """
    scores, tested = resample_runs(metric, runs, replicates, seed)
    return compare_scores(metric, scores, tested, roles or Roles())


def compare_scores(
    metric: Metric, scores: Mapping[str, Floats], tested: int, roles: Roles
) -> dict[str, Comparison]:
    """Compare arms given their scores of resampled patients.

    Args:
        metric: what was scored.
        scores: for each arm (S, 1 + R), as `Moments.measure` takes them.
        tested: number of patients.
        roles: of the arms.

    Returns:
        As `compare`.
    """
    together = [scores[arm] for arm in roles.baseline if arm in scores]
    others = {arm: own for arm, own in scores.items() if arm not in roles.baseline}
    trainings = {}
    for arm, members in roles.trainings.items():
        if all(member in scores for member, _ in members):
            others[arm] = np.concatenate([scores[member] for member, _ in members])
            trainings[arm] = [number for member, number in members for _ in scores[member]]
    moments = Moments.measure({BASELINE: np.concatenate(together), **others}, tested, trainings)
    differences = {arm: moments.difference(arm, BASELINE) for arm in others}
    p_holm = holm({arm: differences[arm].p for arm in roles.augmentations if arm in others})
    made = {
        arm: Comparison(
            metric=metric,
            difference=difference,
            p_holm=p_holm.get(arm, math.nan),
            seeds=len(others[arm]),
            baseline_seeds=sum(map(len, together)),
            method=f"Satterthwaite t, seeds + patients, {together[0].shape[1] - 1} replicates of patients",
        )
        for arm, difference in differences.items()
    }
    if metric.direction == "target":  # nothing is better than a target
        return made
    better = replace(moments, means=metric.better(moments.means))
    judged = [arm for arm in others if arm not in roles.volumes]
    patients_worth, lesions_worth = (
        equivalents(better, judged, roles.sizes.get(unit, {})) for unit in ("patients", "lesions")
    )
    for arm, comparison in made.items():
        steps = _contrasts(better, arm, comparison.p_holm, roles)
        made[arm] = replace(
            comparison,
            recovered=_share_of_ceiling(better, arm, roles.ceiling),
            ceiling_factor=_factor(roles),
            patients_equivalent=patients_worth.get(arm, Estimate()),
            lesions_equivalent=lesions_worth.get(arm, Estimate()),
            over_shuffled=steps.get(SHUFFLED, Contrast()),
            over_normals=steps.get(NORMALS, Contrast()),
            over_unlearned=steps.get(UNLEARNED, Contrast()),
        )
    return made


def resample_runs(
    metric: Metric, runs: Mapping[str, Mapping[int, pd.DataFrame]], replicates: int, seed: int
) -> tuple[dict[str, Floats], int]:
    """Score runs on the data themselves and on replicates of the patients.

    Args:
        metric: one that can be resampled.
        runs: as for `compare`.
        replicates: R.
        seed: of their draws.

    Returns:
        (S, 1 + R) for each arm, and the number of patients.

    Raises:
        MissingError, StaleError, UsageError: as `compare`.
    """
    resample = metric.resample
    if resample is None:
        raise UsageError(f"metric {metric.name!r} cannot be resampled", "it declares no outcomes")
    if not runs.get(BASELINE):
        raise MissingError(f"there is no run of the arm {BASELINE!r} to compare with", "evaluate it too")
    named = patients(next(iter(runs[BASELINE].values())))
    for arm, seeds in runs.items():
        for of_seed, outcomes in seeds.items():
            if patients(outcomes) != named:
                raise StaleError(
                    f"{arm}, seed {of_seed}, was not tested on the same patients as {BASELINE}",
                    "compare runs on the same data and split",
                )
    weights = draw_patients(len(named), replicates, seed)
    scores: dict[str, Floats] = {}
    with progress("bootstrap", sum(map(len, runs.values())), "runs") as advance:
        for arm, seeds in runs.items():
            own = []
            for of_seed in sorted(seeds):
                own.append(np.asarray(resample(seeds[of_seed], weights), np.float64))
                advance()
            scores[arm] = np.stack(own)
    return scores, len(named)


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


def _contrasts(better: Moments, arm: str, p_holm: float, roles: Roles) -> dict[str, Contrast]:
    """Test an augmentation against its controls and the best one that learns nothing, in this order.

    A step is tested as it is, without a correction, because it counts only where the step before has shown
    that the arm is better. Source: Maurer W, Hothorn LA, Lehmacher W. Multiple comparisons in drug clinical
    trials and preclinical assays: a-priori ordered hypotheses. Biometrie in der chemisch-pharmazeutischen
    Industrie 6:3–18, 1995.
    """
    if arm not in roles.augmentations:
        return {}
    plain = [other for other in roles.unlearned if other in better.arms]
    best = max(plain, key=lambda other: better.means[better.arms.index(other)], default=None)
    controls = roles.controls.get(arm, {})
    steps = {SHUFFLED: controls.get(SHUFFLED), NORMALS: controls.get(NORMALS)}
    steps[UNLEARNED] = None if arm in roles.unlearned else best
    made = {}
    p = _one_way(better.difference(arm, BASELINE), p_holm)
    for name, other in steps.items():
        if other is not None and {arm, other} <= set(better.arms):
            gain = better.difference(arm, other)
            p = float(np.maximum(p, _one_way(gain, gain.p)))
            made[name] = Contrast(other, gain, p)
    return made


def _one_way(gain: Estimate, p: float) -> float:
    """Count a p-value only where the gain is one."""
    return p if gain.value > 0 else 1.0


def _share_of_ceiling(better: Moments, arm: str, ceiling: str | None) -> Estimate:
    """Express a gain as a share of the ceiling's.

    The interval has all shares r for which gain − r · ceiling's gain does not differ significantly from 0.
    Source: Fieller EC. Some problems in interval estimation. Journal of the Royal Statistical Society B
    16(2):175–185, 1954.
    """
    if ceiling is None or arm == ceiling or not {arm, ceiling, BASELINE} <= set(better.arms):
        return Estimate()
    floor = better.select(BASELINE)
    gain, whole = better.select(arm) - floor, better.select(ceiling) - floor
    if not better.contrast(whole).low > 0:
        return Estimate()
    share = float(gain @ better.means / (whole @ better.means))
    _, error, half, _ = (float(part[0]) for part in better.test(gain - share * whole))
    t = half / error if error else 0.0
    a, b, c = (
        float(x @ better.means * (y @ better.means)) - t**2 * better.covariance(x, y)
        for x, y in ((whole, whole), (gain, whole), (gain, gain))
    )
    if a <= 0:
        return Estimate(share, -math.inf, math.inf)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Estimate(share, (b - root) / a, (b + root) / a)


def _factor(roles: Roles) -> float:
    """Say how many times the baseline's real volumes the ceiling has."""
    whole, floor = roles.volumes.get(roles.ceiling or ""), roles.volumes.get(BASELINE)
    return whole / floor if whole and floor else math.nan
