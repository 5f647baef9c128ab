"""Generators that learn against a critic: a plug-in gives its name, its recipe and its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dbtbench.adversarial.recipe import PLANE_FACTOR, AdversarialRecipe
from dbtbench.networks.names import check_plane
from dbtbench.runs import Run
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning


class AdversarialGenerator(LearnedGenerator[AdversarialRecipe]):
    """A generator that learns against a critic, and starts as the closed-form model."""

    version: ClassVar[int] = 2

    def check(self, grid: tuple[int, int, int]) -> None:
        """Check that the networks can halve rows and columns.

        Raises:
            UsageError: when one of them is not a multiple of what they need.
        """
        check_plane(grid, PLANE_FACTOR, "import the data on another grid")

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the generator and its critic."""
        from dbtbench.adversarial.training import train_generator

        return train_generator(self.recipe, data, run.path, self.make_preview(data.split))

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch, in one pass through the network."""
        from dbtbench.adversarial.training import draw_volumes

        return draw_volumes(self.model, conditioning, noise)
