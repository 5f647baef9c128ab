"""Finished runs are scored again from what they kept, and from nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench import leaderboard
from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.pipeline import generate
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.rescore import rescore
from dbtbench.runs import add_digest
from dbtbench.runtime.files import read_json, write_json
from dbtbench.workspace import Workspace


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., DBTDataset]) -> Workspace:
    """Runs of realism and detection on real and on classic volumes."""
    work = Workspace(tmp_path_factory.mktemp("evaluated"))
    toy = make_toy(work.datasets / "toy")
    generate.draw(work, generate.fit(work, "classic", toy), n=8)
    evaluate(work, "realism", toy, arms=["classic", "classic:0.25", "classic:shuffled-boxes"])
    evaluate(work, "detection", toy, seeds=1, recipe_name="smoke", arms=["classic"])
    return work


@pytest.fixture
def work(evaluated: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(evaluated.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


def forget(run: Path, metric: str) -> None:
    """Take a metric from a finished run, as if its task had got it later."""
    record = read_json(run / "run.json")
    for part in ("scores", "metrics"):
        del record[part][metric]
    write_json(run / "run.json", add_digest(record))


def read_record_and_scores(run: Path) -> dict[str, Any]:
    """Read `run.json`, with the lines of scores.csv, in any order, in place of its digest."""
    record: dict[str, Any] = read_json(run / "run.json")
    record["files"]["scores.csv"] = sorted((run / "scores.csv").read_text().splitlines())
    return record


@pytest.mark.parametrize("task", ["realism", "detection"])
def test_a_metric_that_a_run_lacks_is_computed_from_what_it_kept(work: Workspace, task: str) -> None:
    runs = sorted((work.evaluations / task).glob("*/"))
    metric = "lesion_cnr" if task == "realism" else "wafroc_auc"
    before = [read_record_and_scores(run) for run in runs]
    for run in runs:
        forget(run, metric)
    assert rescore(work, task) == runs
    after = [read_record_and_scores(run) for run in runs]
    added = ("rescored", "sha256")
    assert [{k: v for k, v in record.items() if k not in added} for record in after] == [
        {k: v for k, v in record.items() if k not in added} for record in before
    ]
    board = leaderboard.rank(runs)
    assert board["board"].nunique() == 1
    assert board.loc[board["metric"] == metric, "value"].notna().all()


def test_arms_are_found_by_what_their_data_sets_hold_whatever_they_are_called_now(work: Workspace) -> None:
    runs = sorted((work.evaluations / "realism").glob("*/"))
    before = [(run / "run.json").read_bytes() for run in runs]
    for name in work.dataset_names():
        (work.datasets / name).rename(work.datasets / f"renamed-{name}")
    assert rescore(work, "realism") == runs
    assert [(run / "run.json").read_bytes() for run in runs] == before


def test_predictions_are_scored_without_the_synthetic_data_set_and_volumes_are_not(work: Workspace) -> None:
    for name in work.dataset_names():
        if name != "toy":
            shutil.rmtree(work.datasets / name)
    assert len(rescore(work, "detection")) == 2
    with pytest.raises(DBTBenchError, match="3 of 4 runs could not be scored again"):
        rescore(work, "realism")


def test_one_run_that_cannot_be_scored_does_not_keep_the_others(
    work: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = sorted((work.evaluations / "detection").glob("*/"))
    for run in (first, *others):
        forget(run, "afroc_auc")
    (first / "predictions.csv").write_text("nothing")
    before = (first / "run.json").read_bytes()
    with pytest.raises(DBTBenchError, match=f"1 of 2 runs could not be scored again: {first.name}"):
        rescore(work, "detection")
    assert "predictions.csv does not match its digest" in capsys.readouterr().err
    assert (first / "run.json").read_bytes() == before
    assert all("afroc_auc" in read_json(run / "run.json")["scores"] for run in others)


def test_realism_is_verified_from_its_data_sets(work: Workspace) -> None:
    run = next((work.evaluations / "realism").glob("*/"))
    assert leaderboard.verify(work, run.name).unchecked == []


def test_without_finished_runs_there_is_nothing_to_score(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished run of detection"):
        rescore(Workspace(tmp_path), "detection")


def test_the_command_prints_the_board_and_takes_no_other_options(
    work: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--task", "detection", "--rescore", "--workspace", str(work.root)]
    app(args=command, standalone_mode=False)
    assert "mean sensitivity decides" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--rescore takes all finished runs"):
        app(args=[*command, "--aug", "classic"], standalone_mode=False)
