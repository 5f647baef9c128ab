import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import DivergedError, MissingError, UsageError
from dbtbench.metrics.classification import auroc
from dbtbench.metrics.resampling import patients
from dbtbench.pipeline.arms import with_shuffled_boxes
from dbtbench.recipe import names, resolve
from dbtbench.runs import Run
from dbtbench.runtime.signals import Terminated
from dbtbench.task import Arm, Evaluation
from dbtbench.tasks.classification import Classification, ClassificationRecipe, training
from dbtbench.tasks.classification.network import LesionClassifier
from dbtbench.training import batches, loop
from dbtbench.training.augment import augment
from dbtbench.training.batches import Batches

MakeToy = Callable[..., DBTDataset]
RECIPES = Path(training.__file__).parent / "recipes"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("real") / "real", patients=16, seed=1)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("synthetic") / "synthetic", patients=4, seed=2)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Evaluation]:
    """Evaluate on one thread, in a fresh run folder unless one is given."""

    def run(arm: Arm, seed: int = 0, folder: Path | None = None, **settings: Any) -> Evaluation:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            task = Classification(ClassificationRecipe(**settings))
            evaluation: Evaluation = task.evaluate(
                arm, seed, Run(folder or tmp_path_factory.mktemp("run"), {})
            )
            return evaluation
        finally:
            torch.set_num_threads(threads)

    return run


@pytest.fixture(scope="module")
def trained(real: DBTDataset, evaluate: Callable[..., Evaluation]) -> Evaluation:
    return evaluate(arm_of(real), steps=60, batch=4)


def arm_of(real: DBTDataset, added: DBTDataset | None = None) -> Arm:
    return Arm(
        "real" if added is None else "toy", real, real.select("train"), () if added is None else (added,)
    )


def text(evaluation: Evaluation) -> str:
    assert evaluation.predictions is not None
    return str(evaluation.predictions.to_csv(index=False))


def with_boxes_of(dataset: DBTDataset, cases: "pd.Series[int]") -> DBTDataset:
    """The same data set, where these cases and no others have a box."""
    boxes = pd.concat([dataset.boxes.head(1)] * len(cases)).assign(case=cases.to_numpy())
    return DBTDataset(dataset.path, dataset.meta, dataset.cases, boxes)


class TestTraining:
    def test_it_learns_to_tell_obvious_lesions(self, trained: Evaluation) -> None:
        assert trained.scores["auroc"] > 0.95
        assert trained.scores["average_precision"] > 0.95

    def test_it_learns_from_the_boxes_and_from_nothing_else(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        train = real.select("train")
        lesion_free = train.cases.loc[~train.cases["case"].isin(train.boxes["case"]), "case"]
        told_wrong = Arm("wrong", real, with_boxes_of(train, lesion_free))
        assert evaluate(told_wrong, steps=60, batch=4).scores["auroc"] < 0.05

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
        self, real: DBTDataset, synthetic: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        arm = arm_of(real, synthetic)
        torch.manual_seed(1)
        first = evaluate(arm, steps=5)
        torch.manual_seed(2)  # what the caller drew before must not matter
        again, other = evaluate(arm, steps=5), evaluate(arm, seed=1, steps=5)
        assert first.scores == again.scores
        assert text(first) == text(again) != text(other)

    def test_volumes_are_changed_at_every_step_unless_that_is_turned_off(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[Any, ...]] = []

        def record(volumes: Any, boxes: Any, *rest: Any) -> Any:
            changed, carried = augment(volumes, boxes, *rest)
            seen.append((volumes, changed, boxes, carried))
            return changed, carried

        monkeypatch.setattr(batches, "augment", record)
        plain = evaluate(arm_of(real), steps=3, batch=4, augment=False)
        assert not seen
        assert text(evaluate(arm_of(real), steps=3, batch=4)) != text(plain)
        assert len(seen) == 3
        for volumes, changed, boxes, carried in seen:
            assert not any(map(torch.equal, volumes, changed))
            assert [len(box) for box in carried] == [len(box) for box in boxes], "a lesion stays in view"

    def test_the_callers_random_numbers_are_left_alone(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        evaluate(arm_of(real), steps=1)
        assert torch.equal(torch.rand(3), expected)

    def test_arms_share_initial_weights_and_number_of_steps(
        self,
        real: DBTDataset,
        synthetic: DBTDataset,
        evaluate: Callable[..., Evaluation],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seen: list[tuple[dict[str, torch.Tensor], int]] = []
        fit = loop.fit

        def recording(net: torch.nn.Module, loss: Any, recipe: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(({k: v.clone() for k, v in net.state_dict().items()}, recipe.steps))
            return fit(net, loss, recipe, *args, **kwargs)

        monkeypatch.setattr(training, "fit", recording)
        alone, augmented = (evaluate(arm, steps=3) for arm in (arm_of(real), arm_of(real, synthetic)))
        (weights, steps), (other_weights, other_steps) = seen
        assert steps == other_steps == 3
        assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
        assert text(alone) != text(augmented)

    def test_boxes_that_change_places_change_nothing(
        self, real: DBTDataset, synthetic: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        shuffled = with_shuffled_boxes(synthetic)
        assert not shuffled.boxes["case"].equals(synthetic.boxes["case"])
        first, second = (evaluate(arm_of(real, added), steps=3) for added in (synthetic, shuffled))
        assert text(first) == text(second)
        assert not any("shuffled-boxes" in arm for arm in Classification.arms)

    def test_a_training_that_diverges_names_the_step(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        with pytest.raises(DivergedError, match=r"step [1-9]") as error:
            evaluate(arm_of(real), steps=10, lr=1e30)
        assert "lr" in error.value.hint


class TestKills:
    def test_a_training_that_was_terminated_continues_to_the_same_bytes(
        self,
        real: DBTDataset,
        tmp_path: Path,
        evaluate: Callable[..., Evaluation],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        read = Batches.read
        steps: list[int] = []

        def terminated_at_3(self: Batches, step: int, *args: Any) -> Any:
            steps.append(step)
            if steps == [0, 1, 2, 3]:
                os.kill(os.getpid(), signal.SIGTERM)
            return read(self, step, *args)

        uninterrupted = evaluate(arm_of(real), steps=6)
        monkeypatch.setattr(Batches, "read", terminated_at_3)
        with pytest.raises(Terminated):
            evaluate(arm_of(real), folder=tmp_path, steps=6)
        assert text(evaluate(arm_of(real), folder=tmp_path, steps=6)) == text(uninterrupted)
        assert steps == [0, 1, 2, 3, 4, 5]

    def test_a_job_that_was_killed_after_its_training_does_not_train_again(
        self,
        real: DBTDataset,
        tmp_path: Path,
        evaluate: Callable[..., Evaluation],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = evaluate(arm_of(real), folder=tmp_path, steps=2)

        def no_reading(*_: Any) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(Batches, "read", no_reading)
        assert text(evaluate(arm_of(real), folder=tmp_path, steps=2)) == text(first)


class TestRecipes:
    def test_standard_is_the_default(self) -> None:
        assert resolve(ClassificationRecipe, RECIPES, "standard") == ClassificationRecipe()

    def test_they_differ_in_size_only(self) -> None:
        recipes = {name: resolve(ClassificationRecipe, RECIPES, name) for name in names(RECIPES)}
        assert recipes.keys() >= {"smoke", "demo", "standard", "full"}
        size = {"steps", "batch", "channels", "levels"}
        assert all(
            recipe.model_dump(exclude=size) == ClassificationRecipe().model_dump(exclude=size)
            for recipe in recipes.values()
        )
        steps = [recipes[name].steps for name in ("smoke", "demo", "standard", "full")]
        assert steps == sorted(set(steps))

    @pytest.mark.parametrize(("key", "value"), [("channels", "12"), ("positive_share", "1")])
    def test_settings_that_make_no_sense_are_named(self, key: str, value: str) -> None:
        with pytest.raises(UsageError, match=key):
            resolve(ClassificationRecipe, RECIPES, overrides={key: value})


class TestPredictions:
    def test_there_is_one_probability_for_each_test_volume(
        self, trained: Evaluation, real: DBTDataset
    ) -> None:
        table = trained.predictions
        assert table is not None
        assert list(table) == [*KEY, "Score"]
        assert table[KEY].to_numpy().tolist() == real.select("test").cases[KEY].to_numpy().tolist()
        assert table["Score"].between(0, 1).all()

    def test_their_file_scored_again_gives_the_same_in_any_order(
        self, trained: Evaluation, real: DBTDataset, tmp_path: Path
    ) -> None:
        assert trained.predictions is not None
        trained.predictions.iloc[::-1].to_csv(tmp_path / "predictions.csv", index=False)
        again = pd.read_csv(tmp_path / "predictions.csv", dtype=dict.fromkeys(KEY, str))
        assert Classification(ClassificationRecipe()).score(arm_of(real), 0, again).scores == trained.scores

    def test_outcomes_hold_all_that_the_primary_score_depends_on(
        self, trained: Evaluation, real: DBTDataset
    ) -> None:
        test, outcomes = real.select("test"), trained.outcomes["outcomes"]
        assert list(outcomes) == [*KEY, "positive", "Score"]
        assert set(outcomes.loc[outcomes["positive"] == 1, "PatientID"]) == set(test.boxes["PatientID"])
        everyone_once = np.ones((1, len(patients(outcomes))))
        assert auroc(outcomes, everyone_once)[0] == pytest.approx(trained.scores[Classification.primary])

    def test_what_was_scored_is_counted(self, trained: Evaluation, real: DBTDataset) -> None:
        test = real.select("test")
        boxes = len(test.boxes)
        assert trained.counts == {"patients": 4, "volumes": len(test), "positives": boxes, "boxes": boxes}

    def test_actionable_volumes_have_no_boxes_and_are_negatives(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        label = real.cases["label"].where(real.cases["case"].isin(real.boxes["case"]), "actionable")
        actionable = DBTDataset(real.path, real.meta, real.cases.assign(label=label), real.boxes)
        outcomes = evaluate(arm_of(actionable), steps=1).outcomes["outcomes"]
        merged = outcomes.merge(actionable.cases, on=KEY)
        assert (merged.loc[merged["label"] == "actionable", "positive"] == 0).all()
        assert set(merged["positive"]) == {0, 1}

    @pytest.mark.parametrize("problem", ["missing", "twice", "unknown"])
    def test_a_table_that_is_not_one_row_a_test_volume_is_refused(
        self, trained: Evaluation, real: DBTDataset, problem: str
    ) -> None:
        table = trained.predictions
        assert table is not None
        odd = table.iloc[[0]]
        wrong = {
            "missing": table.iloc[1:],
            "twice": pd.concat([table, odd]),
            "unknown": pd.concat([table, odd.assign(View="xcc")]),
        }[problem]
        with pytest.raises(UsageError, match=f"see {odd['PatientID'].iloc[0]} "):
            Classification(ClassificationRecipe()).score(arm_of(real), 0, wrong)


class TestRefusals:
    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("lesions", [True, False])
    def test_a_split_with_volumes_of_one_kind_only(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation], split: str, lesions: bool
    ) -> None:
        has = real.cases["case"].isin(real.boxes["case"])
        one_kind = real.take((real.cases["split"] != split) | (has == lesions))
        kind, share = "training" if split == "train" else split, "every" if lesions else "no"
        with pytest.raises(MissingError, match=f"{share} {kind} volume of real has a lesion"):
            evaluate(arm_of(one_kind))

    def test_synthetic_data_on_another_grid(
        self, real: DBTDataset, make_toy: MakeToy, tmp_path: Path, evaluate: Callable[..., Evaluation]
    ) -> None:
        other = make_toy(tmp_path / "other", patients=2, grid=(8, 16, 32))
        with pytest.raises(UsageError, match="other has the grid"):
            evaluate(arm_of(real, other))


class TestNetwork:
    @pytest.mark.parametrize(("levels", "shape"), [(1, (4, 16, 16)), (2, (4, 8, 8)), (3, (4, 4, 4))])
    def test_slices_are_halved_once(self, levels: int, shape: tuple[int, ...]) -> None:
        maps = LesionClassifier(8, levels).body(torch.rand(1, 1, 8, 64, 64))
        assert maps.shape[2:] == shape

    def test_any_grid_is_taken(self) -> None:
        assert LesionClassifier(8, 1)(torch.rand(2, 1, 5, 31, 47)).shape == (2,)

    @pytest.mark.parametrize("training", [True, False])
    def test_a_volume_is_judged_without_looking_at_the_others_of_its_batch(self, training: bool) -> None:
        torch.manual_seed(0)
        net = LesionClassifier(8, 1).train(training)
        volumes = torch.rand(3, 1, 8, 32, 32)
        alone = torch.cat([net(volume[None]) for volume in volumes])
        assert torch.allclose(net(volumes), alone, atol=1e-5)

    def test_where_the_lesion_lies_does_not_matter(self) -> None:
        torch.manual_seed(0)
        net = LesionClassifier(8, 1)
        here, there = torch.full((2, 1, 1, 8, 64, 64), 0.3)
        here[..., 2:4, 20:26, 20:26] = 0.9
        there[..., 2:4, 36:42, 28:34] = 0.9
        assert torch.allclose(net(here), net(there), atol=1e-5)
        assert not torch.allclose(net(here), net(torch.full_like(here, 0.3)), atol=1e-3)
