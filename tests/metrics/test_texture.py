"""Texture and spectrum: what is planted moves the measure the right way, and by as much as it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask
from dbtbench.metrics.spectrum import BANDS, spectrum
from dbtbench.metrics.texture import choose_slices, coherence, roughness

SHAPE = (1, 1, 6, 64, 64)


def breast(seed: int = 0, smooth: float = 1.0) -> tuple[Volume, Mask]:
    """Smooth noise in a half disc at the left border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    inside = np.hypot(rows - 31.5, columns) < 28
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE[2:]), (1, smooth, smooth))
    volume = np.where(inside, 0.5 + 0.1 * noise / noise.std(), 0)
    return volume.clip(0, 1).astype(np.float32)[None, None], np.broadcast_to(inside, SHAPE)


def blur(volume: Volume, sigma: float) -> Volume:
    return np.asarray(ndimage.gaussian_filter(volume, (0, 0, sigma, sigma, sigma)), np.float32)


def test_blur_lowers_roughness_and_fine_power_and_steepens_the_spectrum() -> None:
    volume, inside = breast()
    before, after = spectrum(volume, inside), spectrum(blur(volume, 1), inside)
    lost = {name: float(before[f"power_{name}"][0] - after[f"power_{name}"][0]) for name in BANDS}
    assert lost["finest"] > lost["fine"] > lost["medium"] > lost["coarse"]
    # A Gaussian of deviation 1 takes the power at frequency f down by exp(−(2πf)²).
    assert lost["medium"] == pytest.approx((2 * np.pi * 3 / 32) ** 2, abs=0.25)
    assert after["beta"] > before["beta"] + 1
    assert roughness(blur(volume, 1), inside) < 0.7 * roughness(volume, inside)


def test_white_noise_raises_roughness_and_fine_power() -> None:
    volume, inside = breast(smooth=2)
    noise = np.random.default_rng(1).normal(scale=0.05, size=SHAPE).astype(np.float32)
    noisy = np.where(inside, volume + noise, volume)
    before, after = spectrum(volume, inside), spectrum(noisy, inside)
    # Power per pixel of white noise is its variance, at every frequency.
    assert np.exp(after["power_finest"]) == pytest.approx(0.05**2, rel=0.15)
    assert after["power_finest"] > before["power_finest"] + 2
    assert after["power_coarse"] == pytest.approx(before["power_coarse"], abs=0.2)
    assert after["beta"] < before["beta"] - 1
    steps = roughness(noisy - volume, inside)
    assert steps == pytest.approx(0.05 * 2 / np.sqrt(np.pi), rel=0.02)  # E|a − b| of two normal numbers
    assert roughness(noisy, inside) > roughness(volume, inside)
    assert coherence(noisy, inside) < coherence(volume, inside)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.floats(-90, 90))
def test_a_quarter_turn_changes_the_sign_of_anisotropy(seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    stripes = ndimage.gaussian_filter(rng.normal(size=(1, 1, 2, 64, 64)), (0, 0, 0, 1, 4))
    stripes = ndimage.rotate(stripes, angle, axes=(3, 4), reshape=False, mode="reflect")
    volume = (0.5 + 0.2 * stripes / stripes.std()).astype(np.float32)
    inside = np.ones(volume.shape, bool)
    turned = np.rot90(volume, axes=(3, 4))
    once, twice = (float(spectrum(part, inside)["anisotropy"][0]) for part in (volume, turned))
    assert twice == pytest.approx(-once, abs=1e-4)


def test_what_varies_down_the_image_has_positive_anisotropy_and_lines_are_coherent() -> None:
    rows = np.mgrid[:64, :64][0]
    lines = (0.5 + 0.2 * np.sin(2 * np.pi * rows / 8)).astype(np.float32)
    volume, inside = np.broadcast_to(lines, SHAPE).copy(), np.ones(SHAPE, bool)
    assert spectrum(volume, inside)["anisotropy"] > 2
    assert coherence(volume, inside) == pytest.approx(1, abs=1e-3)
    blobs = (0.5 + 0.1 * (np.sin(2 * np.pi * rows / 8) + np.sin(2 * np.pi * rows.T / 8))).astype(np.float32)
    assert coherence(np.broadcast_to(blobs, SHAPE).copy(), inside) < 0.7


def test_slices_drawn_one_by_one_are_rough_although_each_is_right() -> None:
    volume, inside = breast()
    shuffled = volume.copy()
    for place in range(SHAPE[2]):
        shuffled[0, 0, place] = breast(place + 10)[0][0, 0, place]
    assert roughness(shuffled, inside) > 1.5 * roughness(volume, inside)
    same = spectrum(volume, inside)["power_fine"] - spectrum(shuffled, inside)["power_fine"]
    assert abs(same) < 0.3


def test_nothing_is_measured_where_there_is_no_breast_or_one_slice() -> None:
    volume, inside = breast()
    nowhere = np.zeros(SHAPE, bool)
    for found in (
        *spectrum(volume, nowhere).values(),
        roughness(volume, nowhere),
        coherence(volume, nowhere),
    ):
        assert np.isnan(found).all()
    assert np.isnan(roughness(volume[:, :, :1], inside[:, :, :1])).all()
    flat = np.full(SHAPE, 0.5, np.float32)
    assert np.isnan(coherence(flat, inside)).all()
    assert np.isfinite(spectrum(flat, inside)["power_fine"]).all()


def test_slices_are_spread_from_the_first_to_the_last() -> None:
    assert list(choose_slices(3)) == [0, 1, 2]
    assert list(choose_slices(36)) == [0, 5, 10, 15, 20, 25, 30, 35]
