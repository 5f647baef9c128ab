"""The rules of tasks: each is seen to fail on tasks that break it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench import plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.metric import Metric
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.testing import CheckFailed, check_task
from dbtbench.testing.suites import TaskSuite
from dbtbench.testing.tasks import RULES, TaskBench

SETTINGS = {name: {"steps": "2"} for name in ("detection", "classification")}


class Brightness(Task[Recipe]):
    """Calls test volumes positive that are brighter than the training volumes: keeps every rule."""

    recipe_class = Recipe
    metrics = (Metric("accuracy", "accuracy", "higher"), Metric("undefined", "undefined", "lower"))

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        test = arm.real.select("test")
        predictions = test.cases[KEY].assign(Score=self.predict(test) - self.learn(arm, seed))
        positive = test.cases["case"].isin(test.boxes["case"]).to_numpy()
        scores = {self.primary: float(((predictions["Score"] > 0) == positive).mean()), "undefined": np.nan}
        return Evaluation(scores, {"volumes": len(test)}, predictions)

    def learn(self, arm: Arm, seed: int) -> float:
        means = [source.volumes().mean(dtype=float) for source in arm.sources]
        return float(np.mean(means) + 0.01 * np.random.default_rng(seed).random())

    def predict(self, test: DBTDataset) -> Any:
        return test.volumes().mean(axis=(1, 2, 3, 4), dtype=float)


class TestBrightness(TaskSuite):
    plugin = Brightness


class WithoutPredictions(Brightness):
    """Keeps no predictions."""

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        evaluation = super().evaluate(arm, seed, run)
        return Evaluation(evaluation.scores, evaluation.counts)


class Scored(Brightness):
    """Gives something else than an evaluation of its own."""

    def change(self, evaluation: Evaluation) -> Any:
        return evaluation

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        changed: Evaluation = self.change(super().evaluate(arm, seed, run))
        return changed


class NoPrimary(Scored):
    """Lacks its primary score."""

    def change(self, evaluation: Evaluation) -> Any:
        return Evaluation({}, evaluation.counts)


class Infinite(Scored):
    """Has an infinite score."""

    def change(self, evaluation: Evaluation) -> Any:
        return Evaluation({**evaluation.scores, "accuracy": np.inf}, evaluation.counts)


class HalfCounts(Scored):
    """Counts in halves."""

    def change(self, evaluation: Evaluation) -> Any:
        return Evaluation(evaluation.scores, {"volumes": 0.5})  # type: ignore[dict-item]


class Bare(Scored):
    """Gives the scores alone."""

    def change(self, evaluation: Evaluation) -> Any:
        return evaluation.scores


class Leaves(Brightness):
    """Ends the program."""

    def learn(self, arm: Arm, seed: int) -> float:
        raise SystemExit


class Unseeded(Brightness):
    """Uses the global random numbers."""

    def learn(self, arm: Arm, seed: int) -> float:
        return float(0.1 * np.random.random())  # noqa: NPY002


class NamesArms(Brightness):
    """Seeds its training by the arm's name."""

    def learn(self, arm: Arm, seed: int) -> float:
        return 0.01 * len(arm.name)


class TrainsOnTest(Brightness):
    """Takes the test volumes for training as well."""

    def learn(self, arm: Arm, seed: int) -> float:
        return float(arm.real.volumes().mean())


class KnowsTheAnswers(Brightness):
    """Uses the boxes of the test split."""

    def predict(self, test: DBTDataset) -> Any:
        return super().predict(test) + float(test.boxes["y0"].mean())


class WantsSynthetic(Brightness):
    """Knows only arms with something added."""

    def learn(self, arm: Arm, seed: int) -> float:
        assert arm.added
        return super().learn(arm, seed)


@pytest.mark.parametrize(
    ("cls", "rule", "message"),
    [
        (NoPrimary, "contract", "no score 'accuracy', which its metrics declare"),
        (Infinite, "contract", "scores.accuracy: .*finite"),
        (HalfCounts, "contract", "counts.volumes: .*valid integer"),
        (Bare, "contract", "it returned dict"),
        (Leaves, "contract", r"task leaves failed at .*: it ends the program by SystemExit\(None\)"),
        (Unseeded, "repeatable", "the same arm and seed: |predictions differ"),
        (NamesArms, "arm", "the same data in an arm of another name: "),
        (TrainsOnTest, "test-split", "change when the volumes and boxes of another test patient do"),
        (KnowsTheAnswers, "test-split", "change when the volumes and boxes of another test patient do"),
        (WantsSynthetic, "real-arm", r"task wantssynthetic failed at .*: AssertionError"),
    ],
)
def test_a_task_that_breaks_a_rule_fails_that_rule_with_a_sentence(
    cls: type[Task[Any]], rule: str, message: str, tmp_path: Path
) -> None:
    bench = TaskBench(cls, tmp_path)
    if rule != "contract":
        RULES.check("contract", bench)
    with pytest.raises(CheckFailed) as caught:
        RULES.check(rule, bench)
    assert re.search(message, caught.value.message)
    assert caught.value.hint


def test_a_task_that_trains_on_test_volumes_keeps_the_other_rules(tmp_path: Path) -> None:
    states = {v.rule: v.state for v in RULES.judge(TaskBench(TrainsOnTest, tmp_path))}
    assert states.pop("test-split") == "FAILED"
    assert set(states.values()) == {"ok"}


def test_a_task_without_predictions_passes_with_a_remark(tmp_path: Path) -> None:
    remarks = {v.rule: v.message for v in RULES.judge(TaskBench(WithoutPredictions, tmp_path)) if v.message}
    assert set(remarks) == {"test-split"}
    assert "cannot be observed" in remarks["test-split"]


def test_check_task_raises_the_first_failure(tmp_path: Path) -> None:
    check_task(Brightness, tmp_path / "good")
    with pytest.raises(CheckFailed, match="let nothing depend on arm"):
        check_task(NamesArms, tmp_path / "wrong")


def test_tables_that_differ_in_one_cell_are_not_the_same(tmp_path: Path) -> None:
    class Drifts(Brightness):
        """Adds a small number to one prediction each time."""

        calls = 0

        def predict(self, test: DBTDataset) -> Any:
            type(self).calls += 1
            return pd.Series(super().predict(test)).add(1e-9 * self.calls).to_numpy()

    with pytest.raises(CheckFailed, match="the same arm and seed: the predictions differ"):
        check_task(Drifts, tmp_path)


@pytest.mark.parametrize("name", plugins.find("tasks"))
def test_every_built_in_task_keeps_the_rules(name: str, tmp_path: Path) -> None:
    check_task(name, tmp_path, settings=SETTINGS.get(name))
