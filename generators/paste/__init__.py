"""Copy-paste of training lesions into lesion-free training volumes of other patients.

A lesion's signal is its patch through all slices less a plane fitted to the tissue around it. It is turned,
flipped, scaled and added to the layout's host at the wanted place, or the nearest one where a lesion can lie.
The recipe `placebo` pastes patches of normal tissue at the same places. See docs/paste.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator, Field

from dbtbench.data.columns import LABELS
from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes, projection
from dbtbench.recipe import Recipe
from dbtbench.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dbtbench.lesions.library import Lesion


def _check_gain(gain: tuple[float, float]) -> tuple[float, float]:
    if not 0 < gain[0] <= gain[1]:
        raise ValueError("wanted: 0 < smallest ≤ largest")
    return gain


class PasteRecipe(Recipe):
    """Settings; none changes what is fitted but `placebo` and `margin`.

    Attributes:
        gain: smallest and largest factor of a lesion's signal.
        scale: largest change of a lesion's size in the plane towards the wanted one, as a fraction.
        margin: width of the feather in half-axes of the lesion's box: the signal is whole inside the box's
            ellipse, and 0 from 1 + margin on.
        placebo: whether patches of normal tissue are pasted in place of lesions, without boxes.
    """

    sampling_only = frozenset({"gain", "scale"})

    gain: Annotated[tuple[float, float], AfterValidator(_check_gain)] = Field(default=(0.8, 1.25))
    scale: float = Field(default=0.2, ge=0, lt=0.5)
    margin: float = Field(default=1.0, gt=0, le=2)
    placebo: bool = Field(default=False)


class Paste(Generator[PasteRecipe]):
    """Adds training lesions to lesion-free training volumes of other patients."""

    recipe_class = PasteRecipe
    derived = True
    learned = False

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Cut the lesions out of the training split; nothing is learned.

        Raises:
            UsageError: when a layout would have no host, or no training lesion can be pasted.
        """
        from dbtbench.lesions.library import Library

        self.library = Library.cut(train, "paste", self.recipe.margin)
        if self.recipe.placebo:
            from .placebo import replace_by_normal

            numbers = range(len(self.library.lesions))
            self.library.lesions = [
                replace_by_normal(self.library, number, self.recipe.margin) for number in numbers
            ]

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Paste one lesion for each box of each layout.

        A layout without boxes gets its host as it is. A lesion that has no place in the host is left out;
        a sample without lesions, and the placebo's, are normal.

        Raises:
            UsageError: for a layout without a host.
        """
        for layout in layouts:
            yield self._paste(layout)

    def _paste(self, layout: Layout) -> Sample:
        from dbtbench.lesions.insertion import insert_lesion

        rng, grid = np.random.default_rng(layout.seed), self.library.grid
        right, kind = laterality(layout.view) == "r", projection(layout.view)
        host = self.library.hosts.read_host(layout)
        wanted = mirror_boxes(layout.boxes, grid[2]) if right else layout.boxes
        pasted: list[tuple[Lesion, NDArray[np.float32]]] = []
        for box in wanted:
            found = insert_lesion(self.library, host, box, kind, rng, self.recipe.gain, self.recipe.scale)
            pasted += [found] if found else []
        volume = np.ascontiguousarray(host.volume[..., ::-1]) if right else host.volume
        if not pasted or self.recipe.placebo:
            return Sample(volume, np.zeros((0, 6), np.float32), "normal")
        boxes: Boxes = np.stack([box for _, box in pasted])
        label = max((lesion.label for lesion, _ in pasted), key=LABELS.index)
        return Sample(
            volume, mirror_boxes(boxes, grid[2]) if right else boxes, None if label == "normal" else label
        )
