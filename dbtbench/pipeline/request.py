"""Requests for synthetic data sets: what one `dbtbench generate` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Generator
from dbtbench.layouts import Places
from dbtbench.pipeline import generate
from dbtbench.pipeline.keeping import Filter
from dbtbench.workspace import Workspace


@dataclass(frozen=True)
class GenerationRequest:
    """A synthetic data set that is asked for.

    Attributes:
        generator: the generator's name.
        data: the real data set.
        recipe: which of the generator's recipes.
        settings: `key: text` settings over the recipe.
        n: how many volumes are drawn; see `generate.plan`.
        seed: seed of the layouts and of what is drawn.
        positives: see `generate.plan`.
        keep: what is kept of what is drawn, so that there are `n` in the end; all when None.
        places: see `generate.plan`.
    """

    generator: str
    data: DBTDataset
    recipe: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    n: int | None = None
    seed: int = 0
    positives: float = 0.5
    keep: Filter | None = None
    places: Places = "known"

    def configure(self) -> Generator[Any]:
        """Make the generator, and see whether its recipe goes with the data set's grid.

        Raises:
            DBTBenchError: when the generator's own code fails.
            MissingError: for an unknown generator, or one that cannot be loaded.
            UsageError: for an unknown key, a wrong value, or a grid that it cannot draw on.
        """
        generator = generate.configure(self.generator, self.recipe, self.settings)
        with plugins.blame("generators", self.generator):
            generator.check(self.data.grid)
        return generator

    def check(self) -> list[Generator[Any]]:
        """See whether the request can be met, before anything is trained.

        Returns:
            The generator, as a list of one: a sweep has several.

        Raises:
            MissingError: see `configure`.
            UsageError: see `configure`, `generate.plan` and `Filter.configure`; also for a filter where
                nothing that is drawn has lesions.
        """
        generator = self.configure()
        if self.keep:
            self.keep.configure()
            if not generator.follows_boxes or self.positives == 0:
                raise UsageError("--keep filters by lesions, and none are drawn", "leave it out")
        generate.plan(generator, self.data, self._count_drawn(), self.seed, self.positives, self.places)
        return [generator]

    def _count_kept(self) -> int:
        return len(self.data.select("train")) if self.n is None else self.n

    def _count_drawn(self) -> int:
        return self.keep.count_drawn(self._count_kept()) if self.keep else self._count_kept()

    def run(
        self, workspace: Workspace, fresh: bool = False, refit: bool | None = None, name: str | None = None
    ) -> DBTDataset:
        """Fit the generator, draw the data set and filter it; what an earlier call did is found again.

        Under torchrun every process calls this.

        Args:
            workspace: where runs and data sets are kept.
            fresh: draw again even when it was done.
            refit: fit again even when it was done; as `fresh` when None.
            name: of the data set; see `generate.draw`. What is filtered is drawn under the name that it has
                without one.
        """
        fitted = generate.fit(
            workspace,
            self.generator,
            self.data,
            self.recipe,
            self.settings,
            fresh if refit is None else refit,
        )
        drawn = generate.draw(
            workspace,
            fitted,
            self._count_drawn(),
            self.seed,
            self.positives,
            fresh,
            None if self.keep else name,
            self.places,
        )
        if self.keep is None:
            return drawn
        return self.keep.run(workspace, drawn, self.data, self._count_kept(), fresh, name)
