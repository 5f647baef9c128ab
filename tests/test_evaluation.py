from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

from dbtbench import evaluation, generation, plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.workspace import Workspace


class CountRecipe(Recipe):
    factor: float = 1.0


class Count(Task[CountRecipe]):
    """Scores the number of training volumes."""

    recipe_class = CountRecipe
    primary = "volumes"
    seeds = 2
    evaluated = 0

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        type(self).evaluated += 1
        synthetic = 0 if arm.synthetic is None else len(arm.synthetic)
        volumes = self.recipe.factor * (len(arm.real.select("train")) + synthetic) + seed
        table = pd.DataFrame({"PatientID": ["P1"], "Score": [0.1 + 0.2]})
        return Evaluation({"volumes": volumes, "undefined": float("nan")}, {"volumes": 3}, table)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("count", f"{__name__}:Count", "dbtbench.tasks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "dbtbench.tasks" else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(Count, "evaluated", 0)


@pytest.fixture
def work(tmp_path: Path, toy: DBTDataset) -> Workspace:
    work = Workspace(tmp_path)
    generation.draw(work, generation.fit(work, "classic", toy), n=4)
    return work


def test_every_arm_is_run_with_the_same_seeds(work: Workspace, toy: DBTDataset) -> None:
    runs = evaluation.evaluate(work, "count", toy, ["classic"])
    records = [json.loads((run / "run.json").read_text()) for run in runs]
    assert [(r["arm"], r["seed"]) for r in records] == [
        ("none", 0),
        ("none", 1),
        ("classic", 0),
        ("classic", 1),
    ]
    assert [r["scores"]["volumes"] for r in records] == [16, 17, 20, 21]
    assert records[2]["augmentation"]["generator"] == "classic"
    assert records[0]["data"]["split_hash"] == toy.split_hash


def test_scores_and_predictions_lie_beside_the_record(work: Workspace, toy: DBTDataset) -> None:
    run = evaluation.evaluate(work, "count", toy, seeds=1)[0]
    assert (run / "scores.csv").read_text() == "metric,value\nvolumes,16.0\nundefined,nan\n"
    assert (run / "predictions.csv").read_text() == "PatientID,Score\nP1,0.30000000000000004\n"
    assert json.loads((run / "run.json").read_text())["scores"]["undefined"] is None


def test_finished_runs_are_found_again_and_fresh_runs_them_anew(work: Workspace, toy: DBTDataset) -> None:
    evaluation.evaluate(work, "count", toy)
    evaluation.evaluate(work, "count", toy)
    assert Count.evaluated == 2
    evaluation.evaluate(work, "count", toy, seeds=3)
    assert Count.evaluated == 3
    evaluation.evaluate(work, "count", toy, fresh=True)
    assert Count.evaluated == 5


def test_another_recipe_is_another_run(work: Workspace, toy: DBTDataset) -> None:
    evaluation.evaluate(work, "count", toy, seeds=1)
    run = evaluation.evaluate(work, "count", toy, seeds=1, overrides={"factor": "2"})[0]
    assert json.loads((run / "run.json").read_text())["scores"]["volumes"] == 32


def test_an_augmentation_that_was_not_drawn_stops_before_anything_is_run(
    work: Workspace, toy: DBTDataset
) -> None:
    with pytest.raises(MissingError, match="'ddpm'"):
        evaluation.evaluate(work, "count", toy, ["classic", "ddpm"])
    assert Count.evaluated == 0


def test_no_seeds_are_too_few(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="0 seeds"):
        evaluation.evaluate(work, "count", toy, seeds=0)
