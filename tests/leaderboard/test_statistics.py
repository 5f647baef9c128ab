"""Comparisons of arms: differences, corrections, contrasts in their order, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.leaderboard.comparison import Comparison, Contrast
from dbtbench.leaderboard.roles import Roles
from dbtbench.leaderboard.statistics import compare, compare_scores, holm
from dbtbench.leaderboard.variance import Estimate
from dbtbench.metric import Metric
from dbtbench.metrics.resampling import Floats
from dbtbench.task import NORMALS, SHUFFLED
from dbtbench.tasks.classification import Classification
from dbtbench.tasks.detection import Detection

METRIC = Detection.metrics[0]
Runs = Mapping[str, Mapping[int, pd.DataFrame]]
SEEDS = 5


def detected(hits: NDArray[np.bool_]) -> pd.DataFrame:
    """Outcomes of a detector without false positives, ten boxes a patient."""
    names = np.repeat([f"P{number:03d}" for number in range(len(hits) // 10)], 10)
    keys = dict.fromkeys(("PatientID", "StudyUID"), names)
    score = np.where(hits, 0.9, np.nan)
    return pd.DataFrame({**keys, "View": "lcc", "box": np.arange(len(hits)), "Score": score})


def uniform(sensitivity: float) -> pd.DataFrame:
    """In every patient the same share of ten boxes is hit, so that resampling patients changes nothing."""
    return detected(np.tile(np.arange(10) < round(10 * sensitivity), 6))


def scores_of(means: Mapping[str, float], spread: float = 0.02, seeds: int = SEEDS) -> dict[str, Floats]:
    """Scores of arms with evenly spread seeds, which no resampling of patients changes."""
    offsets = spread * np.linspace(-1, 1, seeds)[:, None] * np.ones(11)
    return {arm: mean + offsets for arm, mean in means.items()}


def judge(means: Mapping[str, float], roles: Roles, spread: float = 0.02) -> dict[str, Comparison]:
    return compare_scores(METRIC, scores_of(means, spread), 60, roles)


class TestRuns:
    def test_seeds_are_no_pairs_and_need_not_be_the_same(self) -> None:
        none = {0: uniform(0.5), 1: uniform(0.6), 5: uniform(0.7)}
        ddpm = {1: uniform(0.9), 7: uniform(0.7)}
        found = compare(METRIC, {"real": none, "ddpm": ddpm}, replicates=50)["ddpm"]
        assert found.difference.value == pytest.approx(0.2)
        assert (found.seeds, found.baseline_seeds) == (2, 3)
        error = math.sqrt(0.02 / 2 + 0.01 / 3)
        df = (0.02 / 2 + 0.01 / 3) ** 2 / ((0.02 / 2) ** 2 / 1 + (0.01 / 3) ** 2 / 2)
        assert found.difference.high == pytest.approx(0.2 + t.isf(0.025, df) * error)
        assert found.method == "Satterthwaite t, seeds + patients, 50 replicates of patients"
        other_names = {arm: dict(enumerate(runs.values())) for arm, runs in (("real", none), ("ddpm", ddpm))}
        assert repr(compare(METRIC, other_names, replicates=50)["ddpm"]) == repr(found)

    def test_patients_vary_by_the_seed_of_their_draws_only(self) -> None:
        rng = np.random.default_rng(0)
        difficulty = rng.random(200)
        runs = {
            arm: {seed: detected(difficulty + 0.2 * rng.random(200) < level) for seed in range(SEEDS)}
            for arm, level in (("real", 0.5), ("ddpm", 0.8))
        }
        first, again, other = (compare(METRIC, runs, seed=s)["ddpm"] for s in (0, 0, 1))
        assert repr(first) == repr(again)
        assert first.difference.value == other.difference.value
        assert first.difference.low != other.difference.low
        assert first.difference.low == pytest.approx(other.difference.low, abs=0.01)
        assert 0 < first.difference.low < first.difference.value < first.difference.high

    def test_replicates_in_which_the_metric_is_not_defined_are_left_out(self) -> None:
        names = [f"P{n}" for n in range(6)]
        good, bad = ([0.9, 0.1, 0.2, 0.3, 0.4, 0.5], [0.35, 0.1, 0.2, 0.3, 0.4, 0.5])
        table = pd.DataFrame({"PatientID": names, "positive": [1, 0, 0, 0, 0, 0]})
        runs = {
            arm: dict.fromkeys(range(5), table.assign(Score=s)) for arm, s in (("real", bad), ("ddpm", good))
        }
        found = compare(Classification.metrics[0], runs, replicates=400)["ddpm"].difference
        assert found.value == pytest.approx(0.4)
        assert found.low < 0.4 < found.high

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
            compare(Metric("fid", "FID", "lower"), {"real": {0: uniform(0.5)}})


class TestBaseline:
    def test_a_second_draw_of_it_is_pooled(self) -> None:
        means = {"real": 0.4, "oversample": 0.6, "ddpm": 0.7}
        found = judge(means, Roles(("real", "oversample")))
        assert list(found) == ["ddpm"]
        assert found["ddpm"].difference.value == pytest.approx(0.2)
        assert found["ddpm"].baseline_seeds == 2 * SEEDS
        assert judge(means, Roles())["ddpm"].difference.value == pytest.approx(0.3)


class TestCorrection:
    def test_holm_steps_down_from_the_smallest(self) -> None:
        corrected = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": float("nan"), "e": 0.6})
        assert corrected == pytest.approx(
            {"a": 0.09, "b": 0.04, "c": 0.09, "d": np.nan, "e": 0.6}, nan_ok=True
        )
        assert holm({}) == {}
        assert holm({"a": 0.7, "b": 0.8}) == {"a": 1, "b": 1}

    def test_counts_augmentations_alone(self) -> None:
        means = {"real": 0.5, "classic": 0.52, "ddpm": 0.53, "ddpm:shuffled-boxes": 0.5, "more-real": 0.6}
        found = judge(means, Roles(augmentations=("classic", "ddpm")))
        assert {arm for arm, own in found.items() if np.isnan(own.p_holm)} == {
            *("ddpm:shuffled-boxes", "more-real")
        }
        assert found["ddpm"].p_holm == pytest.approx(2 * found["ddpm"].difference.p)


class TestTrainings:
    def test_several_trainings_are_an_arm_and_each_is_no_claim(self) -> None:
        members = [("ddpm", 0), ("ddpm-1", 1)]
        roles = Roles(augmentations=("ddpm (2 trainings)",), trainings={"ddpm (2 trainings)": members})
        found = judge({"real": 0.5, "ddpm": 0.6, "ddpm-1": 0.7}, roles)
        together = found["ddpm (2 trainings)"]
        assert together.difference.value == pytest.approx(0.15)
        assert together.seeds == 2 * SEEDS
        assert together.difference.low < 0 < found["ddpm"].difference.low
        assert np.isfinite(together.p_holm)
        assert np.isnan(found["ddpm"].p_holm)


class TestContrasts:
    ROLES = Roles(
        augmentations=("classic", "paste", "ddpm"),
        controls={"ddpm": {SHUFFLED: "ddpm:shuffled-boxes", NORMALS: "ddpm:normals-only"}},
        unlearned=("classic", "paste"),
    )
    MEANS: Mapping[str, float] = {
        **{"real": 0.5, "ddpm": 0.7, "ddpm:shuffled-boxes": 0.55, "ddpm:normals-only": 0.6},
        **{"classic": 0.52, "paste": 0.64},
    }

    def test_an_augmentation_is_compared_with_its_controls_and_the_best_that_learns_nothing(self) -> None:
        found = judge(self.MEANS, self.ROLES)
        ddpm = found["ddpm"]
        steps = [(step.other, round(step.gain.value, 6)) for step in ddpm.contrasts]
        assert steps == [("ddpm:shuffled-boxes", 0.15), ("ddpm:normals-only", 0.1), ("paste", 0.06)]
        assert ddpm.p_holm <= ddpm.over_shuffled.p_in_order <= ddpm.over_normals.p_in_order
        assert ddpm.over_unlearned.p_in_order == pytest.approx(ddpm.over_unlearned.gain.p)
        assert found["paste"].contrasts == found["ddpm:shuffled-boxes"].contrasts == ()

    def test_no_step_counts_after_one_that_failed(self) -> None:
        failed = judge({**self.MEANS, "ddpm:normals-only": 0.7}, self.ROLES)["ddpm"]
        assert failed.over_shuffled.p_in_order <= 0.05
        assert failed.over_unlearned.gain.p <= 0.05
        assert failed.over_unlearned.p_in_order > 0.9
        worse = judge({**self.MEANS, "ddpm:shuffled-boxes": 0.8}, self.ROLES)["ddpm"]
        assert worse.over_shuffled.gain.p <= 0.05
        assert worse.over_unlearned.p_in_order == 1
        unproved = judge({**self.MEANS, "ddpm": 0.505, "ddpm:shuffled-boxes": 0.3}, self.ROLES)["ddpm"]
        assert unproved.over_shuffled.gain.p < 0.001
        assert unproved.over_shuffled.p_in_order > 0.05

    def test_a_control_that_was_not_run_is_no_step(self) -> None:
        means = {arm: mean for arm, mean in self.MEANS.items() if "normals" not in arm}
        assert [step.other for step in judge(means, self.ROLES)["ddpm"].contrasts] == [
            *("ddpm:shuffled-boxes", "paste")
        ]


class TestWorth:
    ROLES = Roles(volumes={"real": 96, "more-real": 768})

    def test_a_gain_is_a_share_of_the_ceilings_with_fiellers_interval(self) -> None:
        found = judge({"real": 0.5, "ddpm": 0.6, "more-real": 0.7}, self.ROLES, spread=0.05)["ddpm"]
        assert (found.recovered.value, found.ceiling_factor) == pytest.approx((0.5, 8))
        scores = scores_of({"real": 0.5, "ddpm": 0.6, "more-real": 0.7}, 0.05)
        for share in (found.recovered.low, found.recovered.high):
            arm = {**scores, "mixed": share * scores["more-real"] + (1 - share) * scores["real"]}
            assert abs(0.6 - arm["mixed"].mean()) > 0.01
            variance = scores["real"][:, 0].var(ddof=1) / 5
            error = math.sqrt(variance * (1 + share**2 + (1 - share) ** 2))
            df = (1 + 0.5**2 + 0.5**2) ** 2 / (1 + 0.5**4 + 0.5**4) * 4
            assert abs(0.6 - arm["mixed"].mean()) / error == pytest.approx(t.isf(0.025, df), rel=1e-6)

    def test_without_a_ceiling_above_the_floor_no_share_is_recovered(self) -> None:
        for means in ({"real": 0.5, "ddpm": 0.6}, {"real": 0.5, "ddpm": 0.6, "more-real": 0.505}):
            assert np.isnan(judge(means, self.ROLES)["ddpm"].recovered.value)
        assert np.isnan(judge({"real": 0.5, "more-real": 0.9}, self.ROLES)["more-real"].recovered.value)

    def test_equivalents_are_in_patients_and_in_lesions(self) -> None:
        sizes = {
            "real": 24,
            "more-real:0.05": 32,
            "more-real:0.15": 49,
            "more-real:0.4": 91,
            "more-real": 192,
        }
        lesions = {arm: 2 * n for arm, n in sizes.items()}
        roles = Roles(volumes=sizes, sizes={"patients": sizes, "lesions": lesions})
        means = {arm: 0.9 - 4 * n**-0.8 for arm, n in sizes.items()} | {"ddpm": 0.9 - 4 * 44**-0.8}
        found = judge(means, roles, spread=0.005)
        assert found["ddpm"].patients_equivalent.value == pytest.approx(20, abs=0.5)
        assert found["ddpm"].lesions_equivalent.value == pytest.approx(40, abs=1)
        assert np.isnan(found["more-real:0.4"].patients_equivalent.value)


class TestVerdict:
    RESULT = Comparison(
        metric=METRIC,
        difference=Estimate(0.2, 0.01, 0.37, 0.01),
        p_holm=0.021,
        seeds=5,
        baseline_seeds=10,
        recovered=Estimate(0.5, 0.1, 0.9),
        ceiling_factor=5,
    )

    def test_says_gain_interval_seeds_p_and_share(self) -> None:
        assert self.RESULT.verdict("ddpm", "real") == (
            "ddpm: +0.20 mean sensitivity over real [0.01, 0.37], 5 seeds against 10, Holm p 0.021; "
            "50 % of what 5x the real data gave"
        )
        assert "of what more real" in replace(self.RESULT, ceiling_factor=math.nan).verdict("ddpm", "real")
        uncorrected = replace(self.RESULT, p_holm=math.nan, difference=Estimate(0.2, 0.1, 0.3, 0.0001))
        assert ", p < 0.001; 50 %" in uncorrected.verdict("ddpm", "real")

    def test_says_every_contrast(self) -> None:
        said = replace(
            self.RESULT,
            over_shuffled=Contrast("ddpm:shuffled-boxes", Estimate(0.1, 0.02, 0.18, 0.02), 0.021),
            over_normals=Contrast("ddpm:normals-only", Estimate(0.04, -0.02, 0.1, 0.2), 0.2),
            over_unlearned=Contrast("classic", Estimate(-0.1, -0.17, -0.03, 0.01), 1.0),
        )
        assert said.verdict("ddpm", "real").split("; ")[2:] == [
            "0.10 better than ddpm:shuffled-boxes [0.02, 0.18]",
            "not distinguishable from ddpm:normals-only: +0.04 [-0.02, 0.10]",
            "0.10 worse than classic [0.03, 0.17]",
        ]
        late = replace(said, over_unlearned=Contrast("classic", Estimate(0.1, 0.03, 0.17, 0.01), 0.2))
        last = late.verdict("ddpm", "real").split("; ")[-1]
        assert last == "+0.10 over classic [0.03, 0.17], which was not to be tested any more"

    def test_a_gain_that_may_be_luck_is_not_distinguishable(self) -> None:
        said = replace(self.RESULT, p_holm=0.3).verdict("ddpm", "real")
        assert said.endswith("5 seeds against 10, Holm p 0.3: not distinguishable from real")

    def test_what_is_worse_has_recovered_nothing(self) -> None:
        worse = replace(self.RESULT, difference=Estimate(-0.2, -0.3, -0.1, 0.01))
        assert worse.verdict("ddpm", "real").endswith("Holm p 0.021")

    @pytest.mark.parametrize(
        ("seeds", "baseline", "words"), [(1, 10, "1 seed against 10"), (9, 4, "9 seeds")]
    )
    def test_few_seeds_tell_nothing(self, seeds: int, baseline: int, words: str) -> None:
        said = replace(self.RESULT, seeds=seeds, baseline_seeds=baseline).verdict("ddpm", "real")
        assert words in said
        assert said.endswith(": too few seeds to tell")

    def test_without_any_variation_nothing_is_tested(self) -> None:
        found = judge({"real": 0.5, "ddpm": 0.7}, Roles(), spread=0)["ddpm"]
        assert found.verdict("ddpm", "real").endswith(
            "nothing varies between seeds and patients, so nothing can be tested"
        )
        undefined = compare_scores(METRIC, scores_of({"real": 0.5, "ddpm": np.nan}), 60, Roles())["ddpm"]
        assert undefined.verdict("ddpm", "real") == "ddpm: mean sensitivity is not defined on these data"


class TestDirection:
    MEANS: Mapping[str, float] = {"real": 0.6, "more-real": 0.2, "ddpm": 0.4, "classic": 0.5}
    ROLES = Roles(augmentations=("ddpm", "classic"), unlearned=("classic",))

    def test_where_lower_is_better_all_shares_count_what_is_better(self) -> None:
        lower = replace(METRIC, direction="lower", title="error")
        ddpm = compare_scores(lower, scores_of(self.MEANS), 60, self.ROLES)["ddpm"]
        assert ddpm.difference.value == pytest.approx(-0.2)
        assert ddpm.recovered.value == pytest.approx(0.5)
        assert ddpm.over_unlearned.gain.value == pytest.approx(0.1)
        assert ddpm.over_unlearned.p_in_order < 0.05
        said = ddpm.verdict("ddpm", "real")
        assert said.startswith("ddpm: error 0.20 below real (better) [0.18, 0.22], 5 seeds against 5, Holm p")
        assert "0.10 better than classic" in said

    def test_nothing_is_better_than_a_target_so_only_the_difference_is_tested(self) -> None:
        target = replace(METRIC, direction="target")
        ddpm = compare_scores(target, scores_of(self.MEANS), 60, self.ROLES)["ddpm"]
        assert np.isnan([ddpm.recovered.value, ddpm.patients_equivalent.value]).all()
        assert ddpm.contrasts == ()
        assert ddpm.p_holm < 0.05
        said = ddpm.verdict("ddpm", "real")
        assert said.startswith("ddpm: mean sensitivity 0.20 below real [0.18, 0.22]")
        assert "of what" not in said
