"""Error rates of the board's statistics, by simulation: intervals, p-values, equivalents, power.

    python benchmarks/error_rates.py --trials 600

A detector without false positives finds a lesion when its level is above the lesion's difficulty: its score
is the share that it finds. What decides about a lesion is partly shared by all runs (`common`, some of it by
a patient's lesions), partly by all runs of an arm (`own`), and else a run's alone. The level varies from seed
to seed, from training to training of a generator, and falls far down when a run fails.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from dbtbench.leaderboard.roles import Roles
from dbtbench.leaderboard.statistics import compare_scores, holm
from dbtbench.leaderboard.variance import draw_patients
from dbtbench.metric import Metric
from dbtbench.metrics.resampling import Floats
from dbtbench.task import BASELINE

METRIC = Metric("sensitivity", "sensitivity", "higher")
SENSITIVITY, LESIONS, WITHIN_PATIENT, FAILURE = 0.65, 136 / 60, 0.3, 0.3
REPLICATES = 200
NULLS = ("a", "b", "c")
VOLUMES = (96, 128, 196, 316, 768)
"""Sizes of the learning curve; its truth goes through (96, .58), (316, .78) and (768, .84)."""
ASYMPTOTE, DROP, EXPONENT = 0.8926, 15.62, 0.857
TRUTHS = (0, 20, 50, 100)


@dataclass(frozen=True)
class Setting:
    """One operating point.

    Attributes:
        seeds: of an arm.
        baseline: seeds of the baseline.
        patients: with lesions.
        sd: of the sensitivity between seeds.
        common: share of the difficulty that all runs have in common.
        own: share that the runs of an arm have in common.
        failing: share of the runs that fail, and then find 0.3 less.
        trainings: of the generator, each with as many seeds.
        training_sd: of the sensitivity between them.
    """

    seeds: int = 5
    baseline: int = 5
    patients: int = 150
    sd: float = 0.06
    common: float = 0.5
    own: float = 0.0
    failing: float = 0.0
    trainings: int = 1
    training_sd: float = 0.0


SETTINGS = tuple(
    Setting(seeds, baseline, patients, sd, common, own, failing)
    for (seeds, baseline), failing, patients, sd, (common, own) in itertools.product(
        ((5, 5), (10, 20)),
        (0.0, 0.1),
        (60, 150, 300),
        (0.03, 0.06, 0.10),
        ((0.5, 0.0), (0.9, 0.0), (0.8, 0.1)),
    )
)


def draw_scores(
    rng: np.random.Generator, setting: Setting, levels: Mapping[str, float]
) -> tuple[dict[str, Floats], dict[str, list[tuple[str, int]]]]:
    """Draw the runs of some arms with these sensitivities, and score them on replicates of the patients.

    Returns:
        (S, 1 + R) for each arm, or for each training of its generator where there are several, and these
        trainings as `Roles` has them.
    """
    n = setting.patients
    boxes = round(n * LESIONS)
    owner = np.sort(np.append(np.arange(n), np.arange(boxes - n) % n))
    first = np.searchsorted(owner, np.arange(n))

    def difficulty(share: float) -> Floats:
        of_patient = np.sqrt(WITHIN_PATIENT) * rng.standard_normal(n)[owner]
        of_box = np.sqrt(1 - WITHIN_PATIENT) * rng.standard_normal(boxes)
        return np.asarray(np.sqrt(share) * (of_patient + of_box))

    weights = draw_patients(n, REPLICATES, 0)
    drawn = weights @ np.bincount(owner)
    common, alone = difficulty(setting.common), np.sqrt(1 - setting.common - setting.own)
    scores: dict[str, Floats] = {}
    trainings: dict[str, list[tuple[str, int]]] = {}
    for arm, level in levels.items():
        own = difficulty(setting.own) if setting.own else 0.0
        several = setting.trainings > 1 and arm != BASELINE
        seeds = setting.baseline if arm == BASELINE else setting.seeds
        for training in range(setting.trainings if several else 1):
            found = level + setting.sd * rng.standard_normal(seeds)
            found = found - FAILURE * (rng.random(seeds) < setting.failing)
            if several:
                found = found + setting.training_sd * rng.standard_normal()
                trainings.setdefault(arm, []).append((f"{arm} {training}", training))
            runs = common + own + alone * rng.standard_normal((seeds, boxes), np.float32)
            hits = runs < ndtri(np.clip(found, 0.01, 0.99))[:, None]
            of_patients = np.add.reduceat(hits, first, axis=1, dtype=np.float64)
            scores[f"{arm} {training}" if several else arm] = of_patients @ weights.T / drawn
    return scores, trainings


def measure_null(setting: Setting, trials: int) -> dict[str, float]:
    """Measure how often arms that gain nothing differ significantly from the baseline.

    Returns:
        `p`: share of p ≤ .05 of one arm; `two` and `three`: share of trials in which any of two or three arms
        has one after Holm's correction; `coverage` of the 95 % interval.
    """
    rng = _random(setting)
    levels = dict.fromkeys((BASELINE, *NULLS), SENSITIVITY)
    counts = []
    for _ in range(trials):
        scores, trainings = draw_scores(rng, setting, levels)
        roles = Roles(augmentations=NULLS, trainings=trainings)
        found = compare_scores(METRIC, scores, setting.patients, roles)
        p = {arm: found[arm].difference.p for arm in NULLS}
        interval = found["a"].difference
        two, three = (min(holm({arm: p[arm] for arm in NULLS[:k]}).values()) <= 0.05 for k in (2, 3))
        counts.append((p["a"] <= 0.05, two, three, interval.low <= 0 <= interval.high))
    return dict(zip(("p", "two", "three", "coverage"), np.mean(counts, axis=0).tolist(), strict=True))


def measure_power(setting: Setting, gain: float, trials: int) -> float:
    """Measure how often an arm with this gain is called better, beside two that gain nothing."""
    rng = _random(setting)
    levels = dict.fromkeys((BASELINE, *NULLS), SENSITIVITY) | {"a": SENSITIVITY + gain}
    better = []
    for _ in range(trials):
        scores, _ = draw_scores(rng, setting, levels)
        found = compare_scores(METRIC, scores, setting.patients, Roles(augmentations=NULLS))["a"]
        better.append(found.p_holm <= 0.05 and found.difference.value > 0)
    return float(np.mean(better))


def measure_equivalents(setting: Setting, trials: int) -> pd.DataFrame:
    """Measure what arms that are worth 0, 20, 50 and 100 more real volumes are said to be worth.

    Returns:
        For each truth the median, the share of trials in which it is above 0, and the share in which the
        interval covers the truth.
    """
    rng = _random(setting)
    sizes = {BASELINE if n == VOLUMES[0] else f"more-real:{n}": n for n in VOLUMES}
    worth = {f"worth {n}": VOLUMES[0] + n for n in TRUTHS}
    levels = {arm: ASYMPTOTE - DROP * n**-EXPONENT for arm, n in (sizes | worth).items()}
    roles = Roles(augmentations=tuple(worth), volumes=sizes, sizes={"patients": sizes})
    rows = []
    for _ in range(trials):
        scores, _ = draw_scores(rng, setting, levels)
        found = compare_scores(METRIC, scores, setting.patients, roles)
        for truth, arm in zip(TRUTHS, worth, strict=True):
            said = found[arm].patients_equivalent
            rows.append((truth, said.value, said.value > 0, said.low <= truth <= said.high))
    table = pd.DataFrame(rows, columns=["truth", "median", "positive", "coverage"])
    means = table.groupby("truth")[["positive", "coverage"]].mean()
    return table.groupby("truth")[["median"]].median().join(means)


def _random(setting: Setting) -> np.random.Generator:
    """Every setting has its own random numbers, or all would be lucky together."""
    return np.random.default_rng(list(repr(setting).encode()))


def _print(title: str, table: pd.DataFrame) -> None:
    sys.stdout.write(f"\n{title}\n{table.to_string(index=False, float_format=lambda x: f'{x:.3f}')}\n")
    sys.stdout.flush()


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=600, help="simulated boards a row")
    trials = parser.parse_args().trials
    varied = ["seeds", "baseline", "failing", "patients", "sd", "common", "own"]
    nulls = pd.DataFrame([vars(setting) | measure_null(setting, trials) for setting in SETTINGS])
    results = ["p", "two", "three", "coverage"]
    _print("nothing gained", nulls[[*varied, *results]])
    _print("of all rows", nulls.groupby("failing")[results].agg(["min", "mean", "max"]).T.reset_index())
    several = [
        Setting(5, 10, trainings=trainings, training_sd=sd)
        for trainings, sd in itertools.product((2, 3), (0.0, 0.02, 0.06))
    ]
    rows = [vars(setting) | measure_null(setting, trials) for setting in several]
    _print("several trainings of a generator", pd.DataFrame(rows)[["trainings", "training_sd", *results]])
    worth = [Setting(5, 5, 96, 0.04), Setting(10, 20, 150, 0.04), Setting(5, 10, 60, 0.06)]
    for setting in worth:
        table = measure_equivalents(setting, trials).reset_index()
        _print(f"real-data equivalent: {setting}", table)
    powers = [
        {"seeds": seeds, "baseline": baseline, "patients": patients}
        | {
            f"+{gain}": measure_power(Setting(seeds, baseline, patients, sd), gain, trials)
            for gain in (0.05, 0.08, 0.1)
        }
        | {"sd": sd}
        for (seeds, baseline), patients, sd in itertools.product(
            ((5, 10), (10, 20)), (60, 150, 200), (0.03, 0.06)
        )
    ]
    _print("power beside two arms that gain nothing", pd.DataFrame(powers))


if __name__ == "__main__":
    main()
