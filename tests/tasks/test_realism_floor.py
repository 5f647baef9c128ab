"""The floor, and that what is planted lies off it: on small breasts with smooth noise, by patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from dbtbench.geometry.views import Volume
from dbtbench.metric import Standing
from dbtbench.tasks.realism.floor import draw_floor, resample, stand
from dbtbench.tasks.realism.groups import name_worst, score_groups
from dbtbench.tasks.realism.matching import halve, label_strata, match, pick
from dbtbench.tasks.realism.metrics import METRICS, OPTIONAL, SLOW, find_bounds
from dbtbench.tasks.realism.scoring import Scores, Sides, score, score_simple
from dbtbench.tasks.realism.table import Table, join_with_pairs, measure_arrays

EACH, DRAWS, GRID = 24, 20, (4, 48, 48)
SLOWLY = {metric.name for metric in (*SLOW, *OPTIONAL)}
LESIONS = {metric.name for metric in METRICS if metric.name.startswith("lesion_")}


def draw(seed: int, number: int = EACH) -> Volume:
    """Draw breasts of different sizes and brightness, with streaks along the rows."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: GRID[1], : GRID[2]]
    made = []
    for _ in range(number):
        inside = np.hypot((rows - 23.5) / rng.uniform(0.9, 1.1), columns) < rng.uniform(34, 40)
        noise = ndimage.gaussian_filter(rng.normal(size=GRID), (1, 1, 2))
        volume = rng.uniform(0.35, 0.45) + 0.06 * noise / noise.std()
        made.append(np.where(inside, volume, 0.0))
    return np.array(made, np.float32).clip(0, 1)[:, None]


@lru_cache(maxsize=64)
def measure(seed: int) -> Table:
    return measure_arrays(draw(seed), [], f"{seed}-")


@lru_cache(maxsize=16)
def floor_of(seed: int) -> pd.DataFrame:
    pool = join_with_pairs([measure(seed), measure(seed + 100), measure(seed + 200)], 0)
    return draw_floor(pool, np.full(3 * EACH, "all"), {"all": EACH}, DRAWS, 0, score, ignore)


def ignore(_: int = 1) -> None:
    pass


def place(own: Table, seed: int = 0) -> dict[str, Standing]:
    """Where a set stands, against the reference of a seed."""
    sides = Sides(own, measure(seed), measure(seed))
    found: dict[str, Standing] = stand(score(sides), floor_of(seed), resample(sides, DRAWS, 0, score, ignore))
    return found


def test_real_halves_lie_inside_the_floor_for_nearly_all_metrics() -> None:
    inside = []
    for seed in range(3):
        pool = [measure(seed), measure(seed + 100), measure(seed + 200)]
        rng = np.random.default_rng(seed)
        whole = join_with_pairs(pool, 0)
        one, other = halve(whole.patients, np.full(3 * EACH, "all"), {"all": EACH}, rng)
        sides = Sides(whole.take(one), whole.take(other), whole.take(other))
        scores = score(sides)
        standings = stand(scores, floor_of(seed), floor_of(seed))
        assert standings.keys() == {metric.name for metric in METRICS} - SLOWLY - LESIONS
        inside += [s.floor_low <= scores[name] <= s.floor_high for name, s in standings.items()]
    assert np.mean(inside) > 0.8  # the 95 % of 20 draws are less than that of all


def blur(volume: Volume) -> Volume:
    return np.asarray(ndimage.gaussian_filter(volume, (0, 0, 0, 1.2, 1.2)), np.float32)


def add_noise(volume: Volume) -> Volume:
    noise = np.random.default_rng(0).normal(scale=0.05, size=volume.shape)
    return np.where(volume > 0, volume + noise, 0).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "above", "below"),
    [
        (blur, ("beta", "c2st_auc"), ("power_finest", "power_fine", "precision", "clipped_density")),
        (add_noise, ("roughness", "power_finest", "c2st_auc"), ("beta", "coherence", "precision", "recall")),
        (lambda volumes: np.repeat(volumes[:1], EACH, 0), ("ms_ssim",), ("recall", "volume_mean_sd")),
    ],
)
def test_what_is_planted_lies_off_the_floor_on_the_right_side(
    change: Callable[[Volume], Volume], above: tuple[str, ...], below: tuple[str, ...]
) -> None:
    found = place(measure_arrays(change(draw(50)), [], "x"))
    assert {name: found[name].percentile for name in above} == dict.fromkeys(above, 100)
    assert {name: found[name].percentile for name in below} == dict.fromkeys(below, 0)


def test_one_volume_again_and_again_is_precise_and_covers_nothing() -> None:
    one = measure_arrays(np.repeat(draw(50)[:1], EACH, 0), [], "x")
    scores = score(Sides(one, measure(0), measure(0)))
    assert scores["precision"] in (0, 1)
    assert scores["ms_ssim"] == pytest.approx(1)
    assert max(scores["coverage"], scores["clipped_coverage"]) < 0.5
    copy = score(Sides(measure(0).take(range(EACH)), measure(0), measure(0)))
    assert copy["precision"] == copy["recall"] == 1


def test_quarter_turns_change_the_sign_of_anisotropy() -> None:
    turned = measure_arrays(np.rot90(draw(50), axes=(3, 4)).copy(), [], "x")
    straight, crossed = (score_simple(Sides(t, measure(0), measure(0))) for t in (measure(0), turned))
    assert straight["anisotropy"] > 0.5
    assert crossed["anisotropy"] < -0.5


def test_an_interval_holds_the_score_and_is_as_wide_as_the_spread_of_new_samples() -> None:
    """Its half-width is 1.96 standard deviations of what other volumes score."""
    found = place(measure(100))
    others = [score_simple(Sides(measure(seed), measure(0), measure(0))) for seed in range(100, 112)]
    for name in ("roughness", "coherence", "anisotropy"):
        spread = np.std([other[name] for other in others], ddof=1)
        assert (found[name].high - found[name].low) / 2 == pytest.approx(1.96 * spread, rel=0.6)
    scores = score(Sides(measure(100), measure(0), measure(0)))
    for name, standing in found.items():
        low, high = find_bounds(name)
        assert max(low, standing.low) <= scores[name] <= min(high, standing.high) or name.startswith("valley")


def test_a_score_that_is_seldom_defined_has_no_standing() -> None:
    draws = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, np.nan, np.nan, np.nan]})
    found = stand({"a": 2.0, "b": 1.0}, draws, draws)
    assert found.keys() == {"a"}
    assert found["a"].percentile == 37.5
    assert not stand({"a": np.nan}, draws, draws)


def cases(patients: int, lesions: Callable[[int], str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"PatientID": f"P{number}", "projection": view, "lesion": lesions(number)}
        for number in range(patients)
        for view in ("cc", "mlo")
    ]
    return pd.DataFrame(rows)


def test_halves_have_the_mix_and_no_patient_in_common() -> None:
    table = cases(40, lambda number: "yes" if number % 4 == 0 else "no")
    strata = label_strata(table, "lesion and projection")
    mix = {"no-cc": 15, "no-mlo": 15, "yes-cc": 5, "yes-mlo": 5}
    for seed in range(20):
        patients = table["PatientID"].to_numpy(str)
        one, other = halve(patients, strata, mix, np.random.default_rng(seed))
        assert not set(patients[one]) & set(patients[other])
        for half in (one, other):
            assert pd.Series(strata[half]).value_counts().to_dict() == mix


def test_the_mix_is_what_all_sides_can_give() -> None:
    many, few = cases(40, lambda n: "yes" if n % 2 else "no"), cases(20, lambda n: "yes" if n > 15 else "no")
    matched, mix = match([many, few], 100)
    assert matched == "lesion and projection"
    assert mix == {"no-cc": 16, "no-mlo": 16, "yes-cc": 4, "yes-mlo": 4}
    assert sum(match([many, few], 11)[1].values()) == 11
    rows = pick(label_strata(many, matched), mix, np.random.default_rng(0))
    assert pd.Series(label_strata(many.iloc[rows], matched)).value_counts().to_dict() == mix
    apart = match([cases(20, lambda _: "yes"), cases(20, lambda _: "no")], 100)
    assert apart == ("", {"": 40})


def test_the_worst_group_is_named() -> None:
    """Half of the volumes are brightened, and belong to one density."""
    volumes = draw(60, 2 * EACH)
    volumes[:EACH] = np.where(volumes[:EACH] > 0, volumes[:EACH] + 0.1, 0)
    density = ["d"] * EACH + ["b"] * EACH
    sides = []
    for number, array in enumerate((volumes, draw(61, 2 * EACH), draw(62, 4 * EACH))):
        table = measure_arrays(array, [], f"{number}-")
        named = table.cases.assign(projection="cc", lesion="no", breast_density=density * (len(table) // 48))
        sides.append(replace(table, cases=named))
    own, reference, pool = sides
    groups = score_groups(Sides(own, reference, reference), pool, DRAWS, 0)
    assert set(groups["group"]) == {"cc", "no", "b", "d"}
    assert set(groups["metric"]) == set(scores_of(own, reference))
    assert "worst group: breast_density d (24 volumes), W1" in name_worst(groups, METRICS[0])
    rows = groups.set_index(["group", "metric"])["percentile"]
    assert rows["d", "w1_breast"] == 100
    assert rows["b", "w1_breast"] < 98
    assert not name_worst(groups.iloc[:0], METRICS[0])


def scores_of(own: Table, reference: Table) -> Scores:
    return score_simple(Sides(own, reference, reference))
