"""The settings of adversarial generators; this file imports no torch, so that recipes are cheap to show."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from dbtbench.training.learned import LearnedRecipe

CHANNEL_MULTIPLES = (1, 2, 4, 8)
"""Channels of the scales, in units of `width`; each has half the rows and columns of the one before."""
PLANE_FACTOR = 2 ** (len(CHANNEL_MULTIPLES) - 1)
"""Rows and columns must be a multiple of it."""


class AdversarialRecipe(LearnedRecipe):
    """Settings of an adversarial generator. The defaults are sized for one 80 GB GPU and were not run by us.

    Attributes:
        loss: `relativistic`, the pairing loss of R3GAN, or `evolve`: at every step the fittest of three
            mutations of the generator stays.
        diversity_weight: weight of diversity in the fitness, for `evolve`.
        penalty: weight of both gradient penalties at the beginning; it falls to a tenth.
        augment: the critic sees moved, cut and rescaled volumes, real and drawn; for fewer than thousands.
        components: principal components that the generator starts from, which are its code; at most half as
            many as there are training volumes.
        width: channels at full resolution; each of the three coarser scales has twice as many as the one
            before.
        blocks: residual blocks of each scale.
    """

    synonyms: ClassVar[dict[str, str]] = {
        **LearnedRecipe.synonyms,
        **dict.fromkeys(["latent", "latent_dim", "latent_size", "z_dim", "code"], "components"),
        **dict.fromkeys(["r1", "r1_gamma", "gradient_penalty"], "penalty"),
        **dict.fromkeys(["channels", "base_channels"], "width"),
        "diffaug": "augment",
    }
    steps: PositiveInt = 10000
    batch: PositiveInt = 64
    micro_batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    warmup: NonNegativeInt = 200
    loss: Literal["relativistic", "evolve"] = "relativistic"
    diversity_weight: float = Field(default=0.05, ge=0)
    penalty: float = Field(default=1.0, ge=0)
    augment: bool = True
    components: PositiveInt = 128
    width: PositiveInt = 32
    blocks: PositiveInt = 2
