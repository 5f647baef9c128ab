from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.metrics import froc
from dbtbench.recipe import resolve
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation
from dbtbench.tasks.detection import Detection, DetectionRecipe, training
from dbtbench.tasks.detection.data import native_predictions
from dbtbench.tasks.detection.retinanet import (
    FROM_MONAI,
    TO_MONAI,
    ExactAnchors,
    LesionDetector,
    anchor_shapes,
)
from dbtbench.training import loop
from dbtbench.training.batches import Batches

MakeToy = Callable[..., DBTDataset]
GRID = (8, 32, 32)
ANCHORS = np.array([[2, 6, 6], [3, 8, 8]], np.float32)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("real") / "real", patients=16, seed=1)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("synthetic") / "synthetic", patients=4, seed=2)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Evaluation]:
    """Evaluate in a fresh run folder, on one thread."""

    def run(arm: Arm, seed: int = 0, **settings: Any) -> Evaluation:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            folder = tmp_path_factory.mktemp("run")
            task = Detection(DetectionRecipe(**settings))
            evaluation: Evaluation = task.evaluate(arm, seed, Run(folder, {}))
            return evaluation
        finally:
            torch.set_num_threads(threads)

    return run


@pytest.fixture(scope="module")
def trained(real: DBTDataset, evaluate: Callable[..., Evaluation]) -> Evaluation:
    return evaluate(arm_of(real), steps=100)


def arm_of(real: DBTDataset, added: DBTDataset | None = None) -> Arm:
    return Arm(
        "real" if added is None else "toy", real, real.select("train"), () if added is None else (added,)
    )


def without_boxes(dataset: DBTDataset, split: str) -> DBTDataset:
    """The same data set, where no case of a split has a lesion."""
    cases = dataset.cases.loc[dataset.cases["split"] == split, "case"]
    boxes = dataset.boxes[~dataset.boxes["case"].isin(cases)]
    return DBTDataset(dataset.path, dataset.meta, dataset.cases, boxes)


def detector(levels: int = 1, grid: tuple[int, int, int] = GRID) -> LesionDetector:
    torch.manual_seed(0)
    recipe = DetectionRecipe()
    return LesionDetector(grid, ANCHORS, 8, levels, recipe.score_threshold, recipe.overlap, recipe.detections)


class TestTraining:
    def test_it_learns_to_find_obvious_lesions(
        self, real: DBTDataset, trained: Evaluation, evaluate: Callable[..., Evaluation]
    ) -> None:
        untrained = evaluate(arm_of(real), steps=1)
        assert untrained.scores["mean_sensitivity_low"] < 0.5
        assert trained.scores["mean_sensitivity_low"] > 0.8

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
        self, real: DBTDataset, synthetic: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        arm = arm_of(real, synthetic)
        torch.manual_seed(1)
        first = evaluate(arm, steps=5)
        torch.manual_seed(2)  # what the caller drew before must not matter
        again, other = evaluate(arm, steps=5), evaluate(arm, seed=1, steps=5)
        assert first.scores == again.scores
        assert first.predictions is not None
        assert first.predictions.to_csv() == pd.DataFrame(again.predictions).to_csv()
        assert first.predictions.to_csv() != pd.DataFrame(other.predictions).to_csv()

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
        alone = evaluate(arm_of(real), steps=3)
        augmented = evaluate(arm_of(real, synthetic), steps=3)
        (weights, steps), (other_weights, other_steps) = seen
        assert steps == other_steps == 3
        assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
        assert alone.predictions is not None
        assert not alone.predictions.equals(augmented.predictions)

    def test_a_training_that_diverges_names_the_step(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        with pytest.raises(DBTBenchError, match=r"step [1-9]") as error:
            evaluate(arm_of(real), steps=10, lr=1e30)
        assert "lr" in error.value.hint

    def test_a_job_that_was_killed_after_its_training_does_not_train_again(
        self, real: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = Detection(DetectionRecipe(steps=2, channels=8))
        first = task.evaluate(arm_of(real), 0, Run(tmp_path, {}))

        def no_reading(*_: Any) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(Batches, "read", no_reading)
        assert task.evaluate(arm_of(real), 0, Run(tmp_path, {})).scores == first.scores

    def test_what_was_scored_is_counted(self, trained: Evaluation, real: DBTDataset) -> None:
        test = real.select("test")
        assert trained.counts == {
            "patients": 4,
            "volumes": len(test),
            "boxes": len(test.boxes),
        }

    def test_both_means_are_scored_and_the_recipe_says_which_decides(
        self, trained: Evaluation, real: DBTDataset
    ) -> None:
        test = real.select("test")
        assert trained.predictions is not None
        random = np.random.default_rng(0).random(len(trained.predictions))
        guessed = trained.predictions.assign(Score=random)
        scores = Detection(DetectionRecipe()).score(arm_of(real), 0, guessed).scores
        found = (test.cases, test.boxes, guessed, froc.match_distances(test))
        curve = froc.froc_curve(*found, positive_only=True)
        for name, points in (
            ("mean_sensitivity_low", (1 / 8, 1 / 4, 1 / 2, 1)),
            ("mean_sensitivity_positive", (1, 2, 3, 4)),
        ):
            read = np.interp(points, curve["fps"], curve["sensitivity"])
            assert scores[name] == pytest.approx(read.mean(), abs=1e-12)
        assert scores["mean_sensitivity_low"] < scores["mean_sensitivity_positive"] < 1
        decides = {points: Detection(DetectionRecipe(points=points)).primary for points in ("dbtex", "low")}
        assert decides == {"dbtex": "mean_sensitivity_positive", "low": "mean_sensitivity_low"}
        assert Detection.primary == "mean_sensitivity_positive"

    @pytest.mark.parametrize("name", ["default", "demo", "smoke", "full"])
    def test_recipes_differ_in_size_only(self, name: str) -> None:
        recipe = resolve(DetectionRecipe, Path(training.__file__).parent / "recipes", name)
        assert recipe.synthetic_share == recipe.positive_share == 0.5
        assert recipe.score_threshold == DetectionRecipe().score_threshold


class TestRefusals:
    def test_a_test_split_without_boxes(self, real: DBTDataset, evaluate: Callable[..., Evaluation]) -> None:
        with pytest.raises(MissingError, match="no test volume of real has a box"):
            evaluate(arm_of(without_boxes(real, "test")))

    def test_a_training_split_without_boxes(
        self, real: DBTDataset, evaluate: Callable[..., Evaluation]
    ) -> None:
        with pytest.raises(MissingError, match="no training volume of real has a lesion"):
            evaluate(arm_of(without_boxes(real, "train")))

    def test_synthetic_data_on_another_grid(
        self, real: DBTDataset, make_toy: MakeToy, tmp_path: Path, evaluate: Callable[..., Evaluation]
    ) -> None:
        other = make_toy(tmp_path / "other", patients=2, grid=(8, 16, 32))
        with pytest.raises(UsageError, match="other has the grid"):
            evaluate(arm_of(real, other))

    @pytest.mark.parametrize(
        ("grid", "levels", "problem"),
        [((9, 32, 32), 1, "9 slices"), ((8, 30, 32), 1, "30 rows"), ((8, 32, 36), 2, "36 columns")],
    )
    def test_a_grid_that_the_strides_do_not_divide(
        self, grid: tuple[int, int, int], levels: int, problem: str
    ) -> None:
        with pytest.raises(UsageError, match=problem):
            detector(levels, grid)

    def test_recipes_that_make_no_sense(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="channels"):
            resolve(DetectionRecipe, tmp_path, overrides={"channels": "12"})
        with pytest.raises(UsageError, match="synthetic_share"):
            resolve(DetectionRecipe, tmp_path, overrides={"synthetic_share": "1.5"})


class TestDetector:
    def test_axis_orders_are_inverse_of_each_other(self) -> None:
        box = np.array(["z0", "y0", "x0", "z1", "y1", "x1"])
        assert box[TO_MONAI].tolist() == ["y0", "x0", "z0", "y1", "x1", "z1"]
        assert box[TO_MONAI][FROM_MONAI].tolist() == box.tolist()

    @pytest.mark.parametrize("levels", [1, 2])
    def test_a_memorised_lesion_is_found_where_it_is_along_every_axis(self, levels: int) -> None:
        box = torch.tensor([[2.0, 20, 30, 4, 26, 38]])
        volume = torch.full((1, 1, 8, 32, 48), 0.3)
        volume[0, 0, 2:4, 20:26, 30:38] = 0.9
        net = detector(levels, (8, 32, 48))
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            net(volume, [box]).backward()
            optimizer.step()
        boxes, scores = net.detect(volume)[0]
        assert scores[0] > 0.9
        assert np.abs(boxes[0] - box.numpy()[0]).max() < 1.0

    def test_anchors_are_exactly_as_asked_for_and_never_deeper_than_the_volume(self) -> None:
        shapes = [(5.0, 3.0, 1.0), (7.0, 7.0, 3.0)]
        fine, coarse = ExactAnchors([1, 4], shapes, depth=8).cell_anchors
        assert (fine[:, 3:] - fine[:, :3]).tolist() == [[5, 3, 1], [7, 7, 3]]
        assert (coarse[:, 3:] - coarse[:, :3]).tolist() == [[20, 12, 4], [28, 28, 8]]

    def test_anchor_shapes_are_the_quartiles_of_the_boxes(self) -> None:
        sides = np.array([[0.5, 2, 3], [2, 4, 5], [3, 6, 7], [4, 8, 9], [9, 10, 90]], np.float32)
        boxes = np.concatenate([np.ones_like(sides), 1 + sides], axis=1)
        assert anchor_shapes(boxes, GRID).tolist() == [[2, 4, 5], [4, 8, 9]]
        assert anchor_shapes(boxes[[0, 0]], GRID)[:, 0].tolist() == [1, 1]
        assert anchor_shapes(boxes[[4, 4]], GRID)[:, 0].tolist() == [8, 8]
        assert anchor_shapes(boxes[[4, 4]], GRID)[:, 2].tolist() == [32, 32]

    def test_a_batch_of_normal_volumes_trains_on_its_false_positives(self) -> None:
        net = detector()
        loss = net(torch.rand(2, 1, *GRID), [torch.zeros(0, 6)] * 2)
        loss.backward()
        assert torch.isfinite(loss)
        parameters = dict(net.named_parameters())
        head = parameters["detector.network.classification_head.cls_logits.weight"].grad
        assert head is not None
        assert head.abs().sum() > 0

    def test_normal_and_abnormal_volumes_mix_in_a_batch(self) -> None:
        loss = detector()(
            torch.rand(2, 1, *GRID), [torch.zeros(0, 6), torch.tensor([[2.0, 4, 4, 4, 10, 10]])]
        )
        assert torch.isfinite(loss)

    def test_volumes_with_slices_last_are_refused(self) -> None:
        with pytest.raises(AssertionError, match=r"\(N, 1, D, H, W\)"):
            detector().detect(torch.rand(1, 1, 32, 32, 8))


class TestPredictions:
    def test_they_are_in_dbtex_columns_and_in_the_volume(self, trained: Evaluation, real: DBTDataset) -> None:
        table = trained.predictions
        assert table is not None
        assert list(table) == [*KEY, "X", "Width", "Y", "Height", "Z", "Depth", "Score"]
        assert set(table["PatientID"]) <= set(real.select("test").cases["PatientID"])
        assert table["Score"].between(0, 1).all()
        assert (table[["Width", "Height", "Depth"]] > 0).all(axis=None)
        assert all(of_view["Score"].is_monotonic_decreasing for _, of_view in table.groupby(KEY))
        assert (table["X"] >= 0).all()
        assert (table["X"] + table["Width"] <= 32).all()

    def test_a_file_of_them_scored_again_gives_the_same(
        self, trained: Evaluation, real: DBTDataset, tmp_path: Path
    ) -> None:
        assert trained.predictions is not None
        trained.predictions.to_csv(tmp_path / "predictions.csv", index=False, float_format="%.6g")
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "predictions.csv"), trained.predictions)

    @given(
        corners=st.lists(st.floats(0, 0.5, width=32), min_size=3, max_size=3),
        sides=st.lists(st.floats(0.015625, 0.5, width=32), min_size=3, max_size=3),
        size=st.tuples(st.integers(8, 90), st.integers(32, 2500), st.integers(32, 2000)),
    )
    @settings(max_examples=50, deadline=None)
    def test_native_coordinates_lead_back_to_the_grid(
        self, real: DBTDataset, corners: list[float], sides: list[float], size: tuple[int, int, int]
    ) -> None:
        low = np.array(corners) * GRID
        box = np.concatenate([low, low + np.array(sides) * GRID]).astype(np.float32)
        cases = real.cases.iloc[:1].assign(**dict(zip(("slices", "rows", "columns"), size, strict=True)))
        one = DBTDataset(real.path, real.meta, cases, real.boxes)
        row = native_predictions(one, [(box[None], np.array([0.5], np.float32))]).iloc[0]
        native_low = np.array([row["Z"] + 0.5, row["Y"], row["X"]])
        extent = np.array([row["Depth"], row["Height"], row["Width"]])
        scale = np.array(GRID) / size
        back = np.concatenate([native_low * scale, (native_low + extent) * scale])
        assert back == pytest.approx(box, abs=0.02)

    def test_a_volume_without_detections_has_no_row(self, real: DBTDataset) -> None:
        one = real.take(real.cases["case"] == 0)
        nothing = (np.zeros((0, 6), np.float32), np.zeros(0, np.float32))
        assert native_predictions(one, [nothing]).empty

    def test_ten_millimetres_count_where_the_pixel_size_is_known_and_100_pixels_where_not(
        self, toy: DBTDataset
    ) -> None:
        pixel_mm = toy.cases["pixel_mm"].where(toy.cases["case"] != toy.boxes["case"].iloc[0])
        some = DBTDataset(toy.path, toy.meta, toy.cases.assign(pixel_mm=pixel_mm), toy.boxes)
        distances = froc.match_distances(some)
        assert distances[0] == 100
        assert distances[1:] == pytest.approx([10 / 7] * (len(toy.boxes) - 1))
