"""`dbtbench evaluate --sweep`: settings are compared on the validation split; the test split is not seen."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from dbtbench import leaderboard, plugins
from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, MissingError, UsageError
from dbtbench.metric import Metric
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.sweep import parse
from dbtbench.pipeline.task_sweep import TaskSweep
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.workspace import Workspace


class LookRecipe(Recipe):
    factor: float = 1.0
    shift: float = 0.0


class Look(Task[LookRecipe]):
    """Scores a product, and keeps the patients that it was given."""

    recipe_class = LookRecipe
    metrics = (Metric("product", "product", "higher", headline=True), Metric("plain", "plain", "lower"))
    seeds = 2
    seen: ClassVar[list[tuple[set[str], set[str]]]] = []

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        if self.recipe.factor > 9:
            raise DivergedError("training diverged at step 3")
        real = arm.real
        self.seen.append(({*real.cases["PatientID"]}, {*real.select("test").cases["PatientID"]}))
        return Evaluation({"product": self.recipe.factor * seed + self.recipe.shift, "plain": 1.0}, {})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("look", f"{__name__}:Look", "dbtbench.tasks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "dbtbench.tasks" else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(Look, "seen", [])


def sweep(data: DBTDataset, *words: str, **changes: Any) -> TaskSweep:
    return TaskSweep("look", data, parse(words), **changes)


def test_every_combination_is_scored_on_the_validation_split_alone(tmp_path: Path, toy: DBTDataset) -> None:
    asked = sweep(toy, "factor=1,2", "shift=0,1")
    table = asked.run(Workspace(tmp_path))
    assert table[["arm", "factor", "shift", "seeds"]].to_numpy().tolist() == [
        ["real", factor, shift, 4] for factor in (1, 2) for shift in (0, 1)
    ]
    assert table["product"].tolist() == [1.5, 2.5, 3.0, 4.0]
    assert table["sd"].tolist() == pytest.approx([1.291, 1.291, 2.582, 2.582], abs=1e-3)
    test = {*toy.select("test").cases["PatientID"]}
    validation = {*toy.select("validation").cases["PatientID"]}
    assert test
    assert validation
    assert len(Look.seen) == 16
    assert all(not given & test and scored == validation for given, scored in Look.seen)
    assert asked.summary(table).split()[:4] == ["arm", "factor", "shift", "seeds"]


def test_it_continues_and_no_board_sees_its_runs(tmp_path: Path, toy: DBTDataset) -> None:
    work = Workspace(tmp_path)
    first = sweep(toy, "factor=1").run(work)
    assert sweep(toy, "factor=1,2").run(work).iloc[:1].equals(first)
    assert len(Look.seen) == 8
    (run,) = evaluate(work, "look", toy, seeds=1, arms=[])
    tested = json.loads((run / "run.json").read_text())
    records = [json.loads(file.read_text()) for file in tmp_path.glob("sweeps/look/*/run.json")]
    assert len(records) == 8
    assert tested["data"]["split_hash"] == toy.split_hash
    assert toy.split_hash not in {record["data"]["split_hash"] for record in records}
    assert leaderboard.rank([run])["seeds"].unique().tolist() == [1]
    assert not [*work.evaluations.glob("*/*/run.json")][1:]


def test_a_training_that_diverges_is_a_row_without_scores(tmp_path: Path, toy: DBTDataset) -> None:
    table = sweep(toy, "factor=10,1").run(Workspace(tmp_path))
    assert table["product"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (["factor=1"], {"settings": {"factor": "2"}}, "both --set and --sweep"),
        (["factor=1,1.0"], {}, "twice"),
        (["speed=1"], {}, "speed"),
        (["factor=1"], {"arms": ["chance"]}, "look has no arm chance"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    tmp_path: Path, toy: DBTDataset, words: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(toy, *words, **changes).run(Workspace(tmp_path))
    assert not Look.seen


def test_without_a_validation_split_nothing_is_run(tmp_path: Path, toy: DBTDataset) -> None:
    without = replace(toy, cases=toy.cases.replace({"split": {"validation": "train"}}))
    with pytest.raises(MissingError, match="no validation split"):
        sweep(without, "factor=1").run(Workspace(tmp_path))


def test_the_command_prints_the_table_and_keeps_it(tmp_path: Path, toy: DBTDataset) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "toy").symlink_to(toy.path)
    words = ["evaluate", "--task", "look", "--workspace", str(tmp_path), "--jobs", "1", "--seeds", "1"]
    result = CliRunner().invoke(app, [*words, "--sweep", "factor=1,2", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert [row["factor"] for row in said["sweep"]] == [1, 2]
    assert Path(said["file"]).is_file()
