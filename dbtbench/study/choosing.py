"""The cases of a study: real test volumes, each with a synthetic one of like view and label; sides and order.

Everything is drawn from the seed. Nothing of a case's name says what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError

KINDS = {"2afc": ("left", "right"), "rating": ("synthetic", "real")}
"""Kinds of studies: two volumes, which one is real? Or one volume, real or synthetic? With their truths."""
PRACTICE = 2
"""Cases before the others, which are not scored."""


class Source(NamedTuple):
    """A volume: its data set, and its number there."""

    dataset: DBTDataset
    volume: int


@dataclass(frozen=True)
class Case:
    """A case of a study.

    Attributes:
        name: says nothing of what it holds.
        shown: its volumes, from left to right: two, or one in a rating.
        truth: `left` or `right`, where the real one is; in a rating `real` or `synthetic`.
    """

    name: str
    shown: tuple[Source, ...]
    truth: str

    @property
    def synthetic(self) -> str:
        """The synthetic data set that it shows a volume of, or `none`."""
        return next((source.dataset.name for source in self.shown if source.dataset.synthetic), "none")


def choose_cases(
    real: DBTDataset, synthetic: Sequence[DBTDataset], kind: str, cases: int, seed: int
) -> list[Case]:
    """Choose the cases: the practice cases, then the others.

    Among the others the real volume is on the left in one half of the cases, or one half of the volumes is
    real; synthetic data sets take turns. No volume is shown twice.

    Args:
        real: its test split is shown.
        synthetic: data sets on the same grid, in whose training that split had no part.
        kind: of `KINDS`.
        cases: how many are scored; an even number.
        seed: of the choice, the sides, the order and the names.

    Raises:
        UsageError: when the number is odd, a grid differs, or there are too few volumes.
    """
    if cases % 2 or cases < 2:
        raise UsageError(f"--cases {cases} cannot be balanced", "give an even number, 2 or more")
    for other in synthetic:
        if other.grid != real.grid:
            raise UsageError(
                f"{other.name} has the grid {_write(other.grid)}, {real.name} has {_write(real.grid)}",
                "volumes of two sizes would tell themselves apart: compare data sets on one grid",
            )
    rng = np.random.default_rng(seed)
    single = kind == "rating"
    scored, practised = (cases // 2, PRACTICE // 2) if single else (cases, PRACTICE)
    pairs = _draw_pairs(real.select("test"), synthetic, practised + scored, rng)
    names = [f"c{number:06x}" for number in rng.choice(16**6, PRACTICE + cases, replace=False)]
    parts = [
        _place(part, single, rng) for part in (pairs[:practised], pairs[practised:])
    ]  # each balanced in itself
    return [
        Case(name, shown, truth)
        for name, (shown, truth) in zip(names, [each for part in parts for each in part], strict=True)
    ]


def make_key(cases: Sequence[Case]) -> pd.DataFrame:
    """Write down what the scored cases hold: `case`, `truth`, `synthetic` (the data set), `volumes`."""
    rows = [
        {
            **{"case": case.name, "truth": case.truth, "synthetic": case.synthetic},
            "volumes": " ".join(f"{source.dataset.name}:{source.volume}" for source in case.shown),
        }
        for case in cases[PRACTICE:]
    ]
    return pd.DataFrame(rows)


def _draw_pairs(
    real: DBTDataset, synthetic: Sequence[DBTDataset], count: int, rng: np.random.Generator
) -> list[tuple[Source, Source]]:
    """Draw real volumes, and for each a synthetic one that is as like as there is: in label, then in view."""
    if count > len(real):
        raise UsageError(
            f"{count} real volumes are needed, the test split of {real.name} has {len(real)}",
            "lower --cases (two practice cases need volumes, too)",
        )
    left = [list(rng.permutation(len(dataset))) for dataset in synthetic]
    pairs = []
    for number, row in enumerate(rng.permutation(len(real))[:count]):
        turn = number % len(synthetic)
        dataset, rows = synthetic[turn], left[turn]
        if not rows:
            raise UsageError(
                f"{dataset.name} has only {len(dataset)} volumes",
                "draw more (`dbtbench generate --n`), or lower --cases",
            )
        view, positive = real.cases["View"].iloc[row], real.positive[row]
        views = dataset.cases["View"]
        best = min(
            rows,
            key=lambda other: (dataset.positive[other] != positive, views.iloc[other] != view),
        )
        rows.remove(best)
        pairs.append((_source(real, int(row)), _source(dataset, int(best))))
    return pairs


def _place(
    pairs: Sequence[tuple[Source, Source]], single: bool, rng: np.random.Generator
) -> list[tuple[tuple[Source, ...], str]]:
    """Give each pair its sides, one half of them each way, or take it apart; in a drawn order."""
    placed: list[tuple[tuple[Source, ...], str]] = []
    for number, (real, synthetic) in enumerate(pairs):
        if single:
            placed += [((real,), "real"), ((synthetic,), "synthetic")]
        elif (number + number // 2) % 2:  # each way in turn, for each of several data sets, too
            placed.append(((synthetic, real), "right"))
        else:
            placed.append(((real, synthetic), "left"))
    return [placed[k] for k in rng.permutation(len(placed))]


def _source(dataset: DBTDataset, row: int) -> Source:
    return Source(dataset, int(dataset.cases["case"].iloc[row]))


def _write(grid: Sequence[int]) -> str:
    return "×".join(map(str, grid))
