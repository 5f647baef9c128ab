import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.resample import area_mean, area_weights, torchio_resize

SIZES = st.integers(1, 40)


@given(SIZES, SIZES)
def test_weights_of_each_cell_sum_to_one_and_every_sample_counts_alike(n_in: int, n_out: int) -> None:
    weights = area_weights(n_in, n_out)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=0), n_out / n_in, rtol=1e-4)


@given(st.integers(1, 6), st.integers(1, 6))
def test_whole_ratios_are_plain_means(ratio: int, n_out: int) -> None:
    values = np.random.default_rng(0).random(ratio * n_out)
    np.testing.assert_allclose(
        area_weights(len(values), n_out) @ values, values.reshape(n_out, ratio).mean(axis=1), rtol=1e-5
    )


@given(st.tuples(SIZES, SIZES, SIZES), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_the_mean_of_the_volume_is_kept(shape: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    small = area_mean(volume, shape, grid)
    assert small.shape == grid
    assert small.mean() == pytest.approx(volume.mean(), rel=1e-4)


def test_the_same_grid_changes_nothing() -> None:
    volume = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(area_mean(volume, (4, 6, 5), (4, 6, 5)), volume)


def test_resampling_commutes_with_a_rotation_by_180_degrees() -> None:
    volume = np.random.default_rng(0).random((5, 30, 22)).astype(np.float32)
    there = area_mean(volume[:, ::-1, ::-1], (5, 30, 22), (2, 8, 8))
    np.testing.assert_allclose(there[:, ::-1, ::-1], area_mean(volume, (5, 30, 22), (2, 8, 8)), atol=1e-6)


def test_torchio_keeps_axes_and_a_ramp() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[None, :, None], (20, 40, 30))
    small = torchio_resize(ramp, (8, 10, 10))
    assert small.shape == (8, 10, 10)
    assert np.all(np.diff(small.mean(axis=(0, 2))) > 0)
    np.testing.assert_allclose(small.std(axis=(0, 2)), 0, atol=1e-5)
