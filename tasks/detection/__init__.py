"""Train a 3-D RetinaNet on an arm's volumes and find the lesions of the test patients (DBTex rule)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import DBTBenchError, MissingError
from dbtbench.geometry.views import Boxes
from dbtbench.metrics import froc
from dbtbench.metrics.afroc import score_afroc
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.training.batches import Batches
from dbtbench.training.loop import Loss, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

from .data import native_predictions
from .retinanet import LesionDetector, anchor_shapes, check_grid

VOLUMES_AT_ONCE = 8


class DetectionRecipe(TrainingRecipe):
    """Settings of the detector and of its training.

    Attributes:
        channels: width of the network; a multiple of 8.
        levels: number of pyramid levels; each further one sees lesions twice as large.
        positive_share: share of a batch's volumes with lesions.
        synthetic_share: share of what an arm adds to the real volumes.
        score_threshold: detections with lower scores are dropped; MONAI's 0.05 would cut off the right end of
            the FROC curve.
        overlap: of two detections with a larger intersection over union, only the better is kept.
        detections: most detections in a volume.
    """

    steps: PositiveInt = 500
    batch: PositiveInt = 4
    lr: PositiveFloat = 2e-3
    schedule: Literal["linear", "one-cycle"] = "one-cycle"
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: PositiveFloat = 10.0
    ema: float = Field(default=0.0, ge=0, lt=1)
    channels: int = Field(default=16, ge=8, multiple_of=8)
    levels: int = Field(default=1, ge=1, le=3)
    positive_share: float = Field(default=0.5, gt=0, le=1)
    synthetic_share: float = Field(default=0.5, gt=0, le=1)
    score_threshold: float = Field(default=0.01, ge=0, lt=1)
    overlap: float = Field(default=0.22, ge=0, le=1)
    detections: PositiveInt = 20


class Detection(Task[DetectionRecipe]):
    """Lesion detection, scored by the official rule of the DBTex challenges."""

    recipe_class = DetectionRecipe
    primary = "mean_sensitivity_positive"
    seeds = 5
    arms = (
        "none",
        "oversample",
        "classic",
        "AUG",
        "AUG:shuffled-boxes",
        "more-real:0.33",
        "more-real",
    )

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Train on the arm's volumes, detect in the test split, score.

        Args:
            arm: the data; what is trained on and the test split need lesions with boxes.
            seed: seed of the weights and of the data order, neither of which depends on the arm.
            run: takes the detector's weights and the training's state and metrics.

        Raises:
            DBTBenchError: when training diverges.
            MissingError: when the training or the test split has no boxes.
            UsageError: when the detector cannot take the grid, or synthetic data are on another.
        """
        train, test = arm.real.select("train"), arm.real.select("test")
        check_grid(arm.real.grid, self.recipe.levels)
        if test.boxes.empty:
            raise MissingError(
                f"no test volume of {arm.real.name} has a box to be found",
                "import a data set whose test split has boxes",
            )
        batches = Batches(
            arm, self.recipe.batch, self.recipe.positive_share, self.recipe.synthetic_share, seed
        )
        title = f"{arm.name}, seed {seed}"
        # `fit` and the initial weights use the global generator, as does MONAI's negative sampler.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            anchors = anchor_shapes(train.boxes[GRID_BOX].to_numpy(np.float32), train.grid)
            net = LesionDetector(
                train.grid,
                anchors,
                self.recipe.channels,
                self.recipe.levels,
                self.recipe.score_threshold,
                self.recipe.overlap,
                self.recipe.detections,
            )
            model = fit(net, _loss_of(batches), self.recipe, run.path, seed=seed, title=f"train ({title})")
        predictions = native_predictions(test, list(_detect(model, test, title)))
        counts = {
            "patients": int(test.cases["PatientID"].nunique()),
            "volumes": len(test),
            "boxes": len(test.boxes),
        }
        outcomes = froc.outcomes(test.cases, test.boxes, predictions, froc.match_distances(test))
        return Evaluation(self.score(arm.real, predictions), counts, predictions, outcomes)

    def score(self, real: DBTDataset, predictions: pd.DataFrame) -> dict[str, float]:
        """Scores of predictions (DBTex columns) by the DBTex rule, and the areas under AFROC and wAFROC."""
        test = real.select("test")
        found = (test.cases, test.boxes, predictions, froc.match_distances(test))
        return froc.score_dbtex(*found) | score_afroc(*found)


def _loss_of(batches: Batches) -> Loss:
    """The detector's loss on a step's batch, for `fit`."""

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        volumes, boxes = batches.read(context.step, context.part, context.generator.device)
        try:
            value: Tensor = net(volumes, boxes)
        except ValueError as error:  # how MONAI reports NaN and Inf
            raise DBTBenchError(
                f"training the detector failed at step {context.step}: {error}",
                "lower the learning rate, such as --set lr=0.001",
            ) from error
        return value

    return loss


def _detect(model: nn.Module, test: DBTDataset, title: str) -> Iterator[tuple[Boxes, NDArray[np.float32]]]:
    """Boxes and scores of every test volume, read a few at a time."""
    assert isinstance(model, LesionDetector)
    cases = list(test.cases["case"])
    with progress(f"detect ({title})", len(cases)) as advance:
        for first in range(0, len(cases), VOLUMES_AT_ONCE):
            chunk = cases[first : first + VOLUMES_AT_ONCE]
            yield from model.detect(torch.from_numpy(test.volumes(chunk)).to(distributed.device()))
            advance(len(chunk))
