"""The test of luck must itself not be left to luck."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.statistics import Comparison, compare, holm
from dbtbench.metric import Metric
from dbtbench.metrics.froc import mean_sensitivity
from dbtbench.tasks.classification import Classification
from dbtbench.tasks.detection import Detection

METRIC = Detection.metrics[0]
Runs = Mapping[str, Mapping[int, pd.DataFrame]]
Integers = NDArray[np.int64]
Shares = dict[tuple[str, float, float], float]

PATIENTS, BOXES, SEEDS = 60, 136, 5
OWNER: Integers = np.sort(np.append(np.arange(PATIENTS), np.arange(BOXES - PATIENTS) % PATIENTS))
NAMES = np.array([f"P{number:03d}" for number in range(PATIENTS)])


def detected(hits: NDArray[np.bool_], owner: Integers) -> pd.DataFrame:
    """Outcomes of a detector without false positives: its sensitivity is the share of boxes that it hits."""
    keys = dict.fromkeys(("PatientID", "StudyUID"), NAMES[owner])
    box, score = np.arange(len(owner)), np.where(hits, 0.9, np.nan)
    return pd.DataFrame({**keys, "View": "lcc", "box": box, "Score": score})


def uniform(sensitivity: float) -> pd.DataFrame:
    """In every patient the same share of ten boxes is hit, so that resampling patients changes nothing."""
    return detected(np.tile(np.arange(10) < round(10 * sensitivity), 6), np.repeat(np.arange(6), 10))


def runs_of(sensitivities: Mapping[str, float], seeds: int = SEEDS) -> Runs:
    return {arm: dict.fromkeys(range(seeds), uniform(share)) for arm, share in sensitivities.items()}


def simulated(rng: np.random.Generator, seed_sd: float, **gains: float) -> Runs:
    """The baseline at a sensitivity of 0.65 and arms that gain, each seed of each with its own luck.

    Half of what decides about a box is its own, the same in all arms and seeds, and partly its patient's.
    """
    own, shared = rng.standard_normal(BOXES), rng.standard_normal(PATIENTS)[OWNER]
    difficulty = np.sqrt(0.7) * own + np.sqrt(0.3) * shared

    def run(sensitivity: float) -> pd.DataFrame:
        level = norm.ppf(np.clip(sensitivity + seed_sd * rng.standard_normal(), 0.01, 0.99))
        return detected(np.sqrt(0.5) * (difficulty + rng.standard_normal(BOXES)) < level, OWNER)

    arms = {"real": 0.0, **gains}
    return {arm: {seed: run(0.65 + gain) for seed in range(SEEDS)} for arm, gain in arms.items()}


def patient_bootstrap_p(runs: Runs, seed: int, replicates: int = 300) -> float:
    """The p-value that would result if the seeds at hand were all that there are."""
    weights = np.random.default_rng(seed).multinomial(PATIENTS, [1 / PATIENTS] * PATIENTS, size=replicates)
    mean = {
        arm: np.mean([mean_sensitivity(o, weights) for o in seeds.values()], 0) for arm, seeds in runs.items()
    }
    gain = mean["ddpm"] - mean["real"]
    return float(min(1, 2 * (1 + min((gain <= 0).sum(), (gain >= 0).sum())) / (1 + replicates)))


class TestGain:
    def test_is_the_mean_of_the_differences_with_each_seed_that_both_have(self) -> None:
        none = {0: uniform(0.5), 1: uniform(0.6), 5: uniform(0.9)}
        ddpm = {1: uniform(0.9), 0: uniform(0.6), 7: uniform(0)}
        result = compare(METRIC, {"real": none, "ddpm": ddpm}, replicates=200)["ddpm"]
        assert result.differences == pytest.approx((0.1, 0.3))
        assert result.difference == pytest.approx(0.2)
        assert (result.seeds, result.p_better) == (2, 1)
        assert (result.low, result.high) == pytest.approx((0.1, 0.3))
        assert result.method == "hierarchical bootstrap, seeds x patients, 200 replicates"

    def test_is_paired_so_that_an_equal_arm_gains_nothing_in_any_replicate(self) -> None:
        none = simulated(np.random.default_rng(0), 0.1)["real"]
        result = compare(METRIC, {"real": none, "same": none}, replicates=200)["same"]
        assert (result.difference, result.low, result.high, result.p_better, result.p) == (0, 0, 0, 0, 1)

    def test_lies_in_its_interval_which_depends_on_the_seed_of_the_draws_only(self) -> None:
        runs = simulated(np.random.default_rng(0), 0.03, ddpm=0.1)
        first, again, other = (compare(METRIC, runs, replicates=300, seed=s)["ddpm"] for s in (0, 0, 1))
        assert first.low < first.difference < first.high
        assert repr(first) == repr(again)
        assert first.difference == other.difference
        assert (first.low, first.high) != (other.low, other.high)

    def test_varies_with_patients_and_with_seeds(self) -> None:
        def width(runs: Runs) -> float:
            result = compare(METRIC, runs, replicates=300)["ddpm"]
            return result.high - result.low

        rng = np.random.default_rng(0)
        patients_only = {
            arm: dict.fromkeys(range(SEEDS), seeds[0]) for arm, seeds in simulated(rng, 0, ddpm=0).items()
        }
        steps = dict(enumerate(map(uniform, (0.3, 0.4, 0.5, 0.6, 0.7))))
        assert width(patients_only) > 0.05
        assert width({"real": dict.fromkeys(range(SEEDS), uniform(0.5)), "ddpm": steps}) > 0.1
        assert width(runs_of({"real": 0.5, "ddpm": 0.6})) == pytest.approx(0)

    def test_without_a_common_seed_is_not_defined(self) -> None:
        result = compare(METRIC, {"real": {0: uniform(0.5)}, "ddpm": {1: uniform(0.5)}}, replicates=50)[
            "ddpm"
        ]
        assert result.seeds == 0
        assert np.isnan([result.difference, result.low, result.p, result.p_better, result.p_holm]).all()
        assert result.verdict("ddpm", "real") == "ddpm: no seed in common with real"

    def test_replicates_in_which_the_metric_is_not_defined_are_left_out(self) -> None:
        names = [f"P{n}" for n in range(6)]
        good, bad = ([0.9, 0.1, 0.2, 0.3, 0.4, 0.5], [0.35, 0.1, 0.2, 0.3, 0.4, 0.5])
        table = pd.DataFrame({"PatientID": names, "positive": [1, 0, 0, 0, 0, 0]})
        runs = {
            arm: dict.fromkeys(range(5), table.assign(Score=s)) for arm, s in (("real", bad), ("ddpm", good))
        }
        result = compare(Classification.metrics[0], runs, replicates=400)["ddpm"]
        assert result.difference == pytest.approx(0.4)
        assert 0 <= result.low < result.difference < result.high <= 1
        assert result.p_better > 0.9


class TestCorrection:
    def test_holm_steps_down_from_the_smallest(self) -> None:
        corrected = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": float("nan"), "e": 0.6})
        assert corrected == pytest.approx(
            {"a": 0.09, "b": 0.04, "c": 0.09, "d": np.nan, "e": 0.6}, nan_ok=True
        )
        assert holm({}) == {}
        assert holm({"a": 0.7, "b": 0.8}) == {"a": 1, "b": 1}

    def test_counts_neither_the_ceiling_nor_the_learning_curve(self) -> None:
        runs = runs_of({"real": 0.2, "classic": 0.4, "ddpm": 0.4, "more-real:0.5": 0.5, "more-real": 0.6})
        result = compare(METRIC, runs, volumes={"real": 100, "more-real:0.5": 150, "more-real": 200})
        assert list(result) == ["classic", "ddpm", "more-real:0.5", "more-real"]
        assert {arm for arm, c in result.items() if np.isnan(c.p_holm)} == {"more-real:0.5", "more-real"}
        assert result["ddpm"].p == pytest.approx(2 / 2001)
        assert result["ddpm"].p_holm == pytest.approx(4 / 2001)


class TestRealData:
    VOLUMES = {"real": 100, "more-real:0.5": 200, "more-real": 400}  # noqa: RUF012
    CURVE = {"real": 0.2, "more-real:0.5": 0.4, "more-real": 0.6}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("sensitivity", "recovered", "equivalent"),
        [
            (0.1, -0.25, 0),
            (0.2, 0, 0),
            (0.3, 0.25, 50),
            (0.4, 0.5, 100),
            (0.5, 0.75, 200),
            (0.9, 1.75, np.inf),
        ],
    )
    def test_a_gain_is_a_share_of_the_ceilings_and_a_number_of_volumes(
        self, sensitivity: float, recovered: float, equivalent: float
    ) -> None:
        runs = runs_of({**self.CURVE, "ddpm": sensitivity})
        result = compare(METRIC, runs, volumes=self.VOLUMES, replicates=100)["ddpm"]
        assert (result.recovered, result.recovered_low, result.recovered_high) == pytest.approx(
            (recovered,) * 3
        )
        assert (result.equivalent, result.equivalent_low, result.equivalent_high) == pytest.approx(
            (equivalent,) * 3
        )
        assert result.ceiling_factor == 4

    def test_a_learning_curve_that_falls_is_levelled(self) -> None:
        runs = runs_of({"real": 0.2, "more-real:0.5": 0.7, "more-real": 0.5, "low": 0.4, "high": 0.7})
        result = compare(METRIC, runs, volumes=self.VOLUMES, replicates=100)
        assert result["low"].equivalent == pytest.approx(100 * 0.2 / 0.4)
        assert result["high"].equivalent == np.inf

    def test_the_equivalent_has_an_interval_that_may_leave_the_curve(self) -> None:
        gains = {"more-real:0.5": 0.1, "more-real": 0.25, "ddpm": 0.1, "better": 0.25}
        runs = simulated(np.random.default_rng(0), 0.03, **gains)
        result = compare(METRIC, runs, volumes=self.VOLUMES, replicates=400)
        ddpm, better = result["ddpm"], result["better"]
        assert 0 < ddpm.equivalent_low < ddpm.equivalent < ddpm.equivalent_high < 300
        assert 0 < better.equivalent_low < better.equivalent_high == np.inf

    def test_without_a_ceiling_above_the_floor_no_share_is_recovered(self) -> None:
        for runs in (
            runs_of({"real": 0.2, "ddpm": 0.4}),
            runs_of({"real": 0.2, "ddpm": 0.4, "more-real": 0.2}),
        ):
            result = compare(METRIC, runs, replicates=100)["ddpm"]
            values = (result.recovered, result.recovered_low, result.equivalent, result.equivalent_high)
            assert np.isnan(values).all()

    def test_real_data_are_not_compared_with_themselves(self) -> None:
        result = compare(METRIC, runs_of(self.CURVE), volumes=self.VOLUMES, replicates=100)
        assert np.isnan([result["more-real"].recovered, result["more-real"].equivalent]).all()
        assert np.isnan(result["more-real:0.5"].equivalent)
        assert result["more-real:0.5"].recovered == pytest.approx(0.5)


class TestVerdict:
    @pytest.fixture
    def result(self) -> Comparison:
        runs = runs_of({"real": 0.2, "more-real": 0.6, "ddpm": 0.4})
        volumes = {"real": 100, "more-real": 500}
        return replace(compare(METRIC, runs, volumes=volumes, replicates=100)["ddpm"], low=0.01, high=0.37)

    def test_says_gain_interval_seeds_p_and_share(self, result: Comparison) -> None:
        assert replace(result, p_holm=0.021).verdict("ddpm", "real") == (
            "ddpm: +0.20 mean sensitivity over real [0.01, 0.37], 5 seeds, Holm p 0.021; "
            "50 % of what 5x the real data gave"
        )

    def test_without_correction_or_ceiling_says_what_there_is(self, result: Comparison) -> None:
        known = replace(result, p_holm=float("nan"), p=0.0001)
        assert ", p < 0.001; 50 %" in known.verdict("ddpm", "real")
        assert "of what more real data gave" in replace(known, ceiling_factor=np.nan).verdict("ddpm", "real")
        assert replace(known, recovered=np.nan).verdict("ddpm", "real").endswith("p < 0.001")
        assert replace(known, difference=-0.2, recovered=-0.5).verdict("ddpm", "real").endswith("p < 0.001")

    def test_says_what_is_left_over_the_placebo(self) -> None:
        runs = runs_of({"real": 0.2, "oversample": 0.3, "more-real": 0.6, "ddpm": 0.4})
        result = compare(METRIC, runs, replicates=100)
        left = result["ddpm"]
        assert (left.over_placebo, left.over_placebo_low, left.over_placebo_high) == pytest.approx((0.1,) * 3)
        assert left.verdict("ddpm", "real").endswith(
            "real data gave; 0.10 better than the placebo [0.10, 0.10]"
        )
        assert np.isnan(result["oversample"].over_placebo)

    def test_a_gain_that_may_be_luck_is_not_distinguishable(self, result: Comparison) -> None:
        said = replace(result, p=0.01, p_holm=0.3).verdict("ddpm", "real")
        assert said.endswith("5 seeds, Holm p 0.3: not distinguishable from real")

    @pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed:"), (4, "4 seeds:")])
    def test_few_seeds_tell_nothing(self, result: Comparison, seeds: int, words: str) -> None:
        said = replace(result, seeds=seeds).verdict("ddpm", "real")
        assert said.endswith(f"{words} too few seeds to tell")


class TestDirection:
    """The same outcomes, declared in other ways: sensitivities of 0.6 on real data, 0.4 and 0.2."""

    RUNS = runs_of({"real": 0.6, "oversample": 0.5, "more-real": 0.2, "ddpm": 0.4})

    def test_where_lower_is_better_all_shares_count_what_is_better(self) -> None:
        lower = replace(METRIC, direction="lower", title="error")
        ddpm = compare(lower, self.RUNS, volumes={"real": 100, "more-real": 200}, replicates=100)["ddpm"]
        assert ddpm.difference == pytest.approx(-0.2)
        assert (ddpm.p_better, ddpm.recovered, ddpm.equivalent) == pytest.approx((1, 0.5, 50))
        assert ddpm.over_placebo == pytest.approx(0.1)
        said = replace(ddpm, low=-0.3, high=0.05, p=0.0001, p_holm=0.02).verdict("ddpm", "real")
        assert said == (
            "ddpm: error 0.20 below real (better) [-0.05, 0.30], 5 seeds, Holm p 0.02; "
            "50 % of what 2x the real data gave; 0.10 better than the placebo [0.10, 0.10]"
        )

    def test_what_is_worse_is_no_gain_in_either_direction(self) -> None:
        up = runs_of({"real": 0.2, "more-real": 0.1, "ddpm": 0.4})
        for metric, runs in ((replace(METRIC, direction="lower"), up), (METRIC, self.RUNS)):
            worse = compare(metric, runs, replicates=100)["ddpm"]
            assert worse.p_better == 0
            assert "of what" not in worse.verdict("ddpm", "real")
        distance = replace(METRIC, direction="lower", distance=True)
        said = compare(distance, up, replicates=100)["ddpm"].verdict("ddpm", "real")
        assert said.startswith("ddpm: 0.20 further from real than real data are [0.20, 0.20], 5 seeds")

    def test_nothing_is_better_than_a_target_so_only_the_difference_is_tested(self) -> None:
        target = replace(METRIC, direction="target")
        ddpm = compare(target, self.RUNS, volumes={"real": 100, "more-real": 200}, replicates=100)["ddpm"]
        shares = (ddpm.p_better, ddpm.recovered, ddpm.equivalent, ddpm.over_placebo, ddpm.over_placebo_high)
        assert np.isnan(shares).all()
        assert ddpm.p < 0.05
        assert ddpm.verdict("ddpm", "real").startswith("ddpm: mean sensitivity 0.20 below real [0.20, 0.20]")


class TestErrors:
    def test_other_test_patients_are_not_compared(self) -> None:
        other = uniform(0.5).query("PatientID != 'P001'")
        with pytest.raises(StaleError, match="ddpm, seed 3, was not tested on the same patients as real"):
            compare(METRIC, {"real": {3: uniform(0.5)}, "ddpm": {3: other}})

    @pytest.mark.parametrize("runs", [{"ddpm": {0: uniform(0.5)}}, {"real": {}, "ddpm": {0: uniform(0.5)}}])
    def test_without_a_baseline_there_is_nothing_to_compare_with(self, runs: Runs) -> None:
        with pytest.raises(MissingError, match="no run of the arm 'real'"):
            compare(METRIC, runs)

    def test_only_known_metrics_can_be_resampled(self) -> None:
        with pytest.raises(UsageError, match="'fid' cannot be resampled"):
            compare(Metric("fid", "FID", "lower"), runs_of({"real": 0.5}))


TRIALS, TRIALS_WITH_GAIN = 150, 50


@pytest.fixture(scope="module")
def shares() -> Shares:
    """Share of simulated comparisons with p ≤ 0.05: 60 patients, 136 boxes, sensitivity 0.65, five seeds."""
    shares = {}
    for sd, gain in itertools.product((0.03, 0.06), (0, 0.05, 0.1)):
        rng = np.random.default_rng([int(100 * sd), int(100 * gain)])
        p = []
        for trial in range(TRIALS_WITH_GAIN if gain else TRIALS):
            runs = simulated(rng, sd, ddpm=gain)
            seeds_too = compare(METRIC, runs, replicates=300, seed=trial)["ddpm"].p
            p.append((seeds_too, np.nan if gain else patient_bootstrap_p(runs, trial)))
        shares["hierarchical", sd, gain], shares["patients", sd, gain] = np.mean(np.array(p) <= 0.05, axis=0)
    for (bootstrap, sd, gain), share in shares.items():
        if bootstrap == "hierarchical" or not gain:
            sys.stdout.write(f"{bootstrap}, seed sd {sd}, gain {gain}: {share:.3f} with p <= 0.05\n")
    return shares


class TestErrorRates:
    @pytest.mark.parametrize("sd", [0.03, 0.06])
    def test_an_augmentation_that_does_nothing_is_rarely_called_a_gain(
        self, shares: Shares, sd: float
    ) -> None:
        at_most = binom.ppf(0.99, TRIALS, 0.05) / TRIALS
        assert shares["hierarchical", sd, 0] <= at_most
        assert shares["patients", sd, 0] > at_most, "the simulation could not tell a bootstrap that is wrong"

    @pytest.mark.parametrize(("sd", "power"), [(0.03, 0.5), (0.06, 0.3)])
    def test_a_true_gain_is_found(self, shares: Shares, sd: float, power: float) -> None:
        assert (
            shares["hierarchical", sd, 0] < shares["hierarchical", sd, 0.05] < shares["hierarchical", sd, 0.1]
        )
        assert shares["hierarchical", sd, 0.1] >= power
