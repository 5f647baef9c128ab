"""Comparisons of sets: the same distribution, one that is off, and one volume again and again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from dbtbench.metrics.diversity import draw_pairs, ms_ssim, shrink
from dbtbench.metrics.fidelity import expected_coverage, fidelity_and_coverage
from dbtbench.metrics.two_sample import Features, c2st_auc, frechet_distance, kid, standardise

N = 120


def draw(seed: int, shift: float = 0.0, n: int = N) -> Features:
    return np.random.default_rng(seed).normal(size=(n, 6)) + shift


def auc(x: Features, y: Features, seed: int = 0) -> float:
    return c2st_auc(x, y, np.arange(len(x)), np.arange(len(y)), seed)


def test_two_sets_of_one_distribution_cannot_be_separated() -> None:
    areas = [auc(draw(seed), draw(seed + 100)) for seed in range(10)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    distances = [kid(draw(seed), draw(seed + 100)) for seed in range(40)]
    assert abs(np.mean(distances)) < 2 * np.std(distances) / np.sqrt(40)


def test_a_shift_is_seen_by_every_distance() -> None:
    assert auc(draw(0, 1.5), draw(1)) > 0.95
    assert kid(draw(0, 1.5), draw(1)) > 10 * abs(kid(draw(0), draw(1)))
    assert frechet_distance(draw(0, 1.5), draw(1)) == pytest.approx(6 * 1.5**2, rel=0.2)


def test_patients_stay_in_one_fold() -> None:
    """Otherwise each of a patient's volumes gives the others away, although the sets are the same."""
    who = np.repeat(np.arange(15), 8)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(15, 40))[who] + 0.05 * rng.normal(size=(N, 40)) for _ in range(2))
    assert auc(x, y) > 0.95
    grouped = np.mean([c2st_auc(x, y, who, who, seed) for seed in range(5)])
    assert grouped < 0.75


def test_frechet_distance_is_the_one_with_a_matrix_root() -> None:
    x, y = draw(0) @ np.diag([1, 2, 1, 1, 3, 1]), draw(1, 0.5)
    one, other = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(one @ other).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(one + other - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected)


def test_neighbours_tell_what_is_wrong() -> None:
    real, same = draw(0), fidelity_and_coverage(draw(1), draw(0))
    assert min(same.values()) > 0.85
    far = fidelity_and_coverage(draw(2, 10), real)
    assert max(far.values()) == 0
    one = fidelity_and_coverage(np.tile(real[:1] + 1e-6, (N, 1)), real)
    assert one["precision"] == 1
    assert max(one[name] for name in ("recall", "coverage", "clipped_coverage")) < 0.15
    narrow = fidelity_and_coverage(0.3 * draw(3), real)
    assert narrow["precision"] == 1
    assert narrow["recall"] < 0.3
    assert narrow["clipped_coverage"] < 0.6
    few = fidelity_and_coverage(real[:5], real)
    assert np.isnan(list(few.values())).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_clipped_measures_fall_with_the_share_of_bad_ones(seed: int, bad: float) -> None:
    x, real = draw(seed), draw(seed + 5000)
    x[: int(bad * N)] += 100
    found = fidelity_and_coverage(x, real)
    assert found["clipped_density"] == pytest.approx(1 - bad, abs=0.2)
    assert found["clipped_coverage"] == pytest.approx(1 - bad, abs=0.25)


def test_one_outlier_of_the_reference_does_not_make_everything_precise() -> None:
    real = np.concatenate([draw(0), [[1000.0] * 6]])
    wild = draw(1, 300)
    found = fidelity_and_coverage(wild, real)
    assert found["precision"] == 1  # inside the outlier's ball, which reaches to the others
    assert found["clipped_density"] == 0


def test_expected_coverage_is_that_of_drawn_numbers() -> None:
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(300):
        real, drawn = np.sort(rng.random(40)), rng.random(30)
        away = np.sort(np.abs(real[:, None] - real), axis=1)[:, 5]
        held = (np.abs(real[:, None] - drawn) <= away[:, None]).sum(axis=1)
        simulated.append(np.minimum(held / 5, 1).mean())
    expected = expected_coverage(30, 40, 5)
    assert expected[0] == 0
    assert expected[30] == pytest.approx(np.mean(simulated), abs=0.01)


def test_features_that_are_not_defined_are_far_and_such_that_do_not_vary_count_nothing() -> None:
    real = draw(0)
    real[:, 0] = 3
    own = draw(1)
    own[0, 1] = np.nan
    own[1, 2] = 1e9
    x, y = standardise(own, real)
    assert not x[:, 0].any()
    assert (x[0, 1], x[1, 2]) == (5, 5)
    assert y[:, 1:].std(axis=0) == pytest.approx(1)


def test_volumes_that_are_alike_are_similar() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.random((6, 1, 16, 128, 96), np.float32)
    volumes[1] = volumes[0]
    small = shrink(volumes)
    assert small.shape == (6, 8, 64, 64)
    assert small[0, 0, 0, 0] == pytest.approx(float(volumes[0, 0, :2, :2, :2].mean()), abs=0.05)
    noisy = (small[0] + 0.05 * rng.normal(size=small[0].shape)).astype(np.float32)
    found = ms_ssim(np.concatenate([small, noisy[None]]), [(0, 1), (0, 6), (0, 2)])
    assert found[0] == pytest.approx(1)
    assert 1 > found[1] > found[2]
    assert np.isnan(ms_ssim(small[:, :, :10], [(0, 1)])).all()
    for side in (11, 16, 21, 22, 32, 41, 43, 44):
        assert np.isfinite(ms_ssim(small[:, :, :side, :side], [(0, 1)])).all()


def test_pairs_are_of_different_patients_and_none_comes_twice() -> None:
    patients = [f"P{number // 4}" for number in range(40)]
    pairs = draw_pairs(patients, 4, 0)
    assert 100 < len(pairs) <= 160
    assert all(patients[one] != patients[other] for one, other in pairs)
    assert len({tuple(pair) for pair in pairs}) == len(pairs)
    assert (draw_pairs(patients, 4, 0) == pairs).all()
    assert not len(draw_pairs(["P0"], 4, 0))
