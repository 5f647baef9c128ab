"""Scores by group of test volumes, and the worst group in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.columns import KEY
from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline.groups import FILE, describe_worst, score_groups
from dbtbench.runtime.csv_text import csv_text
from dbtbench.tasks.classification import Classification, ClassificationRecipe
from dbtbench.tasks.detection import Detection, DetectionRecipe

PRIMARY = "mean_sensitivity_positive"


@pytest.fixture(scope="module")
def test_split(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., DBTDataset]) -> DBTDataset:
    """96 patients on tiny volumes, of which 12 test patients have a lesion in four views."""
    toy = make_toy(tmp_path_factory.mktemp("groups") / "toy", patients=96, grid=(2, 8, 8)).select("test")
    rare = set(toy.cases.loc[toy.positive, "PatientID"].unique()[:2])
    kinds = np.where(toy.cases["PatientID"].isin(rare), "rare", "mass")
    return replace(
        toy, cases=toy.cases.assign(lesion_kind=np.where(toy.positive, kinds, ""), breast_density="b")
    )


def detect(test: DBTDataset, found: Any) -> dict[str, pd.DataFrame]:
    """Make the outcomes of a detector that finds these lesions, and nothing else."""
    table = test.cases[test.positive][KEY].assign(box=0, Score=np.where(found, 0.9, np.nan))
    return {"outcomes": table.sample(frac=1, random_state=0)}


def test_each_group_has_the_score_of_its_volumes_alone(test_split: DBTDataset) -> None:
    views = test_split.cases[test_split.positive]["View"]
    found = detect(test_split, views.str.endswith("cc"))
    table = score_groups(Detection(DetectionRecipe()), found, test_split)
    of = table[table["metric"] == PRIMARY].set_index(["column", "group"])
    values = {("all", ""): 0.5, ("projection", "cc"): 1.0, ("projection", "mlo"): 0.0}
    assert of["value"].to_dict() == values | {("lesion_kind", "mass"): 0.5}
    assert of["patients"].to_dict() == dict.fromkeys(values, 12) | {("lesion_kind", "mass"): 10}


def test_groups_of_few_patients_and_of_everybody_are_left_out(test_split: DBTDataset) -> None:
    table = score_groups(Detection(DetectionRecipe()), detect(test_split, True), test_split)
    assert set(table["column"]) == {"all", "projection", "lesion_kind"}
    assert set(table["group"]) == {"", "cc", "mlo", "mass"}


def test_a_metric_without_a_value_in_a_group_has_no_row(test_split: DBTDataset) -> None:
    positive = test_split.positive.astype(int)
    outcomes = {"outcomes": test_split.cases[KEY].assign(positive=positive, Score=positive * 0.5)}
    table = score_groups(Classification(ClassificationRecipe()), outcomes, test_split)
    assert set(table["column"]) == {"all", "projection"}  # no AUROC where all have a lesion, or none
    assert (table["value"] == 1).all()


def test_the_worst_group_of_real_is_named(
    tmp_path: Path,
    make_record: Callable[..., dict[str, Any]],
    make_outcomes: Callable[..., pd.DataFrame],
    write_run: Callable[..., Path],
) -> None:
    runs = []
    for seed, low in enumerate((0.2, 0.3)):
        record = make_record(seed=seed)
        rows = [
            (record["primary"], "all", "", 30, 0.6),
            (record["primary"], "breast_density", "b", 20, 0.7),
            (record["primary"], "breast_density", "d", 10, low),
            ("another", "breast_density", "b", 20, 0.0),
        ]
        run = write_run(tmp_path, record, make_outcomes(5))
        columns = ["metric", "column", "group", "patients", "value"]
        (run / FILE).write_text(csv_text(pd.DataFrame(rows, columns=columns)))
        runs.append(run)
    assert "real is worst with breast density d (10 patients): " in describe_worst(runs)
    assert describe_worst(runs).endswith(" 0.25 for 0.60 of all")
    (runs[0] / FILE).unlink()
    (runs[1] / FILE).unlink()
    assert describe_worst(runs) == ""
