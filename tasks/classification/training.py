"""Training of the classifier, and its scores of the test split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.task import Arm
from dbtbench.training.batches import Batches
from dbtbench.training.loop import Loss, StepContext, fit

from .network import LesionClassifier

if TYPE_CHECKING:
    from . import ClassificationRecipe

VOLUMES_AT_ONCE = 8
DECIMALS = 6
"""Of the scores in predictions.csv, from which they are scored."""


def predict(arm: Arm, seed: int, recipe: ClassificationRecipe, run: Run) -> pd.DataFrame:
    """Train on an arm's volumes and classify those of the test split.

    Args:
        arm: the data.
        seed: seed of the weights and of the data order, neither of which depends on the arm.
        recipe: the settings.
        run: takes the classifier's weights and the training's state and metrics.

    Returns:
        `PatientID, StudyUID, View, Score`, one row a test volume.

    Raises:
        DivergedError: when training diverges.
        UsageError: when synthetic data are on another grid.
    """
    test = arm.real.select("test")
    batches = Batches.of(arm, recipe, seed)
    title = f"{arm.name}, seed {seed}"
    # `fit` and the initial weights use the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = LesionClassifier(recipe.channels, recipe.levels)
        model = fit(net, _loss_of(batches), recipe, run.path, seed=seed, title=f"train ({title})")
    scores = np.concatenate(list(_classify(model, test, title)))
    return test.cases[KEY].assign(Score=scores.round(DECIMALS))


def _loss_of(batches: Batches) -> Loss:
    """Make the binary cross-entropy on a step's batch, for `fit`."""

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        volumes, boxes = batches.read(context.step, context.part, context.generator)
        logits: Tensor = net(volumes)
        positive = torch.tensor([float(len(box) > 0) for box in boxes], device=logits.device)
        return F.binary_cross_entropy_with_logits(logits.float(), positive)

    return loss


@torch.no_grad()
def _classify(model: nn.Module, test: DBTDataset, title: str) -> Iterator[NDArray[np.float64]]:
    """Predict the probability of a lesion for every test volume, read a few at a time."""
    cases = list(test.cases["case"])
    with progress(f"classify ({title})", len(cases)) as advance:
        for first in range(0, len(cases), VOLUMES_AT_ONCE):
            chunk = cases[first : first + VOLUMES_AT_ONCE]
            logits: Tensor = model(torch.from_numpy(test.volumes(chunk)).to(distributed.device()))
            yield torch.sigmoid(logits.double()).cpu().numpy()
            advance(len(chunk))
