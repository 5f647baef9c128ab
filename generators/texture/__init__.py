"""Closed-form control: mean volume, principal components, residual noise and a lesion bump.

Nothing is trained. The model (`dbtbench/closed_form`) is the one that learned generators start from, so a row
of this generator on a board says what each of them is worth before its training. See docs/texture.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.recipe import Recipe
from dbtbench.runs import Run

WEIGHTS = "weights.safetensors"


class TextureRecipe(Recipe):
    """Settings.

    Attributes:
        components: principal components; 0 for none. At most half as many as there are training volumes,
            because noise is measured on what the components leave.
    """

    components: int = Field(default=64, ge=0)


class Texture(Generator[TextureRecipe]):
    """Draws from mean, principal components and residual noise of the training volumes."""

    recipe_class = TextureRecipe
    learned = False

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Compute the statistics, or load what a finished run has.

        Raises:
            UsageError: for fewer than two training volumes.
        """
        from dbtbench.closed_form.fitting import fit_closed_form
        from dbtbench.closed_form.model import ClosedForm

        file = run.path / WEIGHTS
        if not run.finished:
            fit_closed_form(train, self.recipe.components).save(file)
        self.model = ClosedForm.load(file)

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, by itself, so that no other layout can change its bytes."""
        for layout in layouts:
            yield Sample(self.model.draw(layout.view, layout.boxes, layout.seed), layout.boxes)
