"""Scoring detections: dbtbench beside the DBTex rule read literally, threshold by threshold."""

from __future__ import annotations

import runpy
import time
import timeit
from pathlib import Path

import numpy as np
import pandas as pd
from pytest_benchmark.fixture import BenchmarkFixture

from dbtbench.metrics.froc import mean_sensitivity, outcomes, score_dbtex
from dbtbench.metrics.resampling import patients

VOLUMES, PREDICTIONS, BOXES = 200, 20, 60
FASTER = 50
TEST_SPLIT = 1721, 50, 136
"""The size of BCS-DBT's test split, with 50 predictions a volume."""
REPLICATES, FEW, RESAMPLED_FASTER = 2000, 5, 100
CPU_SECONDS = 1.0

REFERENCE = Path(__file__).parents[1] / "tests" / "metrics" / "dbtex_reference.py"
score_literally = runpy.run_path(str(REFERENCE))["score_literally"]


def tables(
    volumes: int = VOLUMES, predictions: int = PREDICTIONS, n_boxes: int = BOXES
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)

    def boxes(n: int) -> dict[str, np.ndarray]:
        sizes = rng.integers(60, 400, (2, n))
        return {
            "X": rng.integers(0, 1500, n),
            "Y": rng.integers(0, 2000, n),
            "Width": sizes[0],
            "Height": sizes[1],
        }

    views = [(f"S{i // 4:03d}", ("lcc", "lmlo", "rcc", "rmlo")[i % 4]) for i in range(volumes)]
    labels = pd.DataFrame(views, columns=["StudyUID", "View"])
    lesions = labels.iloc[np.sort(rng.choice(volumes, n_boxes, replace=False))].assign(
        **boxes(n_boxes), Slice=rng.integers(0, 60, n_boxes), VolumeSlices=60.0
    )
    n = volumes * predictions
    marks = labels.loc[labels.index.repeat(predictions)].assign(
        **boxes(n), Z=rng.integers(0, 60, n), Depth=5, Score=rng.random(n)
    )
    return labels, lesions, marks


def test_scoring_is_many_times_faster_than_reading_the_rule_literally(benchmark: BenchmarkFixture) -> None:
    case = tables()
    fast = min(timeit.repeat(lambda: score_dbtex(*case), number=1, repeat=5))
    slow = timeit.timeit(lambda: score_literally(*case), number=1)
    assert benchmark(score_dbtex, *case) == score_literally(*case)
    benchmark.extra_info["times_faster"] = round(slow / fast)
    assert slow / fast >= FASTER


def test_resampling_is_many_times_faster_than_scoring_each_replicates_tables(
    benchmark: BenchmarkFixture,
) -> None:
    labels, lesions, predictions = tables(*TEST_SPLIT)
    found = outcomes(labels.assign(PatientID=labels["StudyUID"]), lesions, predictions)
    names = patients(found)
    drawn = np.random.default_rng(0).multinomial(len(names), [1 / len(names)] * len(names), size=REPLICATES)

    def repeated(table: pd.DataFrame, times: pd.Series) -> pd.DataFrame:
        rows = table.loc[table["StudyUID"].isin(times.index)].reset_index(drop=True)
        n = rows["StudyUID"].map(times)
        copies = rows.loc[rows.index.repeat(n)]
        copy = copies.groupby(level=0).cumcount().astype(str)
        return copies.assign(StudyUID=copies["StudyUID"] + "-" + copy)

    def score_tables(weights: np.ndarray) -> float:
        times = pd.Series(weights, names)
        case = [repeated(table, times) for table in (labels, lesions, predictions)]
        return score_dbtex(*case)["mean_sensitivity_positive"]

    clock = time.process_time
    slow = timeit.timeit(lambda: [score_tables(row) for row in drawn[:FEW]], timer=clock, number=1) / FEW
    fast = min(timeit.repeat(lambda: mean_sensitivity(found, drawn), timer=clock, number=1, repeat=3))
    resampled = benchmark(mean_sensitivity, found, drawn)
    assert np.allclose(resampled[:FEW], [score_tables(row) for row in drawn[:FEW]], rtol=0, atol=1e-12)
    benchmark.extra_info |= {"cpu_seconds": fast, "times_faster": round(slow * REPLICATES / fast)}
    assert slow * REPLICATES / fast >= RESAMPLED_FASTER
    assert fast < CPU_SECONDS
