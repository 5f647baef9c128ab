"""The rules of generators, checked by letting one draw toy volumes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.leakage import CopyFinder, check_copies
from dbtbench.errors import UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.layouts import draw_layouts
from dbtbench.pipeline import generate
from dbtbench.pipeline.generate import Fitted
from dbtbench.pipeline.samples import draw_samples
from dbtbench.testing.losses import check_losses
from dbtbench.testing.rules import CONTRACT, CheckFailed, RuleBook, Subject, disturb_random_state
from dbtbench.testing.toy import copy_with_changes, make_toy_dataset
from dbtbench.workspace import Workspace

GRID, ODD_GRID = (8, 32, 32), (5, 40, 24)
DRAWN = 6
KILLED_AFTER = 3
GRID_IN_TEXT = re.compile(r"(?:(\d+)\s*[x×]\s*)?(\d+)\s*[x×]\s*(\d+)|(\d+) slices")


@dataclass(frozen=True)
class WatchedDataset(DBTDataset):
    """A data set that notes when other cases than those of its training split are read.

    Attributes:
        whole: the data set itself, all splits.
        seen: what was noted.
    """

    whole: DBTDataset = field(kw_only=True)
    seen: list[str] = field(kw_only=True)

    @classmethod
    def watch(cls, data: DBTDataset) -> WatchedDataset:
        """Watch a data set."""
        return cls(data.path, data.meta, data.cases, data.boxes, whole=data, seen=[])

    def volumes(self, cases: Any = None) -> Volume:
        """Read volumes, and note those of other splits."""
        wanted = [int(case) for case in (self.cases["case"] if cases is None else cases)]
        self._note(wanted)
        return self.whole.volumes(wanted)

    def boxes_of(self, case: int) -> Boxes:
        """Give a case's boxes, and note one of another split."""
        self._note([case])
        return self.whole.boxes_of(case)

    def _note(self, cases: Sequence[int]) -> None:
        split_of = dict(zip(self.whole.cases["case"], self.whole.cases["split"], strict=True))
        others = [case for case in cases if split_of[case] != "train"]
        self.seen.extend(f"reads case {case} of the split {split_of[case]}" for case in others)

    @contextmanager
    def note_opening(self) -> Iterator[None]:
        """Note when a data set of this folder is opened."""
        original = DBTDataset.open.__func__  # type: ignore[attr-defined]

        def open_noted(cls: type[DBTDataset], path: str | Path) -> DBTDataset:
            if Path(path).resolve() == self.path.resolve():
                self.seen.append("opens the whole data set again")
            opened: DBTDataset = original(cls, path)
            return opened

        with patch.object(DBTDataset, "open", classmethod(open_noted)):
            yield


class GeneratorBench:
    """A generator at work on toy data.

    Args:
        generator: its name, or its class.
        folder: takes data sets and runs; empty.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.
        name: of a class, in errors.
    """

    def __init__(
        self,
        generator: str | type[Generator[Any]],
        folder: Path,
        recipe_name: str | None = None,
        settings: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.subject = Subject.find("generators", generator, recipe_name, settings, name)
        self.name, self.folder = self.subject.name, folder

    def configure(self) -> Generator[Any]:
        """Make a new generator, not yet fitted."""
        generator: Generator[Any] = self.subject.configure()
        return generator

    def fit(self, data: DBTDataset, place: str) -> Fitted:
        """Fit a new generator, or load what was fitted to these data at this place."""
        return generate.fit_configured(Workspace(self.folder / place), self.name, self.configure(), data)

    def draw(self, layouts: Sequence[Layout], fitted: Fitted | None = None) -> list[Sample]:
        """Draw checked samples; by the generator that all rules share when no other is given."""
        chosen = fitted or self.fitted
        with self.data.note_opening():
            return list(draw_samples(chosen.generator, self.name, layouts, chosen.data.grid))

    @cached_property
    def data(self) -> WatchedDataset:
        """The toy data set, on a grid that the generator takes."""
        grid = find_grid(self.configure(), GRID)
        return WatchedDataset.watch(make_toy_dataset(self.folder / "datasets" / "toy", grid=grid))

    @cached_property
    def fitted(self) -> Fitted:
        """The fitted generator that all rules share."""
        with self.data.note_opening():
            return self.fit(self.data, "work")

    @cached_property
    def layouts(self) -> list[Layout]:
        """Layouts with and without lesions; for a generator that cannot follow boxes, without."""
        return draw_layouts(
            self.data.whole.select("train"), DRAWN, 0, 0.5 if self.fitted.generator.follows_boxes else 0.0
        )

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples of `layouts`."""
        return self.draw(self.layouts)


def find_grid(generator: Generator[Any], wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """Give the wanted grid, or the one that the generator names when it refuses that.

    Raises:
        CheckFailed: when its error names no grid, or one that it refuses too.
    """
    advice = "let check() raise a UsageError whose hint names a grid that works, such as `8 x 32 x 32`"
    grid = wanted
    for _ in range(3):  # rows and columns, and slices, may be refused one after the other
        try:
            generator.check(grid)
        except UsageError as error:
            found = GRID_IN_TEXT.search(error.hint)
            if found is None:
                raise CheckFailed(
                    f"it refuses the grid {grid} and names none that works: {error}", advice
                ) from error
            depth, rows, columns, slices = (int(text) if text else None for text in found.groups())
            refused, grid = grid, (depth or slices or grid[0], rows or grid[1], columns or grid[2])
            if refused == grid:
                raise CheckFailed(f"it refuses the grid {grid}, which its own hint names", advice) from error
        else:
            return grid
    raise CheckFailed(f"it refuses the grid {grid}, which its own hint names", advice)


def check_contract(bench: GeneratorBench) -> None:
    """Check what the class declares, and that each sample passes the gate to the store."""
    bench.subject.check_declarations()
    for name in ("follows_boxes", "derived", "learned"):
        if not isinstance(getattr(bench.fitted.generator, name), bool):
            raise CheckFailed(f"{name} is neither True nor False", "give one of the two")
    assert len(bench.samples) == DRAWN


def check_purity(bench: GeneratorBench) -> None:
    """Check that a sample depends on its layout alone: not on order, batch, or global random numbers."""
    layouts = bench.layouts
    ways: dict[str, Callable[[], list[Sample]]] = {
        "drawn again": lambda: bench.draw(layouts),
        "drawn in reverse order": lambda: bench.draw(layouts[::-1])[::-1],
        "drawn alone": lambda: [sample for layout in layouts for sample in bench.draw([layout])],
        "drawn in two parts": lambda: bench.draw(layouts[:2]) + bench.draw(layouts[2:]),
    }
    expected = bench.samples
    for way, draw in ways.items():
        disturb_random_state()
        for layout, one, other in zip(layouts, expected, draw(), strict=True):
            if not _same(one, other):
                raise CheckFailed(
                    f"sample {layout.index} is another when {way}",
                    "draw every random number from a generator seeded with layout.seed, and let no volume of "
                    "a batch act on another",
                )


def check_resume(bench: GeneratorBench) -> None:
    """Check that a drawing that was killed continues to the same bytes, with a generator loaded again."""
    fitted = replace(bench.fitted, data=bench.data.whole)
    whole = generate.draw(Workspace(bench.folder / "whole"), fitted, DRAWN)
    killed = Workspace(bench.folder / "killed")
    with suppress(KeyboardInterrupt):
        generate.draw(killed, replace(fitted, generator=_Killed(fitted.generator)), DRAWN)
    loaded = bench.fit(bench.data.whole, "work")
    if generate.draw(killed, loaded, DRAWN).fingerprint != whole.fingerprint:
        raise CheckFailed(
            "a drawing that was killed and continued by a generator loaded again gives other bytes",
            "keep all that sampling needs in run.path, and load it when run.finished",
        )


def check_boxes(bench: GeneratorBench) -> str | None:
    """Check that a generator that says it follows boxes gives boxes, and that its volumes depend on them."""
    if not bench.fitted.generator.follows_boxes:
        return "it does not claim to follow boxes"
    layouts = draw_layouts(bench.data.whole.select("train"), 3, 1, 1.0)
    samples = bench.draw(layouts)
    if not any(len(sample.boxes) for sample in samples):
        raise CheckFailed(
            "it says that it follows boxes, and gives none for layouts with lesions",
            "return the boxes that are in the volume, or set follows_boxes = False",
        )
    moved = [replace(layout, boxes=_move(layout.boxes, bench.data.grid)) for layout in layouts]
    for layout, other, one, two in zip(layouts, moved, samples, bench.draw(moved), strict=True):
        as_asked = one.boxes.shape == layout.boxes.shape and np.allclose(one.boxes, layout.boxes, atol=1e-3)
        place = _mask(np.concatenate([layout.boxes, other.boxes]), bench.data.grid)
        if as_asked and np.array_equal(one.volume[place], two.volume[place]):
            raise CheckFailed(
                f"it returns the boxes that layout {layout.index} asks for, and its volume stays the same "
                "when they are asked for elsewhere",
                "put lesions there, return the boxes that are really in it, or set follows_boxes = False",
            )
    return None


def check_training_split(bench: GeneratorBench) -> str | None:
    """Check that no patient outside the training split is seen, and no training volume repeated."""
    samples = bench.samples
    if bench.data.seen:
        raise CheckFailed(f"it {bench.data.seen[0]}", "use `train` as fit() gets it, and nothing else")
    data = bench.data.whole
    finder = CopyFinder(data)
    copies = [
        finder.find(layout.index, sample.volume)
        for layout, sample in zip(bench.layouts, samples, strict=True)
    ]
    check_copies(bench.name, filter(None, copies), bench.fitted.generator.derived)
    others = set(data.cases.loc[data.cases["split"] != "train", "PatientID"])
    changed = copy_with_changes(data, bench.folder / "changed" / data.path.name, others)
    found = bench.draw(bench.layouts, bench.fit(changed, "changed-work"))
    if all(map(_same, samples, found)):
        return None
    again = bench.draw(bench.layouts, bench.fit(data, "again"))
    if all(map(_same, samples, again)):
        raise CheckFailed(
            "it draws other volumes when only patients outside the training split are changed",
            "use `train` as fit() gets it, and nothing else",
        )
    return "two trainings differ, so that only the reading of other patients was watched"


def check_odd_grid(bench: GeneratorBench) -> str | None:
    """Check that a grid without round numbers works, or is refused with one that does."""
    grid = find_grid(bench.configure(), ODD_GRID)
    data = make_toy_dataset(bench.folder / "odd" / "toy", grid=grid)
    fitted = bench.fit(data, "odd-work")
    bench.draw(
        draw_layouts(data.select("train"), 2, 0, 0.5 if fitted.generator.follows_boxes else 0.0), fitted
    )
    return None if grid == ODD_GRID else f"{ODD_GRID} is refused, {grid} works"


RULES = RuleBook[GeneratorBench](
    {
        CONTRACT: check_contract,
        "purity": check_purity,
        "resume": check_resume,
        "boxes": check_boxes,
        "losses": lambda bench: check_losses(bench.name, bench.fitted.generator, bench.data.whole),
        "training-split": check_training_split,
        "odd-grid": check_odd_grid,
    }
)


def check_generator(
    generator: str | type[Generator[Any]],
    folder: str | Path,
    recipe_name: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Check a generator by every rule.

    Args:
        generator: its name, or its class.
        folder: takes data sets and runs; empty.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.

    Raises:
        CheckFailed: for the first rule that it breaks.
    """
    RULES.check_all(GeneratorBench(generator, Path(folder), recipe_name, settings))


class _Killed(Generator[Any]):
    """A fitted generator that Ctrl-C ends after some samples."""

    def __init__(self, generator: Generator[Any]) -> None:
        super().__init__(generator.recipe)
        self.generator = generator

    @property
    def follows_boxes(self) -> bool:
        return self.generator.follows_boxes

    def fit(self, train: DBTDataset, run: Any) -> None:
        raise NotImplementedError

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for number, sample in enumerate(self.generator.sample(layouts)):
            if number == KILLED_AFTER:
                raise KeyboardInterrupt
            yield sample


def _same(one: Sample, other: Sample) -> bool:
    return (
        np.array_equal(one.volume, other.volume)
        and np.array_equal(one.boxes, other.boxes)
        and one.label == other.label
    )


def _move(boxes: Boxes, grid: tuple[int, int, int]) -> Boxes:
    """Boxes at the other end of the rows."""
    moved = boxes.copy()
    for box in moved:
        size = box[4] - box[1]
        box[1] = 0 if box[1] + box[4] > grid[1] else grid[1] - size
        box[4] = box[1] + size
    return moved


def _mask(boxes: Boxes, grid: tuple[int, int, int]) -> Any:
    """The voxels that boxes touch, (D, H, W) bool."""
    mask = np.zeros(grid, bool)
    for z0, y0, x0, z1, y1, x1 in np.concatenate([np.floor(boxes[:, :3]), np.ceil(boxes[:, 3:])], 1).astype(
        int
    ):
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask
