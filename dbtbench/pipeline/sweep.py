"""A sweep: a generator is fitted, draws and is measured at every combination of some settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, UsageError
from dbtbench.generator import Generator
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.runtime import distributed
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import read_json, short_digest, write_text
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace

REALISM = "realism"
"""The task that measures what is drawn; its headline metrics are shown on the terminal, the CSV has all."""
DIVERGED = "diverged"
"""The arm of a setting whose training diverged, and which has no scores."""


@dataclass(frozen=True)
class Sweep:
    """Several requests that differ in some settings.

    Attributes:
        request: what is the same everywhere.
        grid: the swept settings: texts of their values by key (`parse`).
    """

    request: GenerationRequest
    grid: Mapping[str, Sequence[str]]

    def requests(self) -> list[GenerationRequest]:
        """List the requests, one for every combination of the swept values; the last key changes fastest."""
        return [
            replace(
                self.request,
                settings={**self.request.settings, **dict(zip(self.grid, values, strict=True))},
            )
            for values in product(*self.grid.values())
        ]

    def check(self) -> list[Generator[Any]]:
        """Configure the generators of all combinations, so that errors are known before any is trained.

        Raises:
            MissingError: for an unknown generator.
            UsageError: for an unknown key, a wrong value, a key that is fixed and swept, two combinations
                that are the same, a grid that a network cannot divide, or what cannot be drawn (see
                `generate.plan`).
        """
        for key in self.grid:
            if key in self.request.settings:
                raise UsageError(f"{key} is given by both --set and --sweep", "leave one of the two out")
        generators: list[Generator[Any]] = []
        for request in self.requests():
            generator = request.configure()
            if any(generator.recipe == other.recipe for other in generators):
                raise UsageError(f"the sweep has {self._name(generator)} twice", "name each value once")
            generators.append(generator)
        pairs = zip(generators, self.requests(), strict=True)
        for request in {generator.follows_boxes: request for generator, request in pairs}.values():
            request.check()
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
        rows = self._measure(workspace, None, dict.fromkeys(self.grid))
        fitted: list[dict[str, Any]] = []
        for number, (generator, request) in enumerate(zip(generators, self.requests(), strict=True), 1):
            log.info(f"sweep {number}/{len(generators)}: {self._name(generator)}")
            fitting = generator.recipe.fit_settings()
            refit = fresh and fitting not in fitted
            fitted.append(fitting)
            swept = self._select_swept(generator)
            try:
                drawn = request.run(workspace, fresh, refit)
            except DivergedError as error:
                log.info(f"{error}; the sweep goes on")
                rows.append({"arm": DIVERGED, **swept})
            else:
                rows += self._measure(workspace, drawn, swept)
        return pd.DataFrame(rows)

    def _measure(
        self, workspace: Workspace, drawn: DBTDataset | None, swept: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Measure one row of the table, on process 0: a drawn data set, or the real training split."""
        rows = []
        if distributed.rank() == 0:
            # Never fresh: the scores are a function of the bytes that their run is named by.
            runs = evaluate(workspace, REALISM, self.request.data, [drawn.name] if drawn else [], 1, arms=[])
            record = read_json(runs[-1] / "run.json")
            rows = [{"arm": record["arm"], **swept, **record["scores"]}]
            primary = record["primary"]
            log.info(
                f"{record['arm']}: {record['metrics'][primary]['title']} {record['scores'][primary]:.4f}"
            )
        distributed.from_leader(None)  # the others wait
        return rows

    def write(self, workspace: Workspace, table: pd.DataFrame) -> Path:
        """Write the table to `sweeps/GENERATOR-HASH.csv`; the same sweep has the same hash."""
        generators = self.check()
        request = self.request
        identity = {
            "generator": request.generator,
            "version": generators[0].version,
            "recipes": [generator.recipe.model_dump(mode="json") for generator in generators],
            "data": request.data.identity,
            "draw": [request.n, request.seed, request.positives],
            **({"places": request.places} if request.places != "known" else {}),
            **({"keep": [request.keep.share, request.keep.detector]} if request.keep else {}),
        }
        path = workspace.root / "sweeps" / f"{request.generator}-{short_digest(identity)}.csv"
        write_text(path, csv_text(table))
        return path

    def summary(self, table: pd.DataFrame) -> str:
        """Format the table for a terminal: arms, swept settings and headline metrics of the realism task."""
        metrics = plugins.load(plugins.get("tasks", REALISM)).metrics
        shown = {metric.name: metric.heading for metric in metrics if metric.headline}
        # A score that no row has is None, not NaN.
        rows = table[["arm", *self.grid, *shown]].astype(dict.fromkeys(shown, float))
        rows[[*self.grid]] = rows[[*self.grid]].map(format_setting)
        text: str = rows.rename(columns=shown).to_string(index=False, float_format="%.4f", na_rep="")
        return f"{text}\n{len(metrics) - len(shown)} more metrics are in the CSV"

    def _select_swept(self, generator: Generator[Any]) -> dict[str, Any]:
        """Select the swept settings of one combination, as its recipe read them."""
        settings = generator.recipe.model_dump(mode="json")
        return {key: settings[key] for key in self.grid}

    def _name(self, generator: Generator[Any]) -> str:
        return " ".join(
            f"{key}={format_setting(value)}" for key, value in self._select_swept(generator).items()
        )


def parse(words: Sequence[str]) -> dict[str, list[str]]:
    """Read `KEY=V1,V2,…` words as texts of values by key; commas in brackets or quotes part nothing.

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


def format_setting(value: Any) -> str:
    """Format a setting as it could be typed; nothing for one that a row does not have."""
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else json.dumps(value)
