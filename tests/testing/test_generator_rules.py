"""The rules of generators: each is seen to fail on generators that break it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.testing import CheckFailed, check_generator
from dbtbench.testing.generators import RULES, GeneratorBench
from dbtbench.testing.rules import Verdict
from dbtbench.testing.suites import GeneratorSuite

SETTINGS: dict[str, dict[str, str]] = {"ddpm": {"steps": "2"}}


class Spots(Generator[Recipe]):
    """Noise around the training volumes' mean, with bright boxes: keeps every rule."""

    recipe_class = Recipe

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.grid = train.grid
        file = run.path / "mean.txt"
        if not run.finished:
            file.write_text(str(self.learn(train)), encoding="utf-8")
        self.mean = float(file.read_text(encoding="utf-8"))

    def learn(self, train: DBTDataset) -> float:
        return float(train.volumes().mean())

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for layout in layouts:
            yield Sample(self.draw(layout), layout.boxes)

    def draw(self, layout: Layout) -> Any:
        volume = self.mean + 0.1 * np.random.default_rng(layout.seed).random(self.grid)
        for z0, y0, x0, z1, y1, x1 in layout.boxes.astype(int):
            volume[z0:z1, y0:y1, x0:x1] += 0.2
        return volume


class TestSpots(GeneratorSuite):
    plugin = Spots


class NoVersion(Spots):
    """Has version 0."""

    version = 0


class Nameless(Spots):
    pass


class NotANumber(Spots):
    """Gives NaN."""

    def draw(self, layout: Layout) -> Any:
        return np.nan * super().draw(layout)


class Fails(Spots):
    """Raises while it is fitted."""

    def learn(self, train: DBTDataset) -> float:
        raise ValueError("no weights")


class GlobalRandom(Spots):
    """Uses the global random numbers."""

    def draw(self, layout: Layout) -> Any:
        return super().draw(layout) + 0.1 * np.random.random()  # noqa: NPY002


class Counting(Spots):
    """Depends on how many it drew before."""

    drawn = 0

    def draw(self, layout: Layout) -> Any:
        self.drawn += 1
        return super().draw(layout) + 0.01 * (self.drawn % 6)


class OfBatch(Spots):
    """Centres a batch's volumes together, as batch normalisation does."""

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        volumes = np.stack([self.draw(layout) for layout in layouts])
        volumes = np.clip(volumes - volumes.mean() + 0.4, 0, 1)
        yield from (Sample(v, layout.boxes) for v, layout in zip(volumes, layouts, strict=True))


class Forgetful(Spots):
    """Keeps nothing of what it learned."""

    fitted = 0

    def fit(self, train: DBTDataset, run: Run) -> None:
        type(self).fitted += 1
        self.grid = train.grid
        self.mean = 0.1 * (self.fitted % 5)


class Liar(Spots):
    """Returns the boxes that it is asked for, wherever its spots are."""

    def draw(self, layout: Layout) -> Any:
        return super().draw(Layout(0, layout.seed, "normal", "lcc", np.zeros((0, 6), np.float32), 0))


class Mute(Spots):
    """Says that it follows boxes, and never gives any."""

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for layout in layouts:
            yield Sample(self.draw(layout), np.zeros((0, 6), np.float32))


class ReadsOtherCases(Spots):
    """Asks the training split for cases of others."""

    def learn(self, train: DBTDataset) -> float:
        return float(train.volumes(range(32)).mean())


class ReadsOtherBoxes(Spots):
    """Asks for the boxes of the last patients."""

    def learn(self, train: DBTDataset) -> float:
        return 0.1 + 0.01 * len(train.boxes_of(31))


class OpensAgain(Spots):
    """Opens the data set that the training split is of."""

    def learn(self, train: DBTDataset) -> float:
        return 0.1 + 0.001 * len(DBTDataset.open(train.path))


class ReadsTheStore(Spots):
    """Reads all volumes behind the data set's back."""

    def learn(self, train: DBTDataset) -> float:
        return float(np.asarray(zarr.open_array(train.path / "volumes.zarr", mode="r")[:]).mean() / 65535)


class ReadsTheTables(Spots):
    """Reads all boxes behind the data set's back."""

    def learn(self, train: DBTDataset) -> float:
        return float(pd.read_csv(train.path / "boxes.csv")["y0"].mean() / 100)


class OneSize(Spots):
    """Draws on one grid, whatever the data's."""

    def fit(self, train: DBTDataset, run: Run) -> None:
        super().fit(train, run)
        self.grid = (8, 32, 32)


class Silent(Spots):
    """Refuses rows that are no multiple of 16, and names none that are."""

    hint = "use another"

    def check(self, grid: tuple[int, int, int]) -> None:
        if grid[1] % 16 or grid[2] % 16:
            raise UsageError("16 does not divide the grid", self.hint)


class WrongHint(Silent):
    """Names a grid that it refuses."""

    hint = "import on a grid of 40 x 24"


class Picky(Silent):
    """Names a grid that works."""

    hint = "import on a grid of 48 x 32"


class WithoutLesions(Spots):
    """Cannot follow boxes."""

    follows_boxes = False


class Unseeded(Spots):
    """Learns something else each time."""

    def learn(self, train: DBTDataset) -> float:
        return float(np.random.default_rng().random() / 2)


SILENT = {"losses": "it does not claim to score volumes"}
UNWATCHED = "two trainings differ, so that only the reading of other patients was watched"


class Repeats(Spots):
    """Returns training volumes, mirrored."""

    follows_boxes = False

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.train = train

    def draw(self, layout: Layout) -> Any:
        return self.train.volumes([layout.source])[0, 0][:, :, ::-1]


class RepeatsOpenly(Repeats):
    """Declares that it returns training volumes."""

    derived = True


class Undecided(Spots):
    """Declares `derived` as text."""

    derived = "perhaps"  # type: ignore[assignment]


class HalfLearned(Spots):
    """Declares `learned` as a share."""

    learned = 0.5  # type: ignore[assignment]


def judge(cls: type[Generator[Any]], folder: Path, until: str = "") -> list[Verdict]:
    """The verdicts in order, up to that of a rule."""
    verdicts = []
    for verdict in RULES.judge(GeneratorBench(cls, folder)):
        verdicts.append(verdict)
        if verdict.rule == until:
            break
    return verdicts


@pytest.mark.parametrize(
    ("cls", "rule", "message"),
    [
        (NoVersion, "contract", "its version is 0"),
        (Nameless, "contract", "the class Nameless has no docstring"),
        (NotANumber, "contract", r"generator notanumber, layout 0: .* are NaN"),
        (Fails, "contract", r"generator fails failed at .*: ValueError: no weights"),
        (GlobalRandom, "purity", "sample 0 is another when drawn again"),
        (Counting, "purity", "sample [01] is another when drawn (in reverse order|alone)"),
        (OfBatch, "purity", "sample 0 is another when drawn alone"),
        (Forgetful, "resume", "continued by a generator loaded again gives other bytes"),
        (Liar, "boxes", "its volume stays the same when they are asked for elsewhere"),
        (Mute, "boxes", "gives none for layouts with lesions"),
        (Undecided, "contract", "derived is neither True nor False"),
        (HalfLearned, "contract", "learned is neither True nor False"),
        (Repeats, "training-split", "is not derived, and holds 6 training volumes"),
        (ReadsOtherCases, "training-split", "reads case 16 of the split validation"),
        (ReadsOtherBoxes, "training-split", "reads case 31 of the split test"),
        (OpensAgain, "training-split", "opens the whole data set again"),
        (ReadsTheStore, "training-split", "when only patients outside the training split are changed"),
        (ReadsTheTables, "training-split", "when only patients outside the training split are changed"),
        (OneSize, "odd-grid", r"the volume's shape is \(8, 32, 32\)"),
        (Silent, "odd-grid", "names none that works: 16 does not divide the grid"),
        (WrongHint, "odd-grid", "which its own hint names"),
    ],
)
def test_a_generator_that_breaks_a_rule_fails_that_rule_with_a_sentence(
    cls: type[Generator[Any]], rule: str, message: str, tmp_path: Path
) -> None:
    *others, verdict = judge(cls, tmp_path, until=rule)
    assert verdict.state == "FAILED"
    assert re.search(message, verdict.message), verdict
    assert verdict.hint
    assert {other.state for other in others} <= {"ok"}, others


def test_a_derived_generator_may_repeat_training_volumes(tmp_path: Path) -> None:
    assert judge(RepeatsOpenly, tmp_path, until="training-split")[-1].state == "ok"


def test_without_the_contract_no_other_rule_is_checked(tmp_path: Path) -> None:
    first, *others = judge(NotANumber, tmp_path)
    assert first.state == "FAILED"
    assert [(other.rule, other.state) for other in others] == [
        (rule, "not checked")
        for rule in ("purity", "resume", "boxes", "losses", "training-split", "odd-grid")
    ]


def test_a_rule_that_fails_keeps_no_other_from_being_checked(tmp_path: Path) -> None:
    states = {verdict.rule: verdict.state for verdict in judge(Liar, tmp_path)}
    assert states.pop("boxes") == "FAILED"
    assert list(states.values()) == ["ok"] * 6


@pytest.mark.parametrize(
    ("cls", "remarks"),
    [
        (Spots, SILENT),
        (Picky, SILENT | {"odd-grid": "(5, 40, 24) is refused, (5, 48, 32) works"}),
        (WithoutLesions, SILENT | {"boxes": "it does not claim to follow boxes"}),
        (Unseeded, SILENT | {"training-split": UNWATCHED}),
    ],
)  # fmt: skip
def test_a_generator_that_keeps_the_rules_passes(
    cls: type[Generator[Any]], remarks: Mapping[str, str], tmp_path: Path
) -> None:
    verdicts = judge(cls, tmp_path)
    assert {verdict.state for verdict in verdicts} == {"ok"}, verdicts
    assert {verdict.rule: verdict.message for verdict in verdicts if verdict.message} == remarks


def test_check_generator_raises_the_first_failure_with_its_hint(tmp_path: Path) -> None:
    check_generator(Spots, tmp_path / "good")
    with pytest.raises(CheckFailed, match=r"sample 0 is another when drawn again \(draw every random number"):
        check_generator(GlobalRandom, tmp_path / "wrong")


@pytest.mark.parametrize("name", plugins.find("generators"))
def test_every_built_in_generator_keeps_the_rules(name: str, tmp_path: Path) -> None:
    check_generator(name, tmp_path, settings=SETTINGS.get(name))
