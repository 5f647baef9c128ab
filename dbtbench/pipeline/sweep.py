"""A sweep: a generator is fitted, draws and is measured at every combination of some settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, UsageError
from dbtbench.generator import Generator
from dbtbench.pipeline import generate
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.runtime import distributed
from dbtbench.runtime.files import csv_text, digest, read_json, write_text
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace

REALISM = "realism"
SHOWN = (
    "w1_intensity",
    "air_mode_mass",
    "main_mode_breast",
    "valley_depth_whole",
    "rms_contrast",
    "volume_mean_sd",
    "lesion_cnr",
)
"""Scores of the realism task that the terminal shows; the CSV has all."""

DIVERGED = "diverged"
"""The arm of a setting whose training diverged, and which has no scores."""


@dataclass(frozen=True)
class Sweep:
    """What is fitted and drawn.

    Attributes:
        generator: the generator's name.
        data: the real data set.
        grid: the swept settings: texts of their values by key (`parse`).
        recipe: which of the generator's recipes.
        fixed: `key: text` settings over the recipe, the same everywhere.
        n: how many volumes are drawn at each setting; see `generate.plan`.
        seed: seed of the layouts and of what is drawn.
        positives: see `generate.plan`.
    """

    generator: str
    data: DBTDataset
    grid: Mapping[str, Sequence[str]]
    recipe: str = "default"
    fixed: Mapping[str, str] = field(default_factory=dict)
    n: int | None = None
    seed: int = 0
    positives: float = 0.5

    def combinations(self) -> list[dict[str, str]]:
        """Every combination of the swept values, with the fixed settings; the last key changes fastest."""
        return [
            {**self.fixed, **dict(zip(self.grid, values, strict=True))}
            for values in product(*self.grid.values())
        ]

    def check(self) -> list[Generator[Any]]:
        """The generators of all combinations, not yet fitted: what cannot be is known before any is trained.

        Raises:
            MissingError: for an unknown generator.
            UsageError: for an unknown key, a wrong value, a key that is fixed and swept, two combinations
                that are the same, a grid that a network cannot divide, or what cannot be drawn (see
                `generate.plan`).
        """
        for key in self.grid:
            if key in self.fixed:
                raise UsageError(f"{key} is given by both --set and --sweep", "leave one of the two out")
        generators: list[Generator[Any]] = []
        for settings in self.combinations():
            generator = generate.configure(self.generator, self.recipe, settings)
            if any(generator.recipe == other.recipe for other in generators):
                raise UsageError(f"the sweep has {self._named(generator)} twice", "name each value once")
            generator.check(self.data.grid)
            generators.append(generator)
        for generator in {generator.follows_boxes: generator for generator in generators}.values():
            generate.plan(generator, self.data, self.n, self.seed, self.positives)
        return generators

    def run(self, workspace: Workspace, fresh: bool = False) -> pd.DataFrame:
        """Fit, draw and measure combination by combination; what an earlier, killed call did is found again.

        Under torchrun every process calls this; process 0 alone measures. A training that diverges is a
        result: it leaves a row without scores, and the sweep goes on.

        Args:
            workspace: where runs and data sets are kept.
            fresh: fit and draw again even what was done.

        Returns:
            On process 0 one row for the real training split and one for each combination: `arm`, the swept
            settings and the scores of the realism task. The others have no scores.

        Raises:
            MissingError, UsageError: see `check`; also when the data set has no test split to compare with.
        """
        generators = self.check()
        rows = self._measured(workspace, None, dict.fromkeys(self.grid))
        fitted: list[dict[str, Any]] = []
        for number, (generator, settings) in enumerate(zip(generators, self.combinations(), strict=True), 1):
            log.info(f"sweep {number}/{len(generators)}: {self._named(generator)}")
            fitting = generator.recipe.fit_settings()
            drawn = self._drawn(workspace, settings, fresh, fresh and fitting not in fitted)
            fitted.append(fitting)
            swept = self._swept(generator)
            rows += self._measured(workspace, drawn, swept) if drawn else [{"arm": DIVERGED, **swept}]
        return pd.DataFrame(rows)

    def _drawn(
        self, workspace: Workspace, settings: Mapping[str, str], fresh: bool, fit_again: bool
    ) -> DBTDataset | None:
        """What one combination draws; None when its training diverges."""
        try:
            fitted = generate.fit(workspace, self.generator, self.data, self.recipe, settings, fit_again)
        except DivergedError as error:
            log.info(f"{error}; the sweep goes on")
            return None
        return generate.draw(workspace, fitted, self.n, self.seed, self.positives, fresh)

    def _measured(
        self, workspace: Workspace, drawn: DBTDataset | None, swept: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One row of the table, on process 0: a drawn data set, or the real training split."""
        rows = []
        if distributed.rank() == 0:
            # Never fresh: the scores are a function of the bytes that their run is named by.
            runs = evaluate(workspace, REALISM, self.data, [drawn.name] if drawn else [], 1, arms=[])
            record = read_json(runs[-1] / "run.json")
            rows = [{"arm": record["arm"], **swept, **record["scores"]}]
            log.info(f"{record['arm']}: {SHOWN[0]} {record['scores'][SHOWN[0]]:.4f}")
        distributed.from_leader(None)  # the others wait
        return rows

    def write(self, workspace: Workspace, table: pd.DataFrame) -> Path:
        """Write the table to `sweeps/GENERATOR-HASH.csv`; the same sweep has the same hash."""
        generators = self.check()
        identity = {
            "generator": self.generator,
            "version": generators[0].version,
            "recipes": [generator.recipe.model_dump(mode="json") for generator in generators],
            "data": self.data.identity,
            "draw": [self.n, self.seed, self.positives],
        }
        path = workspace.root / "sweeps" / f"{self.generator}-{digest(identity)[:12]}.csv"
        write_text(path, csv_text(table))
        return path

    def summary(self, table: pd.DataFrame) -> str:
        """The table for a terminal: arms, swept settings and the scores in `SHOWN`."""
        # A score that no row has is None, not NaN.
        shown = table[["arm", *self.grid, *SHOWN]].astype(dict.fromkeys(SHOWN, float))
        shown[[*self.grid]] = shown[[*self.grid]].map(_text)
        text: str = shown.to_string(index=False, float_format="%.4f", na_rep="")
        return text

    def _swept(self, generator: Generator[Any]) -> dict[str, Any]:
        """The swept settings of one combination, as its recipe read them."""
        settings = generator.recipe.model_dump(mode="json")
        return {key: settings[key] for key in self.grid}

    def _named(self, generator: Generator[Any]) -> str:
        return " ".join(f"{key}={_text(value)}" for key, value in self._swept(generator).items())


def parse(words: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=V1,V2,…` words as texts of values by key; commas in brackets or quotes part nothing.

    Raises:
        UsageError: when one has no value or an empty one, or a key comes twice.
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        key, _, text = word.partition("=")
        values = _split(text)
        if not key or not all(values):
            raise UsageError(f"--sweep {word} lacks a value", "write --sweep KEY=V1,V2 as in lr=1e-3,1e-4")
        if key in grid:
            joined = ",".join([*grid[key], *values])
            raise UsageError(f"{key} is swept twice", f"name all values at once: --sweep {key}={joined}")
        grid[key] = values
    return grid


def _split(text: str) -> list[str]:
    """Split at the commas that are in no bracket and no quotes."""
    values, piece = [], ""
    for part in text.split(","):
        piece = f"{piece},{part}" if piece else part
        bare = re.sub(r'"[^"]*"', "", piece)
        if bare.count("[") <= bare.count("]") and '"' not in bare:
            values.append(piece.strip())
            piece = ""
    return [*values, piece] if piece else values


def _text(value: Any) -> str:
    """A setting as it could be typed; nothing for one that a row does not have."""
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else json.dumps(value)
