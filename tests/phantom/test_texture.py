"""Power-law fields and tubes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dbtbench.phantom.numbers import stream
from dbtbench.phantom.texture import Grid, power_law, tubes, wander

GRID = Grid((20, 30, 40), (1.0, 0.8, 0.5))


def slope(image: np.ndarray, pixel: float, low: float, high: float) -> float:
    """Exponent of an image's radially averaged power spectrum."""
    spectrum = np.abs(np.fft.fft2(image - image.mean())) ** 2
    f = np.fft.fftfreq(len(image), pixel)
    radius = np.hypot(f[:, None], f[None])
    edges = np.geomspace(low, high, 9)
    rings = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(edges)]
    x = [np.log(radius[ring].mean()) for ring in rings]
    y = [np.log(spectrum[ring].mean()) for ring in rings]
    return float(-np.polyfit(x, y, 1)[0])


def test_a_cubic_law_gives_three_in_projections_and_two_in_slices() -> None:
    """The projection of a field is a central slice of its spectrum; a thin slice integrates over it."""
    fields = [power_law((128, 128, 128), (1, 1, 1), 3.0, stream(s)) for s in range(3)]
    projected = np.mean([slope(field.sum(0), 1.0, 0.03, 0.4) for field in fields])
    thin = np.mean([slope(field[64], 1.0, 0.03, 0.15) for field in fields])
    assert projected == pytest.approx(3.0, abs=0.2)
    assert thin == pytest.approx(2.0, abs=0.35)


def test_fields_have_zero_mean_and_unit_variance() -> None:
    field = power_law((16, 32, 24), (1, 1, 1), 3.0, stream(0))
    assert float(field.mean()) == pytest.approx(0, abs=1e-4)
    assert float(field.std()) == pytest.approx(1, abs=5e-4)


def test_a_tube_keeps_its_volume_however_thin() -> None:
    points = np.array([[[0.0, 0.0, x] for x in np.arange(4, 16, 0.25)]])
    for radius in (0.1, 0.5):
        share = tubes(GRID, points, np.array(radius), 0.25, stream(0))
        expected = np.pi * radius**2 * 0.25 * points.shape[1]
        assert float(share.sum()) * np.prod(GRID.spacing) == pytest.approx(expected, rel=0.02)
        assert float(share.max()) <= 1


def test_tubes_that_leave_the_grid_are_cut_off() -> None:
    points = np.array([[[0.0, 0.0, x] for x in np.arange(-50, 80, 0.5)]])
    share = tubes(GRID, points, np.array(0.5), 0.5, stream(0))
    assert np.isfinite(share).all()
    assert float(share.sum()) > 0


def test_wandering_advances_by_its_step() -> None:
    paths = wander(np.zeros((3, 3)), np.eye(3) * 7, 10.0, 0.5, 0.05, stream(0))
    assert paths.shape == (3, 20, 3)
    np.testing.assert_allclose(np.linalg.norm(np.diff(paths, axis=1), axis=2), 0.5, atol=2e-3)
