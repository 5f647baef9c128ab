"""Train a 3-D CNN on an arm's volumes and say which test volumes have a lesion (AUROC)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.metrics.classification import classification_scores
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.task import Arm, Evaluation, Task
from dbtbench.training.batches import Batches
from dbtbench.training.loop import Loss, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

from .network import LesionClassifier

VOLUMES_AT_ONCE = 8
DECIMALS = 6
"""Of the scores in predictions.csv, from which they are scored."""


class ClassificationRecipe(TrainingRecipe):
    """Settings of the classifier and of its training.

    Attributes:
        channels: width of the network; a multiple of 8.
        levels: number of stages after the first; each further one sees lesions twice as large.
        positive_share: share of a batch's volumes with lesions.
        synthetic_share: share of synthetic volumes, where an arm has some.
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
    synthetic_share: float = Field(default=0.5, gt=0, le=1)


class Classification(Task[ClassificationRecipe]):
    """Lesion present or not, for each volume."""

    recipe_class = ClassificationRecipe
    primary = "auroc"
    seeds = 5
    # Without `AUG:shuffled-boxes`: a volume keeps a lesion when the boxes change places.
    arms = ("none", "oversample", "classic", "AUG", "more-real:0.33", "more-real")

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
        test = arm.real.select("test")
        batches = Batches(
            arm, self.recipe.batch, self.recipe.positive_share, self.recipe.synthetic_share, seed
        )
        _check_both_kinds(arm.train, "training")
        _check_both_kinds(test, "test")
        title = f"{arm.name}, seed {seed}"
        # `fit` and the initial weights use the global generator.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = LesionClassifier(self.recipe.channels, self.recipe.levels)
            model = fit(net, _loss_of(batches), self.recipe, run.path, seed=seed, title=f"train ({title})")
        scores = np.concatenate(list(_classify(model, test, title)))
        predictions = test.cases[KEY].assign(Score=scores.round(DECIMALS))
        outcomes = _outcomes(test, predictions)
        counts = {
            "patients": int(test.cases["PatientID"].nunique()),
            "volumes": len(test),
            "positives": int(outcomes["positive"].sum()),
            "boxes": len(test.boxes),
        }
        return Evaluation(self.score(arm.real, predictions), counts, predictions, outcomes)

    def score(self, real: DBTDataset, predictions: pd.DataFrame) -> dict[str, float]:
        """AUROC and average precision of predictions.

        Args:
            real: the data set; its test split is scored.
            predictions: `PatientID, StudyUID, View, Score`, one row a test volume in any order.

        Raises:
            UsageError: when a test volume has no score or several, or a score is of no test volume.
        """
        outcomes = _outcomes(real.select("test"), predictions)
        return classification_scores(outcomes["positive"], outcomes["Score"])


def _positive(dataset: DBTDataset) -> NDArray[np.bool_]:
    """Whether each volume has a box, that is, a lesion that was biopsied."""
    return np.asarray(dataset.cases["case"].isin(dataset.boxes["case"]), bool)


def _check_both_kinds(dataset: DBTDataset, kind: str) -> None:
    positive = _positive(dataset)
    if positive.all() or not positive.any():
        share = "every" if positive.any() else "no"
        raise MissingError(
            f"{share} {kind} volume of {dataset.name} has a lesion",
            "a classifier needs volumes of both kinds: import, or draw, some",
        )


def _outcomes(test: DBTDataset, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a test volume, sorted: `KEY`, `positive` (0 or 1), `Score`."""
    truth = test.cases[KEY].assign(positive=_positive(test).astype(int))
    outcomes = truth.merge(predictions[[*KEY, "Score"]], how="outer", on=KEY, indicator=True)
    wrong = (outcomes["_merge"] != "both") | outcomes.duplicated(KEY)
    if wrong.any():
        volume = " ".join(str(value) for value in outcomes.loc[wrong, KEY].iloc[0])
        raise UsageError(
            f"the predictions are not one for each test volume of {test.name}: see {volume}",
            "give each test volume one score, and no other volume any",
        )
    return outcomes.drop(columns="_merge")


def _loss_of(batches: Batches) -> Loss:
    """Binary cross-entropy on a step's batch, for `fit`."""

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        volumes, boxes = batches.read(context.step, context.part, context.generator.device)
        logits: Tensor = net(volumes)
        positive = torch.tensor([float(len(box) > 0) for box in boxes], device=logits.device)
        return F.binary_cross_entropy_with_logits(logits.float(), positive)

    return loss


@torch.no_grad()
def _classify(model: nn.Module, test: DBTDataset, title: str) -> Iterator[NDArray[np.float64]]:
    """Probability of a lesion for every test volume, read a few at a time."""
    cases = list(test.cases["case"])
    with progress(f"classify ({title})", len(cases)) as advance:
        for first in range(0, len(cases), VOLUMES_AT_ONCE):
            chunk = cases[first : first + VOLUMES_AT_ONCE]
            logits: Tensor = model(torch.from_numpy(test.volumes(chunk)).to(distributed.device()))
            yield torch.sigmoid(logits.double()).cpu().numpy()
            advance(len(chunk))
