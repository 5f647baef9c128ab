"""Training of the detector, and its detections in volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import DivergedError, MissingError
from dbtbench.geometry.views import Boxes
from dbtbench.metrics.mask import breast_mask
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.task import CHANCE, UNTRAINED, Arm
from dbtbench.training.batches import Batches
from dbtbench.training.loop import Loss, StepContext, fit

from .data import native_predictions
from .merging import merge_depths
from .references import find_blobs, guess
from .retinanet import LesionDetector, anchor_shapes, check_grid

if TYPE_CHECKING:
    from . import DetectionRecipe

VOLUMES_AT_ONCE = 8


def predict(arm: Arm, test: DBTDataset, seed: int, recipe: DetectionRecipe, run: Run) -> pd.DataFrame:
    """Train on an arm's volumes and detect in others; a reference arm detects without training.

    Args:
        arm: the data; what is trained on and the real training split need lesions with boxes.
        test: the volumes in which lesions are detected; they need lesions with boxes, too.
        seed: seed of the weights and of the data order, neither of which depends on the arm.
        recipe: the settings.
        run: takes the detector's weights and the training's state and metrics.

    Returns:
        Boxes in the DBTex columns (`native_predictions`).

    Raises:
        DivergedError: when training diverges.
        MissingError: when the training or the test split has no boxes.
        UsageError: when the detector cannot take the grid, or synthetic data are on another.
    """
    train = arm.real.select("train")
    check_grid(arm.real.grid, recipe.levels)
    if test.boxes.empty:
        raise MissingError(
            f"no test volume of {test.name} has a box to be found",
            "import a data set whose test split has boxes",
        )
    if train.boxes.empty:
        raise MissingError(
            f"no training volume of {arm.real.name} has a lesion",
            "import, or draw, a data set with lesions whose boxes are known",
        )
    title = f"{arm.name}, seed {seed}"
    anchors = anchor_shapes(train.boxes[GRID_BOX].to_numpy(np.float32), train.grid)
    if arm.reference and arm.reference != UNTRAINED:
        return native_predictions(test, list(_answer(arm.reference, test, anchors, recipe.detections, seed)))
    # `fit` and the initial weights use the global generator, as does MONAI's negative sampler.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = LesionDetector(
            train.grid,
            anchors,
            recipe.channels,
            recipe.levels,
            recipe.score_threshold,
            recipe.overlap,
            recipe.detections,
        )
        model = net if arm.reference else _train(net, arm, seed, recipe, run, title)
    found = _detect(model, test, title)
    if recipe.merge_depths:
        found = (merge_depths(boxes, scores, recipe.overlap) for boxes, scores in found)
    return native_predictions(test, list(found))


def _train(
    net: LesionDetector, arm: Arm, seed: int, recipe: DetectionRecipe, run: Run, title: str
) -> nn.Module:
    batches = Batches.of(arm, recipe, seed)
    return fit(net, _loss_of(batches), recipe, run.path, seed=seed, title=f"train ({title})")


def _answer(
    reference: str, test: DBTDataset, sides: NDArray[np.float32], n: int, seed: int
) -> Iterator[tuple[Boxes, NDArray[np.float32]]]:
    """Find boxes and scores of every test volume without a network."""
    for case in test.cases["case"]:
        volume = test.volumes([case])
        inside = breast_mask(volume)[0, 0]
        if reference == CHANCE:
            yield guess(inside, sides, n, (seed, int(case)))
        else:
            yield find_blobs(volume[0, 0], inside, sides, n)


def _loss_of(batches: Batches) -> Loss:
    """Make the detector's loss on a step's batch, for `fit`."""

    def loss(net: nn.Module, context: StepContext) -> Tensor:
        volumes, boxes = batches.read(context.step, context.part, context.generator)
        try:
            value: Tensor = net(volumes, boxes)
        except ValueError as error:  # how MONAI reports NaN and Inf
            raise DivergedError(
                f"training the detector failed at step {context.step}: {error}",
                "lower the learning rate, such as --set lr=0.001",
            ) from error
        return value

    return loss


def _detect(model: nn.Module, test: DBTDataset, title: str) -> Iterator[tuple[Boxes, NDArray[np.float32]]]:
    """Find boxes and scores of every test volume, read a few at a time."""
    assert isinstance(model, LesionDetector)
    model.to(distributed.device())
    cases = list(test.cases["case"])
    with progress(f"detect ({title})", len(cases)) as advance:
        for first in range(0, len(cases), VOLUMES_AT_ONCE):
            chunk = cases[first : first + VOLUMES_AT_ONCE]
            yield from model.detect(torch.from_numpy(test.volumes(chunk)).to(distributed.device()))
            advance(len(chunk))
