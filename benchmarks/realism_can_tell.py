"""Which metrics of realism can tell: real halves, the controls, and a DDPM by its number of training steps.

    python benchmarks/realism_can_tell.py WORK/datasets/NAME… [--steps 0 400 8000] [--paper] [--set KEY=VALUE]

Draws each generator's data set in the data set's own workspace, measures it by the task `realism`, and prints
a table in Markdown for each data set: the excess of each score over the median of the floor, and P, its
percentile there; bold lies outside of 95 % of the floor. Then what the metrics must be able to tell, and
whether they do.

What was finished is found again: killed at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from dbtbench import recipe
from dbtbench.data.dataset import DBTDataset
from dbtbench.metric import Standing
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.outputs import describe_evaluation
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.runs import Run, open_run
from dbtbench.task import Arm
from dbtbench.tasks.realism import Realism, RealismRecipe
from dbtbench.tasks.realism.metrics import METRICS
from dbtbench.workspace import Workspace

CONTROLS = ("classic", "paste", "texture")
HALVES = ("real half A", "real half B")
NEVER_WORSE = (
    "c2st_auc",
    "c2st_cnn",
    "roughness",
    "power_coarse",
    "power_medium",
    "power_fine",
    "power_finest",
)
"""What more training must not make worse: C2ST, roughness, power."""
OUTSIDE = 3
"""Metrics by which what has learned nothing must lie outside of the floor, at least."""


@dataclass(frozen=True)
class Place:
    """A score and its place on the floor."""

    value: float
    standing: Standing

    @property
    def outside(self) -> bool:
        """Whether it lies outside of 95 % of the floor."""
        return not 2.5 <= self.standing.percentile <= 97.5

    @property
    def excess(self) -> float:
        """How far it lies above the floor's median."""
        return self.value - self.standing.floor

    def __str__(self) -> str:
        bold = "**" * self.outside
        return f"{bold}{self.excess:+.2g} P{self.standing.percentile:.0f}{bold}"


Row = dict[str, Place]


def score_halves(data: DBTDataset, workspace: Workspace, settings: Mapping[str, str]) -> dict[str, Row]:
    """Score each half of the real patients against the other, as `real` is scored against the test split."""
    known = data.take(data.cases["split"].isin(["train", "test"]))
    names = np.unique(known.cases["PatientID"].astype(str))
    first = np.random.default_rng(0).permutation(names)[: len(names) // 2]
    task = Realism(recipe.resolve(RealismRecipe, recipe.folder_of(Realism), "default", settings))
    rows = {}
    for name, own in zip(HALVES, (first, np.setdiff1d(names, first)), strict=True):
        split = np.where(known.cases["PatientID"].astype(str).isin(own), "train", "test")
        half = replace(known, cases=known.cases.assign(split=split))
        identity = {"half": name, "data": data.identity, "recipe": task.recipe.model_dump(mode="json")}
        with open_run(workspace.evaluations / "can-tell", identity | {"version": task.version}) as run:
            if not run.finished:
                found = task.evaluate(Arm(name, half, half.select("train")), 0, run)
                run.finish(**describe_evaluation(task, found))
        rows[name] = read_row(run)
    return rows


def score_generators(
    data: DBTDataset,
    workspace: Workspace,
    requests: Mapping[str, GenerationRequest],
    settings: Mapping[str, str],
) -> dict[str, Row]:
    """Draw a data set for each request, and score it."""
    rows = {}
    for title, request in requests.items():
        drawn = request.run(workspace, name=f"{data.name}-{title.replace(' ', '-')}")
        folder = evaluate(workspace, "realism", data, overrides=settings, arms=[drawn.name])[-1]
        rows[title] = read_row(Run(folder, {}))
    return rows


def read_row(run: Run) -> Row:
    """Read the places of a finished run's scores."""
    record = run.record()
    standings = record.get("standings", {})
    return {name: Place(record["scores"][name], Standing(**place)) for name, place in standings.items()}


def check(rows: Mapping[str, Row], steps: Sequence[int]) -> list[str]:
    """Say of each requirement whether it is met, and where not."""
    said = []
    for name in HALVES:
        off = [metric for metric, place in rows[name].items() if place.outside]
        said.append(f"{name}: {len(off)} of {len(rows[name])} outside of the floor's 95 % {_list(off)}")
    for name in ("texture", "ddpm 0 steps"):
        if name in rows:
            off = [metric for metric, place in rows[name].items() if place.outside]
            met = "met" if len(off) >= OUTSIDE else "NOT MET"
            said.append(f"{name}: {len(off)} of {len(rows[name])} outside, {OUTSIDE} are required: {met}")
    trained = [f"ddpm {number} steps" for number in sorted(steps)]
    for less, more in pairwise(trained):
        both = [metric for metric in NEVER_WORSE if metric in rows[less] and metric in rows[more]]
        worse = [metric for metric in both if _away(rows[more][metric]) > _away(rows[less][metric])]
        said.append(f"{more} is worse than {less} by {len(worse)} of {len(both)} {_list(worse)}")
    return said


def _away(place: Place) -> float:
    """Distance beyond the floor: 0 inside of its 95 %, where scores differ by chance."""
    return max(place.standing.floor_low - place.value, place.value - place.standing.floor_high, 0.0)


def _list(names: Sequence[str]) -> str:
    return f"({', '.join(names)})" if names else ""


def write_table(rows: Mapping[str, Row]) -> str:
    """Write a table in Markdown: a row for each metric, a column for each set."""
    names = [metric.name for metric in METRICS if any(metric.name in row for row in rows.values())]
    lines = [["metric", *rows], ["---"] * (1 + len(rows))]
    lines += [[f"`{name}`", *(str(row.get(name, "–")) for row in rows.values())] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(words: Sequence[str] | None = None) -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="folders of data sets, WORK/datasets/NAME")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 400], help="training steps of ddpm")
    parser.add_argument("--recipe", default="demo", help="recipe of ddpm")
    parser.add_argument("--paper", action="store_true", help="a row for ddpm's recipe `paper`")
    parser.add_argument("--n", type=int, help="volumes to draw; as many as the training split has")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE setting of the task realism")
    asked = parser.parse_args(words)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    for folder in asked.data:
        data, workspace = DBTDataset.open(folder), Workspace(folder.parents[1])
        requests = {name: GenerationRequest(name, data, n=asked.n) for name in CONTROLS}
        for steps in asked.steps:
            # One guidance for all: to choose it would cost as much as to draw, and differ with the steps.
            changed = {"steps": str(max(steps, 1)), "guidance_scale": "1"}
            if not steps:  # a recipe has one step or more: one that changes nothing
                changed |= {"lr": "1e-12"}
            requests[f"ddpm {steps} steps"] = GenerationRequest("ddpm", data, asked.recipe, changed, asked.n)
        if asked.paper:
            requests["paper"] = GenerationRequest("ddpm", data, "paper", n=asked.n)
        rows = score_halves(data, workspace, settings)
        rows |= score_generators(data, workspace, requests, settings)
        lines = [f"{data}", "", write_table(rows), "", *(f"- {line}" for line in check(rows, asked.steps))]
        sys.stdout.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
