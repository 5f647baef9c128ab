"""A run is scored again from its own predictions, by its own task, on its own data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.verification import WITHOUT_VOLUMES, split_digest
from dbtbench.errors import MissingError, StaleError
from dbtbench.leaderboard import Record
from dbtbench.runs import add_digest
from dbtbench.runtime.files import read_json, write_json
from dbtbench.task import Arm
from dbtbench.tasks.detection import Detection, DetectionRecipe
from dbtbench.workspace import Workspace

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, make_toy: Make, make_record: Make) -> Workspace:
    """A run of detection as `evaluate` leaves it, with predictions for every other lesion."""
    work = Workspace(tmp_path_factory.mktemp("evaluated"))
    real: DBTDataset = make_toy(work.datasets / "toy")
    test = real.select("test")
    hits = test.boxes.iloc[::2]
    predictions = hits[["PatientID", "StudyUID", "View", "X", "Width", "Y", "Height"]].assign(
        Z=hits["Slice"] - 1, Depth=2, Score=[0.5 + 0.1 * n for n in range(len(hits))]
    )
    task = Detection(DetectionRecipe())
    evaluation = task.score(Arm("real", real, real.select("train")), 0, predictions)
    made = make_record(
        recipe=task.recipe.model_dump(mode="json"),
        data=real.identity,
        version=Detection.version,
        scores=evaluation.scores,
        counts=dict(evaluation.counts),
    )
    run = work.evaluations / "detection" / Record.model_validate(made).hash
    write_json(run / "run.json", made)
    predictions.to_csv(run / "predictions.csv", index=False)
    evaluation.outcomes["outcomes"].to_csv(run / "outcomes.csv", index=False)
    return work


@pytest.fixture
def work(evaluated: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(evaluated.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


@pytest.fixture
def run(work: Workspace) -> Path:
    return next(work.evaluations.glob("*/*"))


def test_all_scores_are_computed_again_by_folder_or_by_hash(work: Workspace, run: Path) -> None:
    scores = read_json(run / "run.json")["scores"]
    assert 0 < scores["mean_sensitivity_positive"] < 1
    for name in (str(run), run.name):
        verification = leaderboard.verify(work, name)
        assert verification.scores == list(scores)
        assert verification.outcomes
        assert str(verification).startswith(f"verified: detection {run.name} (real, seed 0): ")


def test_the_first_score_that_differs_is_named(work: Workspace, run: Path) -> None:
    record = read_json(run / "run.json")
    record["scores"]["sensitivity_at_3_fps_positive"] += 0.01
    record["scores"]["sensitivity_at_4_fps_positive"] += 0.01
    write_json(run / "run.json", record)
    with pytest.raises(StaleError, match="what it kept gives sensitivity_at_3_fps_positive"):
        leaderboard.verify(work, run.name)


def test_changed_predictions_are_found(work: Workspace, run: Path) -> None:
    predictions = pd.read_csv(run / "predictions.csv")
    predictions.iloc[1:].to_csv(run / "predictions.csv", index=False)
    with pytest.raises(StaleError, match="is not what the run's predictions give"):
        leaderboard.verify(work, run.name)


def test_changed_outcomes_are_found(work: Workspace, run: Path) -> None:
    outcomes = pd.read_csv(run / "outcomes.csv")
    outcomes.assign(Score=outcomes["Score"].fillna(0.9)).to_csv(run / "outcomes.csv", index=False)
    with pytest.raises(StaleError, match="its outcomes give"):
        leaderboard.verify(work, run.name)


def test_a_changed_identity_is_found(work: Workspace, run: Path) -> None:
    write_json(run / "run.json", read_json(run / "run.json") | {"seed": 9})
    with pytest.raises(StaleError, match="another hash"):
        leaderboard.verify(work, run.name)


def test_a_run_without_predictions_says_what_could_be_checked(work: Workspace, run: Path) -> None:
    (run / "predictions.csv").unlink()
    verification = leaderboard.verify(work, run.name)
    assert verification.scores == []
    assert "mean_sensitivity_positive, mean_sensitivity_low from its outcomes" in str(verification)
    (run / "outcomes.csv").unlink()
    assert "only its hash and its data set could be checked" in str(leaderboard.verify(work, run.name))


def test_a_data_set_is_found_by_what_it_holds_whatever_it_is_called_now(work: Workspace, run: Path) -> None:
    (work.datasets / "toy").rename(work.datasets / "renamed")
    assert leaderboard.verify(work, run.name).scores


def test_without_the_data_set_nothing_can_be_verified(work: Workspace, run: Path) -> None:
    shutil.rmtree(work.datasets)
    with pytest.raises(MissingError, match="fingerprint"):
        leaderboard.verify(work, run.name)


def test_another_split_or_version_of_the_task_is_stale(
    work: Workspace, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Detection, "version", 99)
        with pytest.raises(StaleError, match="this is 99"):
            leaderboard.verify(work, run.name)
    data = DBTDataset.open(work.datasets / "toy")
    others = {"a patient without a volume": "test"}
    splits = dict(zip(data.cases["PatientID"], data.cases["split"], strict=True)) | others
    split = data.meta["split"] | {WITHOUT_VOLUMES: others, "hash": split_digest(splits)}
    write_json(data.path / "dataset.json", add_digest(data.meta | {"split": split}))
    with pytest.raises(StaleError, match=f"the split of toy is {split['hash'][:12]} now"):
        leaderboard.verify(work, run.name)


@pytest.mark.parametrize("name", ["ffffffffffff", "*", "../evaluations/*", ".", "no/such/folder"])
def test_a_run_that_is_not_there_is_missing(work: Workspace, name: str) -> None:
    with pytest.raises(MissingError, match="no finished run"):
        leaderboard.verify(work, name)
