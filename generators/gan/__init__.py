"""Generative adversarial network of DBT volumes, conditioned on label, view and lesion boxes.

The pairing loss and the penalties are those of R3GAN (Huang et al., arXiv 2501.05441), with slopes measured
by differences (Lin et al., arXiv 2501.08316), and residual networks without normalisation. The critic
compares label and projection by a projection head (Miyato & Koyama, arXiv 1802.05637), sees the lesion mask
at every scale, and is given patches of random contrast (DiffAugment, Zhao et al., arXiv 2006.10738). The
generator corrects a draw from the closed-form model (`dbtbench/closed_form`). See docs/gan.md.
"""

from __future__ import annotations

from dbtbench.adversarial.generator import AdversarialGenerator
from dbtbench.adversarial.recipe import AdversarialRecipe


class GAN(AdversarialGenerator):
    """Network that corrects a closed-form draw until a critic takes it for real."""

    recipe_class = AdversarialRecipe
