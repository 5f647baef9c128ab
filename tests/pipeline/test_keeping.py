"""The filter: of planted lesions the invisible and the saturated ones go, and the mix of labels stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from dbtbench import plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.lesions.hosts import HostReader
from dbtbench.lesions.places import plane_distance
from dbtbench.pipeline.arms import make_arm
from dbtbench.pipeline.evaluate import identify
from dbtbench.pipeline.generate import find_augmentation
from dbtbench.pipeline.keeping import Filter, choose, score_volumes
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.files import read_json
from dbtbench.task import Arm
from dbtbench.tasks.detection import Detection, DetectionRecipe
from dbtbench.tasks.detection.data import native_predictions
from dbtbench.workspace import Workspace

HEIGHTS = {"invisible": 0.0, "middling": 0.25, "saturated": 1.0}


class Planted(Generator[Recipe]):
    """Real hosts with lesions that cannot be seen, can be seen, or are as bright as can be, in turn."""

    derived = True

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.hosts = HostReader(train, "planted")

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for layout in layouts:
            volume = self.hosts.read_host(layout).volume
            volume = volume[..., ::-1] if layout.view[0] == "r" else volume
            for box in layout.boxes:
                shape = np.exp(-((plane_distance(box, volume.shape[1:]) / 0.7) ** 4))
                slices = np.exp(-(((np.arange(8) + 0.5 - (box[0] + box[3]) / 2) / 2) ** 2))
                height = list(HEIGHTS.values())[layout.index % 3]
                volume = volume + height * slices[:, None, None] * shape
            yield Sample(np.ascontiguousarray(volume, np.float32).clip(0, 1), layout.boxes)


def find_bright(task: Detection, volumes: DBTDataset, arm: Arm, seed: int, run: Run) -> pd.DataFrame:
    """Detect what is bright: the brighter, the higher the score. It needs no training."""
    assert set(arm.real.cases["split"]) == {"train"}, "the detector sees the training split alone"
    assert arm.sources == [arm.real]
    (run.path / "calls").open("a").write("x")
    found = []
    for volume in volumes.volumes()[:, 0]:
        smooth = gaussian_filter(volume, (1, 1.5, 1.5))
        peaks = np.argwhere((smooth == maximum_filter(smooth, (9, 7, 7))) & (smooth > 0.2))
        boxes = np.hstack([peaks - (0, 2, 2), peaks + np.array([1, 3, 3])]).astype(np.float32)
        found.append((boxes, smooth[tuple(peaks.T)]))
    return native_predictions(volumes, found)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    point = EntryPoint("planted", f"{__name__}:Planted", "dbtbench.generators")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if "generators" in group else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(Detection, "detect", find_bright)
    return Workspace(tmp_path)


def ask(toy: DBTDataset, n: int = 30, share: float = 1 / 3, **more: Any) -> GenerationRequest:
    return GenerationRequest("planted", toy, n=n, keep=Filter(share, "smoke"), **more)


def kinds(made: DBTDataset) -> list[str]:
    """The kind of each volume with lesions, by the number of its layout."""
    names = made.cases.loc[made.positive, "PatientID"].str.removeprefix("planted-").astype(int)
    return [list(HEIGHTS)[number % 3] for number in names]


def test_invisible_and_saturated_lesions_go_and_the_mix_stays(work: Workspace, toy: DBTDataset) -> None:
    request = ask(toy)
    request.check()
    made = request.run(work)
    source = made.meta["source"]["keep"]
    drawn = DBTDataset.open(work.datasets / source["from"])
    assert (len(drawn), len(made)) == (90, 30)
    assert kinds(drawn).count("invisible") > 8 < kinds(drawn).count("saturated")
    found = kinds(made)
    assert found.count("middling") > 0.8 * len(found)
    assert len(found) == round(30 * drawn.positive.mean())
    assert {**source, "rule": ""} == {
        **{"share": 1 / 3, "rule": "", "drawn": 90, "kept": 30, "from": drawn.name},
        **{"with_lesions_drawn": int(drawn.positive.sum()), "with_lesions_kept": len(found)},
        **{"not_found": source["not_found"], "found_easily": source["found_easily"]},
        **{"fingerprint": drawn.fingerprint, "detector": "smoke", "detector_run": source["detector_run"]},
    }
    assert source["not_found"] + source["found_easily"] + len(found) == drawn.positive.sum()
    assert source["not_found"] > 0.5 * kinds(drawn).count("invisible")
    assert made.meta["source"]["derived"] is True


def test_what_is_kept_has_the_bytes_boxes_and_patients_of_what_was_drawn(
    work: Workspace, toy: DBTDataset
) -> None:
    made = ask(toy, n=6).run(work)
    drawn = DBTDataset.open(work.datasets / made.meta["source"]["keep"]["from"])
    assert len(made.cases.merge(drawn.cases)) == len(made)
    assert len(made.boxes.merge(drawn.boxes)) == len(made.boxes) > 0
    for case in made.cases["case"]:
        assert made.volumes([case]).tobytes() == drawn.volumes([case]).tobytes()


def test_it_is_another_arm_and_found_again_and_the_detector_is_trained_once(
    work: Workspace, toy: DBTDataset
) -> None:
    made = ask(toy, n=6).run(work, name="filtered")
    again = ask(toy, n=6).run(work, name="filtered")
    assert again.fingerprint == made.fingerprint
    drawn = DBTDataset.open(work.datasets / made.meta["source"]["keep"]["from"])
    assert drawn.fingerprint != made.fingerprint
    assert find_augmentation(work, "planted", toy).name == "filtered", "the newest"
    records = [
        identify("detection", Detection(DetectionRecipe()), make_arm(work, name, toy), 0)["augmentation"]
        for name in ("filtered", drawn.name)
    ]
    assert [record.get("keep") for record in records] == [1 / 3, None]
    ask(toy, n=6, seed=1).run(work)
    (record,) = (work.root / "filters" / "detection").glob("*/run.json")
    assert (record.parent / "calls").read_text() == "xx", "once for each drawn data set, in the same run"
    assert read_json(record)["arm"] == "real"


def test_after_a_kill_it_continues(work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(toy, n=6).run(work)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Detection, "detect", die)
    with pytest.raises(KeyboardInterrupt):
        ask(toy, n=6).run(work, name="again")
    monkeypatch.setattr(Detection, "detect", find_bright)
    assert "again" not in work.dataset_names()
    assert ask(toy, n=6).run(work, name="again").fingerprint == whole.fingerprint


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(toy: DBTDataset, share: float) -> None:
    with pytest.raises(UsageError, match="cannot keep a share"):
        Filter(share).configure()


def test_what_has_no_lesions_cannot_be_filtered(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="filters by lesions, and none are drawn"):
        ask(toy, positives=0.0).check()
    with pytest.raises(UsageError, match="no recipe named 'smok'"):
        GenerationRequest("planted", toy, keep=Filter(0.5, "smok")).check()


def test_the_number_drawn_is_the_number_wanted_over_the_share() -> None:
    assert [Filter(share).count_drawn(n) for share, n in ((0.5, 7), (1 / 3, 30), (0.1, 3), (0.3, 10))] == [
        *(14, 90, 30, 34)
    ]


def test_a_lesion_counts_as_found_up_to_two_false_positives_a_volume(toy: DBTDataset) -> None:
    """Beyond, a guess that hits it by chance does not count."""
    drawn = toy.select("train")
    box = drawn.boxes.iloc[0]
    hit = {**box[KEY], "X": box["X"], "Width": 6, "Y": box["Y"], "Height": 6, "Z": box["Slice"], "Depth": 1}
    miss = {**hit, "X": 0, "Y": 0, "Width": 1, "Height": 1}

    def score(allowed: int) -> float:
        false = pd.DataFrame([{**miss, "Score": 0.9}] * allowed)
        scores = score_volumes(drawn, pd.concat([false, pd.DataFrame([{**hit, "Score": 0.5}])]))
        assert np.isnan(scores[~drawn.positive]).all()
        return float(np.nansum(scores))

    assert score(2 * len(drawn)) == 0.5
    assert score(2 * len(drawn) + 1) == 0


def test_volumes_without_a_found_lesion_go_first_and_then_the_highest_scores() -> None:
    nan = np.nan
    scores = np.array([0.0, 0.9, nan, 0.2, 0.0, 0.5, nan, 0.8, nan, nan])
    assert np.flatnonzero(choose(scores, 5)).tolist() == [2, 3, 5, 6, 7]
    assert np.flatnonzero(choose(scores, 2)).tolist() == [2, 3]
    few = np.array([0.0, 0.0, 0.0, 0.4, nan, nan, nan, nan])
    assert np.flatnonzero(choose(few, 4)).tolist() == [3, 4], "fewer, in the same mix"
    with pytest.raises(DBTBenchError, match="finds none of the lesions of 2 drawn volumes"):
        choose(np.array([0.0, 0.0, nan]), 2)


def test_the_real_detector_is_trained_once_and_finds_lesions_in_any_volumes(
    toy: DBTDataset, tmp_path: Path
) -> None:
    train, task = toy.select("train"), Filter(0.5, "smoke").configure()
    arm, run = Arm("real", train, train), Run(tmp_path, {})
    whole = task.detect(train, arm, 0, run)
    weights = tmp_path / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    part = task.detect(toy.select("validation"), arm, 0, run)
    assert weights.stat().st_mtime_ns == before
    assert set(whole["PatientID"]) <= set(train.cases["PatientID"])
    assert set(part["PatientID"]) <= set(toy.select("validation").cases["PatientID"])
    assert len(whole) > 0 < len(part)
    assert len(score_volumes(train, whole)) == len(train)
