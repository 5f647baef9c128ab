"""An evaluation is checked before its run is finished, with the schema that the board reads it with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.metric import Metric, Outcomes
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.files import read_json
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.workspace import Workspace

HITS = Outcomes({"hit": int}, lambda table: table[KEY])
ROW = pd.DataFrame([("P", "S", "lcc", 1)], columns=[*KEY, "hit"])


def share(table: pd.DataFrame, weights: Any) -> Any:
    return np.full(len(np.asarray(weights)), table["hit"].mean())


GOOD = ({"acc": 1.0, "loss": np.float32(0.5)}, {"n": np.int64(3)}, {"outcomes": ROW})


def task_that_gives(scores: Any, counts: Any, outcomes: Any) -> type[Task[Any]]:
    class Given(Task[Recipe]):
        """Gives what it is made with."""

        recipe_class = Recipe
        metrics = (
            Metric("acc", "accuracy", "higher", outcomes=HITS, resample=share),
            Metric("loss", "loss", "lower"),
        )
        seeds = 1

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return Evaluation(scores, counts, outcomes=outcomes)

    return Given


def test_numbers_of_numpy_become_those_of_json(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None]
) -> None:
    register_tasks(given=task_that_gives(*GOOD))
    (run,) = evaluate(Workspace(tmp_path), "given", toy, arms=[])
    record = read_json(run / "run.json")
    assert record["scores"] == {"acc": 1.0, "loss": 0.5}
    assert record["counts"]["n"] == 3
    assert record["metrics"]["loss"]["direction"] == "lower"
    assert (run / "scores.csv").read_text() == "metric,value\nacc,1.0\nloss,0.5\n"


@pytest.mark.parametrize(
    ("scores", "counts", "outcomes", "said"),
    [
        ({"acc": 1.0}, {}, {"outcomes": ROW}, "no score 'loss'"),
        ({"acc": 1.0, "loss": 0.5, "x": 1.0}, {}, {"outcomes": ROW}, "score 'x' is not among its declared"),
        ({"acc": 1.0, "loss": float("inf")}, {}, {"outcomes": ROW}, "scores.loss: Input should be a finite"),
        ({"acc": 1.0, "loss": "low"}, {}, {"outcomes": ROW}, "scores.loss: Input should be a valid number"),
        (
            {"acc": 1.0, "loss": np.ones(2)},
            {},
            {"outcomes": ROW},
            "scores.loss: Input should be a valid numb",
        ),
        ({"acc": 1.0, "loss": 0.5}, {"n": -1}, {"outcomes": ROW}, "counts.n: Input should be greater"),
        ({"acc": 1.0, "loss": 0.5}, {"n": 1.5}, {"outcomes": ROW}, "counts.n: Input should be a valid integ"),
        ({"acc": 1.0, "loss": 0.5}, {"a|b": 1}, {"outcomes": ROW}, "counts"),
        ({"acc": 1.0, "loss": 0.5}, {}, {}, "the table 'outcomes' is declared and not returned"),
        ({"acc": 1.0, "loss": 0.5}, {}, {"outcomes": ROW, "outcomes-x": ROW}, "'outcomes-x' is not declared"),
        ({"acc": 1.0, "loss": 0.5}, {}, {"outcomes": ROW.assign(hit=0.5)}, "a whole number is needed"),
        ({"acc": 0.9, "loss": 0.5}, {}, {"outcomes": ROW}, "its outcomes give acc 1.0, its score is 0.9"),
    ],
)
def test_a_wrong_evaluation_is_refused_by_name_and_the_fixed_task_simply_runs(
    tmp_path: Any,
    toy: DBTDataset,
    register_tasks: Callable[..., None],
    scores: Any,
    counts: Any,
    outcomes: Any,
    said: str,
) -> None:
    work = Workspace(tmp_path)
    register_tasks(given=task_that_gives(scores, counts, outcomes))
    with pytest.raises(DBTBenchError, match="task given, arm real, seed 0: ") as error:
        evaluate(work, "given", toy, arms=[])
    assert said in str(error.value)
    assert error.value.hint
    assert not list(work.evaluations.glob("*/*/run.json"))
    register_tasks(given=task_that_gives(*GOOD))
    evaluate(work, "given", toy, arms=[])
    assert set(leaderboard.publish(work, work.root / "results")["metric"]) == {"acc", "loss"}


@pytest.mark.parametrize("name", ["a b", "x" * 101, "<b>"])
def test_a_metric_whose_name_no_board_takes_is_refused(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None], name: str
) -> None:
    class Named(Task[Recipe]):
        """One metric of a bad name."""

        recipe_class = Recipe
        metrics = (Metric(name, "title", "higher"),)

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return Evaluation({name: 1.0}, {})

    register_tasks(named=Named)
    with pytest.raises(DBTBenchError, match="task named, arm real, seed 0: "):
        evaluate(Workspace(tmp_path), "named", toy, seeds=1, arms=[])


@pytest.mark.parametrize("problem", [ZeroDivisionError("by zero"), SystemExit(0), KeyError("x")])
def test_whatever_a_task_raises_names_the_task_and_where(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None], problem: BaseException
) -> None:
    class Raises(task_that_gives(*GOOD)):  # type: ignore[misc]
        """Raises."""

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            raise problem

    register_tasks(raises=Raises)
    place = rf"{re.escape(__file__)}:\d+"
    with pytest.raises(DBTBenchError, match=f"task raises, arm real, seed 0 failed at {place}: ") as error:
        evaluate(Workspace(tmp_path), "raises", toy, arms=[])
    assert type(problem).__name__ in str(error.value)
    assert "--debug" in error.value.hint
    assert error.value.exit_code == 1


def test_what_is_no_evaluation_is_refused(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None]
) -> None:
    class Nothing(task_that_gives(*GOOD)):  # type: ignore[misc]
        """Returns nothing."""

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return None  # type: ignore[return-value]

    register_tasks(nothing=Nothing)
    with pytest.raises(DBTBenchError, match="returned NoneType"):
        evaluate(Workspace(tmp_path), "nothing", toy, arms=[])


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Evaluation([1.0], {}), "its scores are a list"),  # type: ignore[arg-type]
        (Evaluation(GOOD[0], None), "its counts are a NoneType"),  # type: ignore[arg-type]
        (Evaluation(*GOOD[:2], outcomes=ROW), "its outcomes are a DataFrame"),  # type: ignore[arg-type]
        (Evaluation(*GOOD[:2], [("P", 1)], GOOD[2]), "its predictions are a list"),  # type: ignore[arg-type]
    ],
)
def test_a_part_of_another_kind_is_refused(
    tmp_path: Any,
    toy: DBTDataset,
    register_tasks: Callable[..., None],
    evaluation: Evaluation,
    message: str,
) -> None:
    class Wrong(task_that_gives(*GOOD)):  # type: ignore[misc]
        """Returns something else."""

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return evaluation

    register_tasks(wrong=Wrong)
    with pytest.raises(DBTBenchError, match=f"task wrong, arm real, seed 0: {message}"):
        evaluate(Workspace(tmp_path), "wrong", toy, arms=[])
    assert not list(tmp_path.rglob("run.json"))


def test_a_task_that_declares_no_metrics_is_refused(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None]
) -> None:
    class Silent(Task[Recipe]):
        """Declares nothing."""

        recipe_class = Recipe

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return Evaluation({}, {})

    register_tasks(silent=Silent)
    with pytest.raises(DBTBenchError, match="task silent declares no metrics"):
        evaluate(Workspace(tmp_path), "silent", toy, arms=[])


def test_a_task_that_names_its_primary_metric_alone_has_that_one(
    tmp_path: Any, toy: DBTDataset, register_tasks: Callable[..., None]
) -> None:
    class Short(Task[Recipe]):
        """Declares a name."""

        recipe_class = Recipe
        primary = "hit_rate"
        seeds = 1

        def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
            return Evaluation({"hit_rate": 0.75}, {})

    register_tasks(short=Short)
    (run,) = evaluate(Workspace(tmp_path), "short", toy, arms=[])
    (row,) = leaderboard.rank([run]).to_dict("records")
    assert (row["metric"], row["title"], row["direction"]) == ("hit_rate", "hit rate", "higher")
    assert row["value"] == 0.75


def test_the_tasks_load_without_torch() -> None:
    code = (
        "import sys\nfrom dbtbench import plugins\n"
        "for name in plugins.find('tasks'):\n    plugins.load(plugins.get('tasks', name))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
