"""Reading a volume onto the grid: dbtbench's streamed area means beside the paper's way with torchio."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from dbtbench.geometry.resample import area_mean, torchio_resize
from dbtbench.geometry.views import Volume

SHAPE, GRID = (48, 1024, 768), (8, 64, 64)
FASTER = 2


def volume() -> Volume:
    """Smooth structures and noise, as a reconstruction has them."""
    z, y, x = (np.linspace(0, 1, n, dtype=np.float32) for n in SHAPE)
    smooth = np.sin(9 * y[None, :, None] + 4 * z[:, None, None]) * np.cos(7 * x)
    noise = np.random.default_rng(0).normal(0, 0.3, SHAPE).astype(np.float32)
    frames: Volume = np.clip(0.5 + 0.3 * smooth + noise, 0, 1)
    return frames


def cpu_seconds(function: Callable[[], Volume]) -> tuple[float, Volume]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def test_area_means_cost_less_than_torchio_and_are_exact(benchmark: BenchmarkFixture) -> None:
    frames = volume()
    exact = frames.reshape(8, 6, 64, 16, 64, 12).mean(axis=(1, 3, 5), dtype=float)
    slow, by_torchio = cpu_seconds(lambda: torchio_resize(frames, GRID))
    fast, by_area = cpu_seconds(lambda: area_mean(frames, SHAPE, GRID))
    benchmark(area_mean, frames, SHAPE, GRID)
    benchmark.extra_info |= {"times faster than torchio": slow / fast}
    assert slow > FASTER * fast
    error = [np.abs(result - exact).mean() for result in (by_area, by_torchio)]
    assert error[0] < 1e-5 < error[1]
