"""Statistics of grey-level histograms must tell one mode from two."""

from __future__ import annotations

import diptest
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dbtbench.metrics import histogram as h

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(0.5, 0.1, 30_000)


def counts_of(values: NDArray[np.float64]) -> h.Counts:
    return h.histogram(values.astype(np.float32).reshape(1, 1, 1, 1, -1))


def two_modes(
    separation: float, sd: float = 0.05, share: float = 0.5, n: int = 40_000
) -> NDArray[np.float64]:
    """Two normal distributions whose means are `separation` standard deviations apart."""
    rng = np.random.default_rng(1)
    first = round(n * share)
    means = 0.5 + np.array([-0.5, 0.5]) * separation * sd
    return np.concatenate([rng.normal(means[0], sd, first), rng.normal(means[1], sd, n - first)])


def test_every_voxel_is_counted_once_and_the_mask_selects() -> None:
    volumes = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 1, 3, 4, 5)
    mask = volumes > 0.5
    assert h.histogram(volumes).sum() == volumes.size
    assert h.histogram(volumes, mask).sum() == mask.sum()
    assert h.histogram(volumes, mask)[:127].sum() == 0
    assert h.histogram(volumes)[-1] > 0


@given(st.permutations(range(6)))
def test_the_order_of_volumes_does_not_matter(order: list[int]) -> None:
    volumes = np.random.default_rng(2).random((6, 1, 2, 4, 4), dtype=np.float32)
    assert np.array_equal(h.histogram(volumes), h.histogram(volumes[list(order)]))


def test_the_dip_is_that_of_jittered_values() -> None:
    values = two_modes(4, n=20_000)
    jittered = np.floor(values * 256) / 256 + np.random.default_rng(3).random(len(values)) / 256
    assert h.dip(counts_of(values)) == pytest.approx(diptest.dipstat(jittered), abs=0.002)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.4, 1.0), st.floats(0, 1), st.floats(0, 8))
def test_the_dip_does_not_depend_on_scale_and_offset(scale: float, offset: float, separation: float) -> None:
    values = np.clip(two_modes(separation, sd=0.04), 0, 1)
    moved = values * scale + offset * (1 - scale)
    assert h.dip(counts_of(moved)) == pytest.approx(h.dip(counts_of(values)), abs=0.004)


@pytest.mark.parametrize("levels", [256, 512, 1024, 4096, 65536])
def test_quantised_values_with_one_mode_are_not_called_bimodal(levels: int) -> None:
    counts = counts_of(np.round(np.clip(NORMAL, 0, 1) * (levels - 1)) / (levels - 1))
    assert h.dip(counts) < 0.002
    assert h.valley_depth(counts) == 0
    assert len(h.modes(counts)) == 1


def test_two_equal_spikes_have_the_largest_dip() -> None:
    assert h.dip(counts_of(np.repeat([0.25, 0.75], 500))) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("separation", [4, 6, 8])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_ashmans_d_is_the_separation_of_two_equally_wide_modes(separation: float, share: float) -> None:
    # √2 · k σ / √(σ² + σ²) = k
    counts = counts_of(two_modes(separation, share=share))
    assert h.ashman_d(counts) == pytest.approx(separation, rel=0.03)


def test_sarles_coefficient_of_known_distributions() -> None:
    assert h.bimodality_coefficient(counts_of(NORMAL)) == pytest.approx(1 / 3, abs=0.01)
    assert h.bimodality_coefficient(np.ones(256, np.int64)) == pytest.approx(5 / 9, abs=0.001)
    assert h.bimodality_coefficient(counts_of(np.repeat([0.2, 0.8], 99))) == pytest.approx(1, abs=0.001)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_fields_with_one_mode_have_a_shallow_valley(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert h.valley_depth(counts_of(rng.random(30_000))) < 0.25
    assert h.valley_depth(counts_of(rng.normal(0.5, 0.1, 30_000))) < 0.1


def test_the_valley_between_two_modes_is_measured_against_the_lower_one() -> None:
    x = (h.CENTRES - 0.5) / 0.08
    density = stats.norm.pdf(x, -2, 1) + 0.5 * stats.norm.pdf(x, 2, 1)
    expected = 1 - density[96:160].min() / (0.5 * stats.norm.pdf(0))
    counts = np.rint(density * 1e6).astype(np.int64)
    assert h.valley_depth(counts) == pytest.approx(expected, abs=0.03)
    assert h.modes(counts) == pytest.approx([0.34, 0.66], abs=0.01)


def test_two_equally_high_modes_have_the_valley_between_them() -> None:
    x = (h.CENTRES - 0.5) / 0.08
    density = stats.norm.pdf(x, -1.5, 1) + stats.norm.pdf(x, 1.5, 1)
    expected = 1 - density[128] / density.max()
    assert h.valley_depth(np.rint(density * 1e6).astype(np.int64)) == pytest.approx(expected, abs=0.03)


def test_air_at_the_first_level_is_a_mode() -> None:
    values = np.concatenate([np.zeros(30_000), RNG.normal(0.3, 0.05, 20_000)])
    assert h.modes(counts_of(values)) == pytest.approx([0, 0.3], abs=0.01)
    assert h.valley_depth(counts_of(values)) > 0.95
    assert h.air_mode_mass(counts_of(values)) == pytest.approx(0.6, abs=0.001)


@given(st.floats(0, 0.25))
def test_the_wasserstein_distance_of_a_shift_is_the_shift(shift: float) -> None:
    values = np.linspace(0.1, 0.7, 5000)
    assert h.wasserstein(counts_of(values), counts_of(values + shift)) == pytest.approx(shift, abs=0.003)


def test_the_wasserstein_distance_ignores_how_many_voxels_there_are() -> None:
    counts = counts_of(NORMAL)
    assert h.wasserstein(counts, 7 * counts) == pytest.approx(0, abs=1e-12)


def test_nothing_is_said_about_no_voxels() -> None:
    none = np.zeros(256, np.int64)
    single = (h.dip, h.ashman_d, h.bimodality_coefficient, h.valley_depth, h.air_mode_mass)
    assert all(np.isnan(statistic(none)) for statistic in single)
    assert np.isnan(h.wasserstein(none, counts_of(NORMAL)))
    assert len(h.modes(none)) == 0
