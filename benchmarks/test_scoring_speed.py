"""Scoring detections: dbtbench beside the DBTex rule read literally, threshold by threshold."""

from __future__ import annotations

import runpy
import timeit
from pathlib import Path

import numpy as np
import pandas as pd
from pytest_benchmark.fixture import BenchmarkFixture

from dbtbench.metrics.froc import score_dbtex

VOLUMES, PREDICTIONS, BOXES = 200, 20, 60
FASTER = 50

REFERENCE = Path(__file__).parents[1] / "tests" / "metrics" / "dbtex_reference.py"
score_literally = runpy.run_path(str(REFERENCE))["score_literally"]


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)

    def boxes(n: int) -> dict[str, np.ndarray]:
        sizes = rng.integers(60, 400, (2, n))
        return {
            "X": rng.integers(0, 1500, n),
            "Y": rng.integers(0, 2000, n),
            "Width": sizes[0],
            "Height": sizes[1],
        }

    views = [(f"S{i // 4:03d}", ("lcc", "lmlo", "rcc", "rmlo")[i % 4]) for i in range(VOLUMES)]
    labels = pd.DataFrame(views, columns=["StudyUID", "View"])
    lesions = labels.iloc[np.sort(rng.choice(VOLUMES, BOXES, replace=False))].assign(
        **boxes(BOXES), Slice=rng.integers(0, 60, BOXES), VolumeSlices=60.0
    )
    n = VOLUMES * PREDICTIONS
    predictions = labels.loc[labels.index.repeat(PREDICTIONS)].assign(
        **boxes(n), Z=rng.integers(0, 60, n), Depth=5, Score=rng.random(n)
    )
    return labels, lesions, predictions


def test_scoring_is_many_times_faster_than_reading_the_rule_literally(benchmark: BenchmarkFixture) -> None:
    case = tables()
    fast = min(timeit.repeat(lambda: score_dbtex(*case), number=1, repeat=5))
    slow = timeit.timeit(lambda: score_literally(*case), number=1)
    assert benchmark(score_dbtex, *case) == score_literally(*case)
    benchmark.extra_info["times_faster"] = round(slow / fast)
    assert slow / fast >= FASTER
