"""A 3-D RetinaNet trained on an arm's volumes finds the lesions of the test patients (DBTex rule)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError
from dbtbench.metrics import froc
from dbtbench.metrics.afroc import score_afroc
from dbtbench.metrics.resampling import patients
from dbtbench.runs import Run
from dbtbench.task import REFERENCES, Arm, Evaluation, Task
from dbtbench.training.recipe import ArmRecipe

from .metrics import METRICS, PRIMARY


class DetectionRecipe(ArmRecipe):
    """Settings of the detector and of its training.

    Attributes:
        channels: width of the network; a multiple of 8.
        levels: number of pyramid levels; each further one sees lesions twice as large.
        score_threshold: detections with lower scores are dropped; MONAI's 0.05 would cut off the right end of
            the FROC curve.
        overlap: of two detections with a larger intersection over union, only the better is kept.
        detections: most detections in a volume.
        merge_depths: whether detections one above the other count as one (`merging`): better at few false
            positives; without, each slice is a guess of its own, which pays at 1 to 4.
        points: operating points of the primary metric: `dbtex`, 1, 2, 3 and 4 false positives a volume, as in
            the challenge; `low`, ⅛, ¼, ½ and 1, where guesses find much less. Both are always scored.
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
    score_threshold: float = Field(default=0.001, ge=0, lt=1)
    overlap: float = Field(default=0.22, ge=0, le=1)
    detections: PositiveInt = 50
    merge_depths: bool = True
    points: Literal["dbtex", "low"] = "dbtex"


class Detection(Task[DetectionRecipe]):
    """Lesion detection, scored by the official rule of the DBTex challenges."""

    recipe_class = DetectionRecipe
    version = 4
    metrics = METRICS
    seeds = 5
    references = REFERENCES
    arms = (
        "real",
        *REFERENCES,
        "classic",
        "AUG",
        "AUG:shuffled-boxes",
        "AUG:normals-only",
        "classic+AUG",
        "more-real:0.1",
        "more-real:0.25",
        "more-real:0.5",
        "more-real",
    )

    def __init__(self, recipe: DetectionRecipe) -> None:
        super().__init__(recipe)
        self.primary = PRIMARY[recipe.points]

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Train on the arm's volumes, unless it is a reference, detect in the test split, score.

        Args:
            arm: the data; what is trained on and the test split need lesions with boxes.
            seed: seed of the weights and of the data order, neither of which depends on the arm.
            run: takes the detector's weights and the training's state and metrics.

        Raises:
            DivergedError: when training diverges.
            MissingError: when the training or the test split has no boxes.
            UsageError: when the detector cannot take the grid, or synthetic data are on another.
        """
        return self.score(arm, seed, self.detect(arm.real.select("test"), arm, seed, run))

    def detect(self, volumes: DBTDataset, arm: Arm, seed: int, run: Run) -> pd.DataFrame:
        """Train on the arm's volumes, unless it is a reference, and find lesions in volumes.

        Raises:
            DivergedError: see `evaluate`.
            MissingError: see `evaluate`.
            UsageError: see `evaluate`.
        """
        from .training import predict  # torch and MONAI take seconds to import, and scores need neither

        return predict(arm, volumes, seed, self.recipe, run)

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Score predictions (DBTex columns) by the DBTex rule, and the areas under AFROC and wAFROC.

        Raises:
            MissingError: without predictions.
        """
        if predictions is None:
            raise MissingError("the run keeps no predictions", "evaluate again with --fresh")
        test = arm.real.select("test")
        found = (test.cases, test.boxes, predictions, froc.match_distances(test))
        counts = {
            "patients": int(test.cases["PatientID"].nunique()),
            "volumes": len(test),
            "boxes": len(test.boxes),
        }
        outcomes = froc.outcomes(*found)
        low = froc.mean_sensitivity(outcomes, np.ones((1, len(patients(outcomes)))), froc.FPS_LOW)
        scores = froc.score_dbtex(*found) | {"mean_sensitivity_low": float(low[0])} | score_afroc(*found)
        return Evaluation(scores, counts, predictions, {"outcomes": outcomes})
