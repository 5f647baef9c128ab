"""Evolutionary GAN of DBT volumes, after Wang et al. 2019: mutations compete, the fittest generator stays.

The networks are those of `gan`. At every step the generator is changed by three losses, minimax, heuristic
and least squares, each by one optimiser step on the same random numbers. The child with the largest fitness,
quality + gamma · diversity, is the next generator (E-GAN, arXiv 1803.00657). It is built in the spirit of
the paper's reference on evolutionary GANs (Staffa et al., CCGrid 2022), whose text was not at hand: it does
not reproduce that work. See docs/gan.md.
"""

from __future__ import annotations

from typing import Literal

from dbtbench.adversarial.generator import AdversarialGenerator
from dbtbench.adversarial.recipe import AdversarialRecipe


class EvolutionaryGANRecipe(AdversarialRecipe):
    """Settings of the evolutionary GAN: those of `gan`, with `loss = "evolve"` by default."""

    loss: Literal["relativistic", "evolve"] = "evolve"


class EvolutionaryGAN(AdversarialGenerator):
    """Network that corrects a closed-form draw; of three mutations the fittest stays."""

    recipe_class = EvolutionaryGANRecipe
