from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.geometry.resample import area_mean, area_weights, torchio_resize

SIZES = st.integers(1, 40)


@given(SIZES, SIZES)
def test_weights_of_each_cell_sum_to_one_and_every_sample_counts_alike(n_in: int, n_out: int) -> None:
    weights = area_weights(n_in, n_out).toarray()
    assert weights.shape == (n_out, n_in)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=0), n_out / n_in, rtol=1e-4)


@given(SIZES, SIZES)
def test_a_weight_is_the_share_of_the_cell_that_the_sample_fills(n_in: int, n_out: int) -> None:
    cell = Fraction(n_in, n_out)

    def share(i: int, j: int) -> float:
        low, high = max(i * cell, Fraction(j)), min((i + 1) * cell, Fraction(j + 1))
        return float(max(high - low, Fraction(0)) / cell)

    expected = [[share(i, j) for j in range(n_in)] for i in range(n_out)]
    np.testing.assert_allclose(area_weights(n_in, n_out).toarray(), expected, rtol=1e-6)


@given(st.integers(1, 6), st.integers(1, 6))
def test_whole_ratios_are_plain_means(ratio: int, n_out: int) -> None:
    values = np.random.default_rng(0).random(ratio * n_out)
    np.testing.assert_allclose(
        area_weights(len(values), n_out) @ values, values.reshape(n_out, ratio).mean(axis=1), rtol=1e-5
    )


@given(st.integers(1, 200), SIZES, st.integers(0, 4))
def test_reduced_samples_stand_for_what_is_nearest(n_in: int, n_out: int, reduction: int) -> None:
    """Sample k lies on input sample 2^r·k and counts for all that lies around it."""
    step = 2**reduction
    weights = area_weights(n_in, n_out, reduction).toarray()
    assert weights.shape == (n_out, -(-n_in // step))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    fine = 2 * n_in  # half samples, since the borders lie in the middle of samples
    centre = (np.arange(fine) + 0.5) / 2 - 0.5
    nearest = np.clip(np.round(centre / step), 0, weights.shape[1] - 1).astype(int)
    sums = np.zeros((n_out, weights.shape[1]))
    np.add.at(sums.T, nearest, area_weights(fine, n_out).toarray().T)
    np.testing.assert_allclose(weights, sums, atol=1e-5)


@given(st.tuples(SIZES, SIZES, SIZES), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_the_mean_of_the_volume_is_kept(shape: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    small = area_mean(volume, shape, grid)
    assert small.shape == grid
    assert small.dtype == np.float32
    assert small.mean() == pytest.approx(volume.mean(), rel=1e-4)


def test_the_same_grid_changes_nothing() -> None:
    volume = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(area_mean(volume, (4, 6, 5), (4, 6, 5)), volume)


def test_a_larger_grid_repeats_voxels() -> None:
    volume = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    expected = volume.repeat(2, axis=0).repeat(3, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(area_mean(volume, (2, 3, 4), (4, 9, 8)), expected, rtol=1e-6)


def test_resampling_commutes_with_a_rotation_by_180_degrees() -> None:
    volume = np.random.default_rng(0).random((5, 30, 22)).astype(np.float32)
    there = area_mean(volume[:, ::-1, ::-1], (5, 30, 22), (2, 8, 8))
    np.testing.assert_allclose(there[:, ::-1, ::-1], area_mean(volume, (5, 30, 22), (2, 8, 8)), atol=1e-6)


def test_the_bytes_do_not_depend_on_the_number_of_threads() -> None:
    program = (
        "import hashlib, numpy as np; from dbtbench.geometry.resample import area_mean\n"
        "volume = np.random.default_rng(0).random((6, 700, 500)).astype(np.float32)\n"
        "print(hashlib.sha256(area_mean(volume, volume.shape, (3, 64, 64))).hexdigest())"
    )

    def run(threads: str) -> Any:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads)
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )

    assert run("1").stdout == run("4").stdout


def test_torchio_keeps_axes_and_a_ramp() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[None, :, None], (20, 40, 30))
    small = torchio_resize(ramp, (8, 10, 10))
    assert small.shape == (8, 10, 10)
    assert np.all(np.diff(small.mean(axis=(0, 2))) > 0)
    np.testing.assert_allclose(small.std(axis=(0, 2)), 0, atol=1e-5)
