"""The settings that every training has; this file imports no torch, so that recipes are cheap to show."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from dbtbench.errors import UsageError
from dbtbench.recipe import Recipe

Schedule = Literal["linear", "constant", "one-cycle"]


class TrainingRecipe(Recipe):
    """Settings of a training; the recipe of whatever learns inherits them and gives its own defaults.

    Attributes:
        steps: optimiser steps: a number, never a time, so that the result does not depend on the machine.
        batch: volumes a step, over all processes.
        micro_batch: most volumes that a process holds at once; what is more is accumulated.
        lr: peak learning rate of AdamW.
        schedule: `linear` decays to 0; `constant` does not; `one-cycle` rises for 30 % of the steps and falls
            (Smith & Topin, arXiv 1708.07120).
        warmup: steps over which `linear` and `constant` rise first.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the weights' moving average, which is the result; 0 gives the last weights.
    """

    synonyms: ClassVar[dict[str, str]] = {
        **dict.fromkeys(["epochs", "iterations", "max_steps"], "steps"),
        **dict.fromkeys(["batch_size", "global_batch_size"], "batch"),
        **dict.fromkeys(["micro_batch_size", "gradient_accumulation"], "micro_batch"),
        **dict.fromkeys(["learning_rate", "step_size"], "lr"),
        **dict.fromkeys(["lr_schedule", "scheduler"], "schedule"),
        **dict.fromkeys(["gradient_clipping", "clip_grad_norm", "max_norm"], "clip"),
        **dict.fromkeys(["moving_average", "ema_decay"], "ema"),
        "l2_penalty": "weight_decay",
    }

    steps: PositiveInt
    batch: PositiveInt
    micro_batch: PositiveInt = 16
    lr: PositiveFloat
    schedule: Schedule = "linear"
    warmup: NonNegativeInt = 0
    weight_decay: float = Field(default=0.0, ge=0)
    clip: PositiveFloat = 1.0
    ema: float = Field(default=0.999, ge=0, lt=1)

    def divide_batch(self, processes: int) -> int:
        """Divide the global batch among processes; gives the volumes of each.

        Raises:
            UsageError: when they cannot have the same number of volumes each.
        """
        volumes, rest = divmod(self.batch, processes)
        if rest:
            raise UsageError(
                f"a batch of {self.batch} cannot be divided among {processes} processes",
                f"--set batch={max(volumes, 1) * processes}, or another number of processes",
            )
        return volumes


class ArmRecipe(TrainingRecipe):
    """Settings of a training on an arm's volumes (`dbtbench.training.batches`).

    Attributes:
        positive_share: share of a batch's volumes with lesions.
        synthetic_share: share of what an arm adds to the real volumes.
        augment: whether every volume, real or synthetic, is flipped, moved and shaded, each time otherwise
            (`dbtbench.training.augment`); without, which is an ablation, any change of the data "gains".
    """

    positive_share: float = Field(default=0.5, gt=0, le=1)
    synthetic_share: float = Field(default=0.5, gt=0, le=1)
    augment: bool = True
