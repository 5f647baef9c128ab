"""The realism task must see what it is there to see, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from dbtbench import plugins
from dbtbench.data.dataset import BOX_COLUMNS, KEY, DBTDataset
from dbtbench.data.writer import DatasetWriter
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Volume
from dbtbench.metrics import histogram
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation
from dbtbench.tasks import realism
from dbtbench.tasks.realism import Realism, RealismRecipe
from dbtbench.tasks.realism.metrics import CROP_METRICS, METRICS, OPTIONAL, SETS, SLOW

Change = Callable[[Volume, int], Volume]
OF_SETS = {metric.name for metric in SETS}
NOT_ASKED = {metric.name for metric in OPTIONAL}
"""Computed where the recipe asks for it only."""


@pytest.fixture(scope="module")
def toy(make_toy: Callable[..., DBTDataset], tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """Sixteen patients: with eight, chance leaves one kind of volume of the test split out of the mix."""
    return make_toy(tmp_path_factory.mktemp("realism") / "toy", patients=16)


@pytest.fixture
def evaluate(toy: DBTDataset, tmp_path: Path) -> Callable[..., Evaluation]:
    """Evaluate an arm with `synthetic`, or `real`."""

    def run(synthetic: DBTDataset | None = None, seed: int = 0, **settings: Any) -> Evaluation:
        arm = Arm(
            "real" if synthetic is None else "other",
            toy,
            toy.select("train"),
            () if synthetic is None else (synthetic,),
        )
        evaluation: Evaluation = Realism(RealismRecipe(**{"draws": 0} | settings)).evaluate(
            arm, seed, Run(tmp_path, {})
        )
        return evaluation

    return run


@pytest.fixture
def altered(toy: DBTDataset, tmp_path: Path) -> Callable[[Change], DBTDataset]:
    """The toy's training split, each volume changed by a function of (volume, number)."""

    def make(change: Change) -> DBTDataset:
        train = toy.select("train")
        with DatasetWriter(tmp_path / "altered", toy.grid, len(train), {}) as writer:
            for index, case in enumerate(train.cases.to_dict("records")):
                rows = train.boxes[train.boxes["case"] == case["case"]]
                boxes = rows[[name for name in BOX_COLUMNS if name not in ("case", *KEY)]].to_dict("records")
                volume = change(train.volumes([case["case"]])[0, 0], index)
                writer.add(
                    index, volume, {k: v for k, v in case.items() if k not in ("case", "sha256")}, boxes
                )
            return writer.finish({"intensity": {}, "source": {"kind": "toy"}, "split": {}}, "")

    return make


def test_is_found_by_its_name() -> None:
    assert plugins.load(plugins.get("tasks", "realism")) is Realism


def test_real_training_data_are_near_the_real_test_split(evaluate: Callable[..., Evaluation]) -> None:
    evaluation = evaluate()
    assert evaluation.counts["volumes"] == evaluation.counts["reference_volumes"] == 16
    assert evaluation.counts["boxes"] > 0
    assert evaluation.scores["w1_intensity"] < 0.01
    undefined = {name for name, value in evaluation.scores.items() if np.isnan(value)}
    assert undefined == {"c2st_auc"} | NOT_ASKED  # of four patients there are no five folds
    assert Realism.primary in evaluation.scores


def test_the_test_split_itself_has_no_distance(evaluate: Callable[..., Evaluation], toy: DBTDataset) -> None:
    scores = evaluate(toy.select("test")).scores
    assert scores["w1_intensity"] == 0
    assert scores["w1_breast"] == 0


def test_a_haze_over_everything_is_seen(
    evaluate: Callable[..., Evaluation], altered: Callable[[Change], DBTDataset]
) -> None:
    real, hazy = evaluate().scores, evaluate(altered(lambda volume, _: 0.1 + 0.6 * volume)).scores
    assert hazy["w1_intensity"] > 10 * real["w1_intensity"]
    assert hazy["air_mode_mass"] == 0
    assert real["air_mode_mass"] > 0.3
    assert hazy["rms_contrast"] == pytest.approx(0.6 * real["rms_contrast"], rel=0.1)
    assert hazy["lesion_cnr"] == pytest.approx(real["lesion_cnr"], rel=0.15)


def test_blur_is_seen_as_a_loss_of_contrast(
    evaluate: Callable[..., Evaluation], altered: Callable[[Change], DBTDataset]
) -> None:
    real = evaluate().scores
    blurred = evaluate(altered(lambda volume, _: ndimage.gaussian_filter(volume, (0.7, 2, 2)))).scores
    for metric in ("rms_contrast", "percentile_range", "air_mode_mass", "valley_depth_whole"):
        assert blurred[metric] < real[metric]


def test_a_generator_that_draws_one_volume_has_no_diversity(
    evaluate: Callable[..., Evaluation], altered: Callable[[Change], DBTDataset], toy: DBTDataset
) -> None:
    one = toy.volumes([0])[0, 0]
    assert evaluate(altered(lambda volume, _: one)).scores["volume_mean_sd"] == pytest.approx(0, abs=1e-9)
    assert evaluate().scores["volume_mean_sd"] > 0.001


def test_volumes_without_lesions_or_structure_score_nan_where_nothing_is_defined(
    evaluate: Callable[..., Evaluation], altered: Callable[[Change], DBTDataset], toy: DBTDataset
) -> None:
    train = toy.select("train")
    normal = evaluate(train.take(~train.cases["case"].isin(train.boxes["case"])))
    lesions = {metric.name for metric in METRICS if metric.name.startswith("lesion_")}
    undefined = {name for name, value in normal.scores.items() if np.isnan(value)}
    assert undefined == {"c2st_auc"} | lesions | NOT_ASKED
    assert normal.counts["boxes"] == 0
    flat = evaluate(altered(lambda volume, _: np.full_like(volume, 0.3))).scores
    assert flat["w1_intensity"] > 0.1
    assert np.isnan([flat["dip_breast"], flat["michelson_breast"], flat["w1_breast"]]).all()


def test_both_sides_have_the_same_number_of_volumes_drawn_by_the_seed(
    evaluate: Callable[..., Evaluation],
) -> None:
    first = evaluate(volumes=3)
    assert {name for name in OF_SETS if np.isnan(first.scores[name])} == OF_SETS  # of fewer than 8 volumes
    assert first.counts["volumes"] == first.counts["reference_volumes"] == 3
    assert str(evaluate(volumes=3).scores) == str(first.scores)  # NaN is not itself
    assert str(evaluate(volumes=3, seed=1).scores) != str(first.scores)


def test_the_histograms_behind_the_scores_are_kept(
    evaluate: Callable[..., Evaluation], toy: DBTDataset, tmp_path: Path
) -> None:
    evaluation = evaluate()
    table = pd.read_csv(tmp_path / "histograms.csv")
    names = [f"{side}_{place}" for side in ("arm", "reference") for place in ("whole", "breast")]
    assert list(table) == ["bin", "intensity", *names]
    assert table["arm_whole"].sum() == table["reference_whole"].sum() == 16 * np.prod(toy.grid)
    distance = histogram.wasserstein(table["arm_breast"].to_numpy(), table["reference_breast"].to_numpy())
    assert distance == evaluation.scores["w1_breast"]


def test_lesions_as_short_as_their_boxes_are_seen_in_depth(
    evaluate: Callable[..., Evaluation],
    altered: Callable[[Change], DBTDataset],
    toy: DBTDataset,
    tmp_path: Path,
) -> None:
    assert evaluate(toy.select("test")).scores["lesion_depth_distance"] == 0
    real = evaluate().scores
    train = toy.select("train")
    cases = list(train.cases["case"])

    def smear(volume: Volume, number: int) -> Volume:
        """Spread each lesion through all slices."""
        for z0, y0, x0, z1, y1, x1 in train.boxes_of(cases[number]).astype(int):
            volume[:, y0:y1, x0:x1] = volume[z0:z1, y0:y1, x0:x1].max(axis=0)
        return volume

    smeared = evaluate(altered(smear)).scores
    assert smeared["lesion_depth_distance"] > real["lesion_depth_distance"] + 0.05
    table = pd.read_csv(tmp_path / "lesions.csv")
    assert list(table) == ["profile", "at", "arm", "reference"]
    distance = (table["arm"] - table["reference"]).abs().groupby(table["profile"]).mean()
    assert distance["depth"] == pytest.approx(smeared["lesion_depth_distance"])
    assert distance["radius"] == pytest.approx(smeared["lesion_radius_distance"])


@pytest.mark.parametrize("alone", [False, True])
def test_several_synthetic_data_sets_are_measured_one_by_one(
    alone: bool, toy: DBTDataset, tmp_path: Path
) -> None:
    drawn = replace(toy, meta=toy.meta | {"source": {"kind": "synthetic"}})
    real = toy.select("train")
    arm = Arm("a+b", toy, drawn, (drawn,)) if alone else Arm("a+b", toy, real, (drawn, drawn))
    with pytest.raises(UsageError, match=r"a\+b has several synthetic data sets"):
        Realism(RealismRecipe()).evaluate(arm, 0, Run(tmp_path, {}))


def test_another_grid_or_an_empty_side_is_an_error(
    evaluate: Callable[..., Evaluation], toy: DBTDataset, make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"has the grid \(4, 16, 16\)"):
        evaluate(make_toy(tmp_path / "small", grid=(4, 16, 16)))
    with pytest.raises(UsageError, match="no volumes to measure"):
        evaluate(toy.take(toy.cases["case"] < 0))


def test_scores_are_placed_on_the_floor_and_all_that_is_behind_them_is_kept(
    make_toy: Callable[..., DBTDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = make_toy(tmp_path / "more", patients=20, grid=(4, 32, 32))
    arm = Arm("real", real, real.select("train"))
    task = Realism(RealismRecipe(draws=5))
    run = Run(tmp_path / "run", {})
    run.path.mkdir()
    evaluation = task.evaluate(arm, 0, run)
    n = evaluation.counts["volumes"]
    assert n == evaluation.counts["reference_volumes"] >= 16
    assert "lesions on a side, 16 give a floor: none for lesion_precision" in capsys.readouterr().err
    few = {metric.name for metric in CROP_METRICS} | {"c2st_auc"}  # of half of five patients: no five folds
    unplaced = {metric.name for metric in SLOW} | NOT_ASKED | few
    assert evaluation.standings.keys() == {metric.name for metric in METRICS} - unplaced
    for standing in evaluation.standings.values():
        assert standing.floor_low <= standing.floor <= standing.floor_high
    again = Realism(RealismRecipe(draws=5)).score(
        Arm("real", DBTDataset.open(real.path), DBTDataset.open(real.path).select("train")), 0, None
    )
    assert (str(again.scores), again.standings) == (str(evaluation.scores), evaluation.standings)
    volumes = pd.read_csv(run.path / "volumes.csv")
    assert volumes["side"].value_counts().to_dict() == {"arm": n, "reference": n}
    own = volumes[volumes["side"] == "arm"]
    assert own["roughness"].mean() == pytest.approx(evaluation.scores["roughness"])
    sides = [volumes[volumes["side"] == side] for side in ("arm", "reference")]
    assert not set(sides[0]["PatientID"]) & set(sides[1]["PatientID"])
    mixes = [side.groupby(["projection", "lesion"]).size().to_dict() for side in sides]
    assert mixes[0] == mixes[1]
    groups = pd.read_csv(run.path / "groups.csv")
    assert set(groups) >= {"column", "group", "volumes", "metric", "value", "low", "high", "percentile"}
    without = Realism(RealismRecipe(draws=0)).score(arm, 0, None)
    assert (str(without.scores), without.standings) == (str(evaluation.scores), {})


def test_features_that_are_not_installed_are_said_once_and_what_is_asked_for_is_computed(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, arm = Realism(RealismRecipe(draws=0, features=True)), Arm("real", toy, toy.select("train"))
    realism._find_network.cache_clear()
    monkeypatch.setattr(realism, "has_network", lambda: False)
    for _ in range(2):
        assert np.isnan(task.score(arm, 0, None).scores["kid_imagenet"])
    assert capsys.readouterr().err.count("pip install 'dbtbench[features]'") == 1
    realism._find_network.cache_clear()
    monkeypatch.undo()
    scores = task.score(arm, 0, None).scores
    assert np.isfinite([scores["kid_imagenet"], scores["frechet_imagenet"]]).all()
