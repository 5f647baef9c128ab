from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
from crashes import run as run_in_a_fork

from dbtbench import plugins
from dbtbench.cli import main
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.metric import Metric
from dbtbench.metrics import froc
from dbtbench.pipeline import evaluate as evaluation
from dbtbench.pipeline import generate
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.recipe import Recipe
from dbtbench.records.schema import RESULTS
from dbtbench.runs import Run, open_run
from dbtbench.runtime.files import hold
from dbtbench.runtime.pool import Pool
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.tasks.detection import Detection, DetectionRecipe
from dbtbench.workspace import Workspace


class CountRecipe(Recipe):
    factor: float = 1.0


class Count(Task[CountRecipe]):
    """Scores the number of training volumes."""

    recipe_class = CountRecipe
    metrics = (Metric("volumes", "volumes", "higher"), Metric("undefined", "nothing", "lower"))
    seeds = 2
    evaluated = 0

    @staticmethod
    def meanwhile() -> None:
        """Do nothing else, unless a test says so."""

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        type(self).evaluated += 1
        type(self).meanwhile()
        synthetic = sum(map(len, arm.synthetic))
        volumes = self.recipe.factor * (len(arm.train) + synthetic) + seed
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
    generate.draw(work, generate.fit(work, "classic", toy), n=4)
    return work


def test_every_arm_is_run_with_the_same_seeds(work: Workspace, toy: DBTDataset) -> None:
    runs = evaluate(work, "count", toy, ["classic"])
    records = [json.loads((run / "run.json").read_text()) for run in runs]
    assert [(r["arm"], r["seed"]) for r in records] == [
        ("real", 0),
        ("real", 1),
        ("real", 2),
        ("real", 3),
        ("classic", 0),
        ("classic", 1),
    ]
    assert [r["scores"]["volumes"] for r in records] == [16, 17, 18, 19, 20, 21]
    assert records[4]["augmentation"]["generator"] == "classic"
    assert records[0]["data"]["split_hash"] == toy.split_hash


def test_scores_and_predictions_lie_beside_the_record(work: Workspace, toy: DBTDataset) -> None:
    run = evaluate(work, "count", toy, seeds=1)[0]
    assert (run / "scores.csv").read_text() == "metric,value\nvolumes,16.0\nundefined,nan\n"
    assert (run / "predictions.csv").read_text() == "PatientID,Score\nP1,0.30000000000000004\n"
    assert json.loads((run / "run.json").read_text())["scores"]["undefined"] is None


def test_finished_runs_are_found_again_and_fresh_runs_them_again(work: Workspace, toy: DBTDataset) -> None:
    evaluate(work, "count", toy)
    evaluate(work, "count", toy)
    assert Count.evaluated == 4
    evaluate(work, "count", toy, seeds=3)
    assert Count.evaluated == 6
    evaluate(work, "count", toy, fresh=True)
    assert Count.evaluated == 10


def test_another_recipe_is_another_run(work: Workspace, toy: DBTDataset) -> None:
    evaluate(work, "count", toy, seeds=1)
    run = evaluate(work, "count", toy, seeds=1, overrides={"factor": "2"})[0]
    assert json.loads((run / "run.json").read_text())["scores"]["volumes"] == 32


def test_an_augmentation_that_was_not_drawn_stops_before_anything_is_run(
    work: Workspace, toy: DBTDataset
) -> None:
    with pytest.raises(MissingError, match="'ddpm'"):
        evaluate(work, "count", toy, ["classic", "ddpm"])
    assert Count.evaluated == 0


def test_no_seeds_are_too_few(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="0 seeds"):
        evaluate(work, "count", toy, seeds=0)


def test_named_arms_replace_the_controls_and_the_floor_stays(work: Workspace, toy: DBTDataset) -> None:
    runs = evaluate(work, "count", toy, seeds=1, arms=["classic:normals-only", "classic:synthetic-only"])
    records = [json.loads((run / "run.json").read_text()) for run in runs]
    assert [record["arm"] for record in records] == ["real", "classic:normals-only", "classic:synthetic-only"]
    assert [record["counts"]["training_real"] for record in records] == [*[len(toy.select("train"))] * 2, 0]
    assert [record["counts"]["training_synthetic"] for record in records] == [0, 3, 4]


def test_numbers_do_not_depend_on_the_number_of_jobs(
    tmp_path: Path, toy: DBTDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[list[tuple[str, list[bytes]]]] = []
    for jobs in (1, 2):
        work = Workspace(tmp_path / str(jobs))
        with Pool(jobs) as pool:
            runs = evaluate(work, "detection", toy, seeds=2, recipe_name="smoke", arms=["blob"], pool=pool)
        names = ("predictions.csv", "scores.csv", "outcomes.csv")
        found.append([(run.name, [(run / name).read_bytes() for name in names]) for run in runs])
    assert found[0] == found[1]
    assert len({files[0] for _, files in found[0]}) == 5
    said = capsys.readouterr().err
    assert "detection: 5/5 runs" in said
    log = tmp_path / "2" / "evaluations" / "detection" / found[1][0][0] / "log.txt"
    assert "train (real, seed 0)" in log.read_text(encoding="utf-8")


def test_what_one_run_left_is_found_again_by_several_jobs(
    tmp_path: Path, toy: DBTDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Workspace(tmp_path)
    evaluate(work, "detection", toy, seeds=1, recipe_name="smoke", arms=[])
    capsys.readouterr()
    with Pool(2) as pool:
        evaluate(work, "detection", toy, seeds=1, recipe_name="smoke", arms=[], pool=pool)
    assert "real seed 0: already done" in capsys.readouterr().err


def test_recorded_scores_are_those_of_the_predictions(tmp_path: Path, toy: DBTDataset) -> None:
    work = Workspace(tmp_path)
    (run,) = evaluate(work, "detection", toy, seeds=1, recipe_name="smoke", arms=[])
    record = json.loads((run / "run.json").read_text())
    predictions = pd.read_csv(run / "predictions.csv", dtype={"PatientID": str, "StudyUID": str})
    again = Detection(DetectionRecipe()).score(Arm("real", toy, toy), 0, predictions).scores
    assert again == pytest.approx(record["scores"], nan_ok=True, abs=1e-12)
    outcomes = pd.read_csv(run / "outcomes.csv", dtype={"PatientID": str, "StudyUID": str})
    everybody = [[1] * outcomes["PatientID"].nunique()]
    assert froc.mean_sensitivity(outcomes, everybody) == pytest.approx(
        record["scores"]["mean_sensitivity_positive"], abs=1e-12
    )


@pytest.mark.slow
def test_a_cluster_s_workers_give_the_same_numbers(tmp_path: Path, toy: DBTDataset) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    found = []
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        for name, dask in (("here", None), ("there", cluster.scheduler_address)):
            with Pool(1, dask) as pool:
                runs = evaluate(
                    Workspace(tmp_path / name),
                    "detection",
                    toy,
                    seeds=2,
                    recipe_name="smoke",
                    arms=[],
                    pool=pool,
                )
            found.append([(run.name, (run / "predictions.csv").read_bytes()) for run in runs])
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_cluster_whose_workers_have_threads_is_refused(tmp_path: Path, toy: DBTDataset) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        Pool(1, cluster.scheduler_address) as pool,
        pytest.raises(UsageError, match="several threads"),
    ):
        evaluate(Workspace(tmp_path), "detection", toy, seeds=1, arms=[], pool=pool)


@pytest.mark.parametrize("arms", [None, ["gan:1"], ["gan:synthetic-only"]])
def test_a_held_out_volume_keeps_every_arm_from_running(
    work: Workspace,
    tmp_path: Path,
    toy: DBTDataset,
    write_synthetic: Callable[..., DBTDataset],
    arms: list[str] | None,
) -> None:
    held_out = toy.volumes([31])[0, 0][:, :, ::-1]
    write_synthetic(work.datasets / "gan", toy, [held_out, 1 - held_out], derived=True)
    with pytest.raises(StaleError, match="gan holds 1 real volumes that are held out") as caught:
        evaluate(work, "count", toy, [] if arms else ["gan"], arms=arms)
    assert caught.value.exit_code == 4
    assert Count.evaluated == 0


def test_training_volumes_are_for_derived_data_sets_only(
    work: Workspace, toy: DBTDataset, write_synthetic: Callable[..., DBTDataset]
) -> None:
    for name, derived in (("gan", False), ("turned", True)):
        write_synthetic(work.datasets / name, toy, [toy.volumes([0])[0, 0][:, ::-1]], derived=derived)
    with pytest.raises(StaleError, match="gan is not derived, and holds 1 training volumes"):
        evaluate(work, "count", toy, ["gan"], 1, arms=[])
    runs = evaluate(work, "count", toy, ["turned", "classic"], 1, arms=[])
    said = [json.loads((run / "run.json").read_text()).get("derived") for run in runs]
    assert said == [None, True, True]


def test_a_run_that_another_process_works_on_is_left_to_it_and_waited_for(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "POLL_SECONDS", 0.05)
    first, second = evaluate(work, "count", toy, seeds=1, arms=["classic"])
    identity = {k: v for k, v in json.loads((first / "run.json").read_text()).items() if k not in RESULTS}
    for run in (first, second):
        (run / "run.json").unlink()
    Count.evaluated = 0
    begun, done = threading.Event(), threading.Event()

    def other() -> None:
        with open_run(first.parent, identity) as run:
            begun.set()
            while not (second / "run.json").is_file():  # the next free run is done meanwhile
                time.sleep(0.01)
            run.finish(scores={})
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(10)
    assert evaluate(work, "count", toy, seeds=1, arms=["classic"]) == [first, second]
    assert (first / "run.json").is_file()
    assert done.wait(10)
    assert Count.evaluated == 1
    thread.join()


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_two_commands_share_the_runs_of_a_workspace(
    work: Workspace,
    make_toy: Callable[..., DBTDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh: list[str],
) -> None:
    """Also when both start over: neither throws away what the other one has just made."""
    data = make_toy(work.datasets / "d", 2)
    if fresh:
        before = {run: (run / "run.json").stat().st_mtime_ns for run in evaluate(work, "count", data)}
        Count.evaluated = 0
    words = [
        "evaluate",
        "--task",
        "count",
        "--data",
        "d",
        "--jobs",
        "1",
        "--workspace",
        str(tmp_path),
        *fresh,
    ]
    monkeypatch.setattr(sys, "argv", ["dbtbench", *words])
    monkeypatch.setattr(evaluation, "POLL_SECONDS", 0.05)
    noted = tmp_path / "evaluated"
    noted.touch()

    def wait_for_the_other() -> None:
        """Note the run, and begin no first one before the other process has one too."""
        with noted.open("a") as file:
            file.write(f"{os.getpid()}\n")
        limit = time.monotonic() + 60
        while len(set(noted.read_text().split())) < 2:
            assert time.monotonic() < limit
            time.sleep(0.01)

    monkeypatch.setattr(Count, "meanwhile", wait_for_the_other)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_in_a_fork, main, tmp_path, logs[0])
        # Else two may throw away, one after another.
        while fresh and not noted.read_text() and not first.done():
            time.sleep(0.01)
        second = pool.submit(run_in_a_fork, main, tmp_path, logs[1])
    assert (first.result().end, second.result().end) == (0, 0), [log.read_text() for log in logs]
    wrote = Counter(noted.read_text().split())
    assert len(wrote) == 2
    assert wrote.total() == 4  # none was done twice
    assert ("what is finished stays" in logs[1].read_text()) == bool(fresh)
    runs = evaluate(work, "count", data)
    assert Count.evaluated == 0
    assert not fresh or all((run / "run.json").stat().st_mtime_ns != before[run] for run in runs)


def test_fresh_keeps_what_is_finished_while_another_process_works(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That process may be an earlier job of the same array, with --fresh too."""
    runs = evaluate(work, "count", toy)

    def fail(taken: object) -> None:
        assert not taken

    monkeypatch.setattr(evaluation, "_wait_for_any", fail)  # it has no run to wait for
    Count.evaluated = 0
    with hold(runs[0]):
        assert evaluate(work, "count", toy, fresh=True) == runs
    assert Count.evaluated == 0
    assert "another process: what is finished stays, despite --fresh" in capsys.readouterr().err


def test_a_worker_writes_no_log_of_a_run_that_another_process_holds(work: Workspace, toy: DBTDataset) -> None:
    run, other, *_ = evaluate(work, "count", toy)
    (run / "run.json").unlink()
    identity = {k: v for k, v in json.loads((other / "run.json").read_text()).items() if k not in RESULTS}
    job = evaluation.Job(run.parent, "count", Count(CountRecipe()), Arm("real", toy, toy), 0)
    assert job.run.path == run
    with open_run(run.parent, identity | {"seed": 0}):
        assert evaluation._evaluate_quietly(job) is False
    assert not (run / "log.txt").exists()
    assert evaluation._evaluate_quietly(job)
    assert (run / "log.txt").exists()
