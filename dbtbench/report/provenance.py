"""Provenance for the page: data, split, settings, seeds, versions, and the commands that repeat a board."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pydantic import ValidationError

from dbtbench import plugins
from dbtbench.errors import DBTBenchError
from dbtbench.pipeline.catalogue import describe_datasets
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.records import Record
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.task import BASELINE, REFERENCES


def describe_provenance(material: Material, board: BoardRuns) -> dict[str, Any]:
    """Describe how one board was made."""
    records = [run.record for run in board.results]
    first = records[0]
    drawn = {made.fingerprint: (made, record) for record in records for made in record.augmentations}
    sources = _read_sources(material)
    dataset = material.dataset_of(board.first)
    return {
        "board": board.name,
        "facts": [
            ["data", f"{first.data.name}{_describe_phantom(first)}"],
            *([["grid", " × ".join(map(str, dataset.grid))]] if dataset is not None else []),
            ["data fingerprint", first.data.fingerprint],
            ["split hash", first.data.split_hash],
            ["tested on", _describe_counts(first)],
            ["task", f"{first.task}, version {first.version}"],
            ["task settings", json.dumps(first.recipe, ensure_ascii=False)],
            ["dbtbench", _join({f"{r.dbtbench} ({r.commit or 'no commit'})" for r in records})],
            ["versions", _join({f"{name} {v}" for r in records for name, v in r.versions.items()})],
            ["machines", _join({r.device for r in records})],
            ["computing time", f"{sum(r.seconds for r in records) / 3600:.2f} h in {len(records)} runs"],
            ["dates", _join({r.created[:10] for r in records})],
        ],
        "arms": [
            {
                "label": label,
                "seeds": ", ".join(map(str, sorted(runs))),
                "made": [_describe_made(made) for made in next(iter(runs.values())).record.augmentations],
                "trained": _describe_training(next(iter(runs.values())).record),
            }
            for label, runs in board.runs.items()
        ],
        "commands": [
            *(_write_generate(made, of, sources.get(made.fingerprint)) for made, of in drawn.values()),
            _write_evaluate(board, first),
            "dbtbench leaderboard",
            "dbtbench report",
        ],
    }


def _describe_phantom(record: Record) -> str:
    return f", phantoms of version {record.data.phantom}" if record.data.phantom else ""


def _describe_counts(record: Record) -> str:
    said = (("patients", "patients"), ("volumes", "volumes"), ("boxes", "lesions"))
    return ", ".join(f"{record.counts[name]} {word}" for name, word in said if name in record.counts)


def _describe_training(record: Record) -> str:
    words = {
        "real": "real volumes",
        "synthetic": "synthetic volumes",
        "patients": "patients",
        "lesions": "lesions",
    }
    counts = {word: record.counts.get(f"training_{name}", 0) for name, word in words.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing"


def _describe_made(made: Any) -> dict[str, str]:
    return {
        "name": made.name,
        "generator": f"{made.generator}, version {made.version}, run {made.run}",
        "fingerprint": made.fingerprint,
        "volumes": str(made.volumes),
        "settings": json.dumps(made.recipe, ensure_ascii=False),
    }


def _read_sources(material: Material) -> dict[str, dict[str, Any]]:
    """Read what the synthetic data sets of the workspace were asked for, by fingerprint."""
    if material.workspace is None:
        return {}
    described = describe_datasets(material.workspace).values()
    return {str(meta["fingerprint"]): meta["source"] for meta in described if "source" in meta}


def _write_generate(made: Any, record: Record, source: dict[str, Any] | None) -> str:
    """Write the command that draws a synthetic data set again; what a generator chose it chooses again."""
    asked = source or {}
    settings = {key: value for key, value in made.recipe.items() if key not in (record.chosen or ())}
    words = ["dbtbench", "generate", made.generator, "--data", record.data.name]
    words += _write_settings("generators", made.generator, settings)
    words += ["--n", str(asked.get("n", made.volumes))]
    if asked.get("positives", 0.5) != 0.5:
        words += ["--positives", str(asked["positives"])]
    if asked.get("seed", 0):
        words += ["--seed", str(asked["seed"])]
    if "places" in asked:
        words += ["--places", str(asked["places"])]
    if keep := asked.get("keep"):
        words += ["--keep", str(keep["share"]), "--detector", str(keep["detector"])]
    return shlex.join([*words, "--name", made.name])


def _write_evaluate(board: BoardRuns, record: Record) -> str:
    """Write the command that runs a board's arms again."""
    words = ["dbtbench", "evaluate", "--task", record.task, "--data", record.data.name]
    words += _write_settings("tasks", record.task, record.recipe)
    counts = [len(runs) for label, runs in board.runs.items() if label not in (BASELINE, *REFERENCES)]
    words += ["--seeds", str(max(counts, default=len(board.runs.get(BASELINE, ()))))]
    arms = {next(iter(runs.values())).record.arm: None for runs in board.runs.values()}
    for arm in arms:
        words += [] if arm == BASELINE else ["--arms", arm]
    return shlex.join(words)


def _write_settings(kind: str, name: str, settings: dict[str, Any]) -> list[str]:
    """Write `--recipe` and `--set` that give these settings, from the nearest of the plug-in's recipes."""
    try:
        with plugins.blame(kind, name):
            plugin = plugins.load(plugins.get(kind, name))
        known = folder_of(plugin)
        recipes = {
            each: resolve(plugin.recipe_class, known, each).model_dump(mode="json") for each in names(known)
        }
    except (DBTBenchError, ValidationError, OSError, TypeError):
        recipes = {"default": {}}  # it is not installed here: every setting is written

    def differ(recipe: str) -> list[str]:
        own = recipes[recipe]
        return [key for key, value in settings.items() if key not in own or own[key] != value]

    best = min(recipes, key=lambda recipe: (len(differ(recipe)), recipe != "default"))
    words = [] if best == "default" else ["--recipe", best]
    for key in differ(best):
        value = settings[key]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        words += ["--set", f"{key}={text}"]
    return words


def _join(values: set[str]) -> str:
    return ", ".join(sorted(values))
