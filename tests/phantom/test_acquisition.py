"""Projection and noise."""

from __future__ import annotations

import numpy as np
import pytest

from dbtbench.phantom.acquisition import Geometry, expose, margin, project
from dbtbench.phantom.numbers import stream

PIXEL = (1.5, 1.5)
GEOMETRY = Geometry()


def test_a_slab_gives_attenuation_times_path_length() -> None:
    thickness, mu = 50.0, 0.05
    sums = project(np.full((16, 80, 60), mu), thickness, PIXEL, GEOMETRY)
    assert sums.shape == (15, 80 + 2 * margin(80), 60)
    ys, zs = GEOMETRY.foci()
    for view in (0, 7, 14):
        row, column = sums.shape[1] // 2, 30
        across = np.hypot((column + 0.5) * PIXEL[1], 0.5 * PIXEL[0] - ys[view])
        assert float(sums[view, row, column]) == pytest.approx(
            mu * thickness * np.hypot(across, zs[view]) / zs[view], rel=1e-4
        )


def test_a_bead_falls_where_a_straight_line_from_the_focus_does() -> None:
    planes, thickness = 16, 48.0
    bead = np.zeros((planes, 120, 60))
    bead[12, 70, 40] = 1
    y, x = (70 + 0.5 - 60) * PIXEL[0], (40 + 0.5) * PIXEL[1]
    z = GEOMETRY.support + 12.5 * thickness / planes
    sums = project(bead, thickness, PIXEL, GEOMETRY)
    rows = np.arange(sums.shape[1]) + 0.5 - sums.shape[1] / 2
    ys, zs = GEOMETRY.foci()
    for view in range(15):
        seen = (sums[view].sum(1) * rows).sum() / sums[view].sum() * PIXEL[0]
        assert seen == pytest.approx(ys[view] + (y - ys[view]) * zs[view] / (zs[view] - z), abs=0.5)
    middle = (sums[7].sum(0) * (np.arange(60) + 0.5)).sum() / sums[7].sum() * PIXEL[1]
    assert middle == pytest.approx(x * 700 / (700 - z), abs=0.5)


def test_noise_has_the_variance_of_quanta_and_electronics() -> None:
    """By propagation through the logarithm: var = 1/N + e²/N² for N quanta and e electronic noise."""
    for depth in (0.5, 2.5):
        flat = np.full((1, 400, 400), depth)
        measured = expose(flat, PIXEL, GEOMETRY, stream(0))
        area = PIXEL[0] * PIXEL[1]
        quanta = GEOMETRY.quanta * area * np.exp(-depth)
        expected = 1 / quanta + GEOMETRY.electronic**2 * area / quanta**2
        assert measured.var() == pytest.approx(expected, rel=0.03)
        assert measured.mean() == pytest.approx(depth, abs=1e-4)


def test_noise_is_a_function_of_the_seed() -> None:
    flat = np.full((2, 8, 8), 2.0)
    first, again, other = (expose(flat, PIXEL, GEOMETRY, stream(s)) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
