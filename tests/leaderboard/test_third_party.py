"""A task of another package: its metrics have intervals, p-values and verdicts like the built-in ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike, NDArray

from dbtbench import leaderboard, plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.metric import Metric, Outcomes
from dbtbench.metrics.resampling import patient_numbers, resample
from dbtbench.pipeline import generate
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.rescore import rescore
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.workspace import Workspace

CHANGING = ("scores", "metrics", "files", "sha256")
TABLE = Outcomes({"positive": int, "p": float}, lambda table: table[[*KEY, "positive"]])


def mean_over_volumes(losses: pd.Series, table: pd.DataFrame, weights: ArrayLike) -> NDArray[np.float64]:
    patient = patient_numbers(table)
    total, count = np.bincount(patient, losses), np.bincount(patient)
    return resample(weights, len(count), len(count), lambda drawn: drawn @ total / (drawn @ count))


def log_loss(table: pd.DataFrame, weights: ArrayLike) -> NDArray[np.float64]:
    return mean_over_volumes(-np.log(np.abs(1 - table["positive"] - table["p"])), table, weights)


def brier(table: pd.DataFrame, weights: ArrayLike) -> NDArray[np.float64]:
    return mean_over_volumes((table["positive"] - table["p"]) ** 2, table, weights)


class Logistic(Task[Recipe]):
    """A logistic model of one noisy feature, which synthetic volumes make noisier."""

    recipe_class = Recipe
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("log_loss", "log loss", "lower", "nats", headline=True, outcomes=TABLE, resample=log_loss),
    )
    seeds = 5

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        test = arm.real.select("test")
        rng = np.random.default_rng(seed)
        feature = 2.0 * test.cases["case"].isin(test.boxes["case"]) - 1
        feature += (2 if arm.synthetic else 0.2) * rng.standard_normal(len(test))
        p = (1 / (1 + np.exp(-2 * feature))).clip(0.01, 0.99).round(6)
        return self.score(arm, seed, test.cases[KEY].assign(p=p))

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        assert predictions is not None
        test = arm.real.select("test")
        positive = test.cases["case"].isin(test.boxes["case"]).astype(int)
        table = test.cases[KEY].assign(positive=positive).merge(predictions, on=KEY)
        once = np.ones((1, table["PatientID"].nunique()))
        scores = {m.name: float(m.resample(table, once)[0]) for m in self.metrics if m.resample}
        return Evaluation(scores, {"volumes": len(test)}, predictions, {"outcomes": table})


class WithBrier(Logistic):
    """The same after its author has added a metric."""

    metrics = (
        *Logistic.metrics,
        Metric("brier", "Brier score", "lower", headline=True, outcomes=TABLE, resample=brier),
    )


class Modelled(Generator[Recipe]):
    """The mean training volume, with noise."""

    recipe_class = Recipe

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.mean = train.volumes(train.cases["case"].tolist()).mean(axis=0)[0]

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for layout in layouts:
            noise = np.random.default_rng(layout.seed).normal(0, 0.02, self.mean.shape)
            yield Sample((self.mean + noise).clip(0, 1).astype(np.float32), layout.boxes)


class ByRule(Modelled):
    """The same, and its author says that nothing is learned."""

    learned = False


class OfEachArm(Logistic):
    """The same with another noise for each arm."""

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        return super().evaluate(arm, seed + 100 * len(arm.name), run)


@pytest.fixture
def work(tmp_path: Path, make_toy: Callable[..., DBTDataset]) -> Workspace:
    work = Workspace(tmp_path / "work")
    toy = make_toy(work.datasets / "toy")
    generate.draw(work, generate.fit(work, "classic", toy), n=4)
    return work


def run_task(work: Workspace, seeds: int = 5) -> pd.DataFrame:
    toy = DBTDataset.open(work.datasets / "toy")
    return leaderboard.rank(evaluate(work, "logistic", toy, ["classic"], seeds))


def test_it_has_an_interval_p_values_and_a_verdict(
    work: Workspace, register_tasks: Callable[..., None]
) -> None:
    register_tasks(logistic=Logistic)
    row = run_task(work).set_index("arm").loc["classic"]
    assert row[["metric", "title", "unit", "direction"]].tolist() == ["log_loss", "log loss", "nats", "lower"]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["difference"] > 0
    assert row["better"] == -row["difference"]
    assert 0 < row["p"] <= row["p_holm"] < 0.1
    assert row["verified"] == "outcomes"
    assert row["verdict"].startswith(f"classic: log loss {row['difference']:.2f} nats above real (worse) [")
    assert " gain" not in row["verdict"]


def test_a_metric_that_is_added_joins_finished_runs_on_their_board(
    work: Workspace, register_tasks: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    register_tasks(logistic=Logistic)
    before = run_task(work, seeds=2)
    register_tasks(logistic=WithBrier)
    mixed = run_task(work, seeds=3)  # two seeds are found again, one is new; of `real` twice as many
    assert mixed["board"].nunique() == 1
    assert mixed.groupby("metric")["seeds"].unique().map(list).to_dict() == {
        "brier": [2, 1],
        "log_loss": [6, 3],
    }
    assert "--task logistic --rescore" in capsys.readouterr().err
    runs = rescore(work, "logistic")
    after = leaderboard.rank(runs)
    assert after["board"].unique().tolist() == before["board"].unique().tolist()
    assert set(after["seeds"]) == {3, 6}
    assert after.loc[after["metric"] == "brier", "verified"].tolist() == ["outcomes"] * 2
    assert {"brier", "log_loss"} <= set(leaderboard.publish(work, work.root / "results")["metric"])


def test_scoring_again_keeps_what_is_as_it_was_and_says_when_the_rest_was_scored(
    work: Workspace, register_tasks: Callable[..., None]
) -> None:
    register_tasks(logistic=Logistic)
    run_task(work, seeds=1)
    (first, *_) = folders = sorted((work.evaluations / "logistic").glob("*/"))
    files = {file: file.read_bytes() for folder in folders for file in folder.iterdir()}
    assert rescore(work, "logistic") == folders
    assert {file: file.read_bytes() for file in files} == files
    register_tasks(logistic=WithBrier)
    rescore(work, "logistic")
    old, new = json.loads(files[first / "run.json"]), json.loads((first / "run.json").read_text())
    assert new["scores"]["log_loss"] == old["scores"]["log_loss"]
    assert (first / "scores.csv").read_text().splitlines()[2].startswith("brier,")
    assert {key: new[key] for key in old if key not in CHANGING} == {
        key: value for key, value in old.items() if key not in CHANGING
    }
    assert new["files"].keys() == old["files"].keys()
    assert new["rescored"]["dbtbench"] == old["dbtbench"]


def test_values_of_two_versions_of_a_metric_are_not_mixed(
    work: Workspace, register_tasks: Callable[..., None]
) -> None:
    class Twice(Logistic):
        """The same with a loss in bits."""

        metrics = (
            Metric(
                "log_loss", "log loss", "lower", "bits", 2,
                outcomes=TABLE, resample=lambda table, weights: log_loss(table, weights) / math.log(2),
            ),
        )  # fmt: skip

    register_tasks(logistic=Logistic)
    nats = run_task(work, seeds=1)["value"]
    register_tasks(logistic=Twice)
    assert run_task(work, seeds=2)["seeds"].tolist() == [3, 1]
    rescore(work, "logistic")
    bits = run_task(work, seeds=1)
    assert bits["unit"].unique().tolist() == ["bits"]
    assert bits["value"].tolist() == pytest.approx((nats / math.log(2)).tolist())


def test_without_its_package_its_runs_are_listed_as_recorded(
    work: Workspace,
    register_tasks: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    register_tasks(logistic=Logistic)
    there = run_task(work).set_index("arm").loc["classic"]
    leaderboard.publish(work, work.root / "results")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    board = leaderboard.build(work.root / "results").set_index("arm")
    row = board.loc["classic"]
    assert row[["title", "unit", "direction"]].tolist() == ["log loss", "nats", "lower"]
    assert (
        row[["value", "difference", "better"]].tolist() == there[["value", "difference", "better"]].tolist()
    )
    assert row["verified"] == "no"
    assert row["verdict"].endswith("no interval, its task is not installed with this version of the metric")
    assert "no task named 'logistic'" in capsys.readouterr().err


def test_a_generator_that_declares_to_learn_nothing_is_what_the_others_are_compared_with(
    work: Workspace, register_tasks: Callable[..., None]
) -> None:
    register_tasks(logistic=OfEachArm)
    toy = DBTDataset.open(work.datasets / "toy")
    for name, cls in (("modelled", Modelled), ("byrule", ByRule)):
        drawn = generate.draw(work, generate.fit_configured(work, name, cls(Recipe()), toy), n=4)
        assert drawn.meta["source"]["learned"] is (cls is Modelled)
    runs = evaluate(work, "logistic", toy, ["modelled", "byrule"], 5, arms=["modelled+byrule"])
    leaderboard.publish(work, work.root / "results")
    for board in (leaderboard.rank(runs), leaderboard.build(work.root / "results")):
        rows = board.set_index("arm")
        assert rows["learned"].to_dict() == {"real": "", "byrule": 0, "modelled": 1, "modelled+byrule": 1}
        compared = rows["unlearned"].fillna("").to_dict()
        assert compared == {"real": "", "byrule": "", "modelled": "byrule", "modelled+byrule": "byrule"}


def test_a_bad_record_is_named_and_left_out_and_the_other_runs_are_published(
    work: Workspace, register_tasks: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    register_tasks(logistic=Logistic)
    run_task(work, seeds=1)
    bad = work.evaluations / "broken" / "0123456789ab" / "run.json"
    bad.parent.mkdir(parents=True)
    bad.write_text('{"task": "broken", "scores": {}}')
    board = leaderboard.publish(work, work.root / "results")
    assert set(board["task"]) == {"logistic"}
    assert f"left out: {bad} is not a run's record" in capsys.readouterr().err
    leaderboard.check(work, work.root / "results")
