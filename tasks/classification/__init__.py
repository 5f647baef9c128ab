"""A 3-D CNN trained on an arm's volumes says which test volumes have a lesion (AUROC)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.metrics.classification import classification_scores
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.training.recipe import ArmRecipe

from .metrics import METRICS


class ClassificationRecipe(ArmRecipe):
    """Settings of the classifier and of its training.

    Attributes:
        channels: width of the network; a multiple of 8.
        levels: number of stages after the first; each further one sees lesions twice as large.
    """

    steps: PositiveInt = 500
    batch: PositiveInt = 8
    lr: PositiveFloat = 2e-3
    schedule: Literal["linear", "one-cycle"] = "one-cycle"
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: PositiveFloat = 10.0
    ema: float = Field(default=0.0, ge=0, lt=1)
    channels: int = Field(default=16, ge=8, multiple_of=8)
    levels: int = Field(default=1, ge=1, le=3)
    positive_share: float = Field(default=0.5, gt=0, lt=1)


class Classification(Task[ClassificationRecipe]):
    """Lesion present or not, for each volume."""

    recipe_class = ClassificationRecipe
    version = 3
    metrics = METRICS
    seeds = 5
    # Without `AUG:shuffled-boxes`: a volume keeps a lesion when the boxes change places.
    arms = (
        "real",
        "classic",
        "AUG",
        "AUG:normals-only",
        "more-real:0.1",
        "more-real:0.25",
        "more-real:0.5",
        "more-real",
    )

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Train on the arm's volumes, classify those of the test split, score.

        Args:
            arm: the data; what is trained on and the test split need volumes with and without boxes.
            seed: seed of the weights and of the data order, neither of which depends on the arm.
            run: takes the classifier's weights and the training's state and metrics.

        Raises:
            DivergedError: when training diverges.
            MissingError: when training or test split have volumes of one kind only.
            UsageError: when synthetic data are on another grid.
        """
        from .training import predict  # torch and MONAI take seconds to import, and scores need neither

        _check_both_kinds(arm.sources if arm.equal else [arm.train], "training")
        _check_both_kinds([arm.real.select("test")], "test")
        return self.score(arm, seed, predict(arm, seed, self.recipe, run))

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Compute AUROC and average precision of predictions.

        Args:
            arm: the test split of `real` is scored.
            seed: makes no difference.
            predictions: `PatientID, StudyUID, View, Score`, one row a test volume in any order.

        Raises:
            MissingError: without predictions.
            UsageError: when a test volume has no score or several, or a score is of no test volume.
        """
        if predictions is None:
            raise MissingError("the run keeps no predictions", "evaluate again with --fresh")
        test = arm.real.select("test")
        outcomes = _outcomes(test, predictions)
        counts = {
            "patients": int(test.cases["PatientID"].nunique()),
            "volumes": len(test),
            "positives": int(outcomes["positive"].sum()),
            "boxes": len(test.boxes),
        }
        scores = classification_scores(outcomes["positive"], outcomes["Score"])
        return Evaluation(scores, counts, predictions, {"outcomes": outcomes})


def _check_both_kinds(datasets: list[DBTDataset], kind: str) -> None:
    positive = np.concatenate([dataset.positive for dataset in datasets])
    if positive.all() or not positive.any():
        share, names = "every" if positive.any() else "no", "+".join(dataset.name for dataset in datasets)
        raise MissingError(
            f"{share} {kind} volume of {names} has a lesion",
            "a classifier needs volumes of both kinds: import, or draw, some",
        )


def _outcomes(test: DBTDataset, predictions: pd.DataFrame) -> pd.DataFrame:
    """Join truth and scores: one row a test volume, sorted: `KEY`, `positive` (0 or 1), `Score`."""
    truth = test.cases[KEY].assign(positive=test.positive.astype(int))
    outcomes = truth.merge(predictions[[*KEY, "Score"]], how="outer", on=KEY, indicator=True)
    wrong = (outcomes["_merge"] != "both") | outcomes.duplicated(KEY)
    if wrong.any():
        volume = " ".join(str(value) for value in outcomes.loc[wrong, KEY].iloc[0])
        raise UsageError(
            f"the predictions are not one for each test volume of {test.name}: see {volume}",
            "give each test volume one score, and no other volume any",
        )
    return outcomes.drop(columns="_merge")
