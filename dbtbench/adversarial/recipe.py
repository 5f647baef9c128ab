"""The settings of adversarial generators; this file imports no torch, so that recipes are cheap to show."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dbtbench.training.learned import LearnedRecipe
from dbtbench.training.recipe import Schedule

UNSHUFFLE = 2
"""Factor of the pixel-unshuffle of every slice, before the finest scale."""
CHANNEL_MULTIPLES = (1, 2, 4)
"""Channels of the scales, in units of `width`; each has half the rows and columns of the one before."""
PLANE_FACTOR = UNSHUFFLE * 2 ** (len(CHANNEL_MULTIPLES) - 1)
"""Rows and columns must be a multiple of it."""


class AdversarialRecipe(LearnedRecipe):
    """Settings of an adversarial generator. The defaults are sized for one 80 GB GPU and were not run by us.

    Attributes:
        loss: `relativistic`, the pairing loss of R3GAN, or `evolve`: at every step the fittest of three
            mutations of the generator stays.
        diversity_weight: weight of diversity in the fitness, for `evolve`.
        critic_lr: constant learning rate of the critic; `lr` and `schedule` are the generator's, which waits
            in the beginning until the critic has something to say.
        penalty: weight of both slope penalties at the beginning; it falls to a tenth.
        anchor: weight of the mean squared change of the draft's coarse means, in the generator's loss.
        patch: rows and columns of the random patches that both networks are trained on.
        augment: the critic sees volumes of random contrast, real and drawn; for fewer than thousands.
        components: principal components that the generator starts from, which are its code; at most half as
            many as there are training volumes.
        width: channels at half the rows and columns; each of the two coarser scales has twice as many as the
            one before.
        blocks: residual blocks of each scale.
    """

    synonyms: ClassVar[dict[str, str]] = {
        **LearnedRecipe.synonyms,
        **dict.fromkeys(["latent", "latent_dim", "latent_size", "z_dim", "code"], "components"),
        **dict.fromkeys(["r1", "r1_gamma", "gradient_penalty"], "penalty"),
        **dict.fromkeys(["channels", "base_channels"], "width"),
        **dict.fromkeys(["d_lr", "discriminator_lr"], "critic_lr"),
        **dict.fromkeys(["patch_size", "crop"], "patch"),
        "diffaug": "augment",
    }
    steps: PositiveInt = 10000
    batch: PositiveInt = 64
    micro_batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    schedule: Schedule = "one-cycle"
    loss: Literal["relativistic", "evolve"] = "relativistic"
    diversity_weight: float = Field(default=0.05, ge=0)
    critic_lr: PositiveFloat = 1e-3
    penalty: float = Field(default=0.01, ge=0)
    anchor: float = Field(default=2.0, ge=0)
    patch: PositiveInt = Field(default=64, multiple_of=PLANE_FACTOR)
    augment: bool = True
    components: PositiveInt = 128
    width: PositiveInt = 32
    blocks: PositiveInt = 2
