"""Random numbers and rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.phantom.numbers import STEP, gaussian, round_to_grid, stream


def test_names_open_different_streams_and_one_name_the_same() -> None:
    names = [(1,), (1, 0), (1, 0, "noise"), (1, 0, "tissue"), ("1",), (10,)]
    first = [int(stream(*name).integers(2**62)) for name in names]
    assert len(set(first)) == len(names)
    assert first == [int(stream(*name).integers(2**62)) for name in names]


def test_gaussians_have_the_moments_of_the_normal_law() -> None:
    z = gaussian(stream(0), 1_000_000)
    moments = [float((z**k).mean()) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.02)
    assert np.quantile(z, [0.001, 0.975]) == pytest.approx([-3.090, 1.960], abs=0.02)


def test_each_gaussian_takes_the_same_bits() -> None:
    """So one that is not drawn shifts no other."""
    np.testing.assert_array_equal(gaussian(stream(0), (4, 8)).reshape(-1), gaussian(stream(0), 32))


@given(st.floats(-1e4, 1e4), st.integers(-18, 0))
def test_rounding_moves_by_half_a_step_at_most(value: float, power: int) -> None:
    step = 2.0**power
    rounded = round_to_grid(value, step)
    assert abs(rounded - value) <= 0.50003 * step
    assert rounded / step == np.rint(rounded / step)
    assert round_to_grid(rounded, step) == rounded


def test_any_layout_is_rounded() -> None:
    values = gaussian(stream(0), (3, 4, 5)) / np.pi
    for turned in (values.T, values[:, ::-1], np.asfortranarray(values), values[..., ::2].swapaxes(0, 1)):
        np.testing.assert_array_equal(round_to_grid(turned), np.rint(turned / STEP) * STEP)


def test_a_rank_of_rounded_values_does_not_hang_on_the_last_bit() -> None:
    """Two points of a curve's tip are equally far: without rounding, either could be the foremost."""
    curve = 100 * np.cos(np.linspace(-np.pi / 2, np.pi / 2, 2400))
    rng = np.random.default_rng(0)
    noisy = [curve * (1 + 1e-12 * rng.choice((-1, 1), curve.shape)) for _ in range(20)]
    assert len({int(values.argmax()) for values in noisy}) == 2
    assert len({int(round_to_grid(values).argmax()) for values in noisy}) == 1


def test_multiples_of_a_finer_grid_are_far_from_every_border() -> None:
    """Exact halves too: where a difference of one part in 10¹² could turn them, bytes would differ."""
    exact = np.arange(-(1 << 15), 1 << 15) * STEP / 4096
    for factor in (1 - 1e-12, 1 + 1e-12):
        np.testing.assert_array_equal(round_to_grid(exact * factor), round_to_grid(exact))
        assert (np.rint(exact * factor / STEP) != np.rint(exact / STEP)).any()
