"""The board in long form: one row for each (board, arm, metric), with intervals from the outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.errors import StaleError
from dbtbench.leaderboard import statistics
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.leaderboard.records import Record, Result
from dbtbench.metrics.resampling import patients
from dbtbench.runtime.files import digest
from dbtbench.task import BASELINE, CEILING, PLACEBO

TOLERANCE = 1e-9

COMPARED = ["p_gain", "p", "p_holm", "recovered", "recovered_low", "recovered_high"]
COMPARED += ["equivalent", "equivalent_low", "equivalent_high"]
COMPARED += ["over_placebo", "over_placebo_low", "over_placebo_high", "method"]
"""Columns that are attributes of `statistics.Comparison`."""

Runs = Mapping[int, Result]
Arms = dict[tuple[str, str], dict[int, Result]]


def build_board(results: Sequence[Result]) -> pd.DataFrame:
    """The board of some runs: `none` stands first on each, the other arms by name.

    An arm with several synthetic data sets is as many arms. Where a seed of an arm was run twice under
    another name, the first run stands: running again until it is better does not help.

    Args:
        results: the runs, in any order.

    Returns:
        One row for each (board, arm, metric), with `COLUMNS`.

    Raises:
        StaleError: when outcomes do not give their record's score, or belong to other test volumes than those
            of the same board's other runs.
    """
    boards: dict[str, list[Result]] = {}
    for result in results:
        boards.setdefault(digest([result.record.task, _key(result.record)]), []).append(result)
    rows = [row for runs in boards.values() for row in _board_rows(runs)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).assign(other=lambda t: t["arm"] != BASELINE)
    order = ["task", "board", "other", "arm", "synthetic_fingerprint", "metric"]
    return table.sort_values(order, ignore_index=True).drop(columns="other")


def _key(record: Record) -> str:
    return digest(
        [record.task, record.version, record.recipe, record.data.fingerprint, record.data.split_hash]
    )


def arms_of(results: Iterable[Result]) -> Arms:
    """Runs of one board by arm and synthetic fingerprint, and by seed; the first of the same stands."""
    arms: Arms = {}
    for result in sorted(results, key=lambda result: (result.record.created, result.record.hash)):
        record = result.record
        arms.setdefault((record.arm, record.synthetic), {}).setdefault(record.seed, result)
    return dict(sorted(arms.items()))


def labels_of(arms: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What to call each arm and synthetic fingerprint: with its start where the arm has several."""
    keys = set(arms)
    names = [name for name, _ in keys]
    # Six digits tell any two apart, unless somebody made them up.
    digits = next(n for n in (6, 64) if len({(name, print_[:n]) for name, print_ in keys}) == len(keys))
    return {key: key[0] if names.count(key[0]) == 1 else f"{key[0]} {key[1][:digits]}" for key in keys}


def _board_rows(results: list[Result]) -> list[dict[str, Any]]:
    check_runs(results)
    names = sorted(result.record.data.name for result in results)
    record = results[0].record
    # Somebody else may call the same data by another name; the board is named by most.
    board = f"{record.task}-{max(names, key=names.count)}-{_key(record)[:8]}"
    arms = arms_of(results)
    labels = labels_of(arms)
    compared = _compare({labels[key]: runs for key, runs in arms.items()})
    baseline = arms.get((BASELINE, ""), {})
    rows = []
    for key, runs in arms.items():
        shared = {"board": board} | _shared(runs)
        primary = next(iter(runs.values())).record.primary
        for metric in dict.fromkeys(metric for run in runs.values() for metric in run.record.scores):
            row = shared | _values(metric, runs, baseline) | {"primary": int(metric == primary)}
            if metric == primary:
                row |= _statistics(labels[key], row, compared.get(labels[key]), bool(baseline))
                checked = metric in statistics.RESAMPLED and all(
                    run.outcomes is not None for run in runs.values()
                )
                row["verified"] = "outcomes" if checked else "no"
            rows.append(row)
    return rows


def check_runs(results: Sequence[Result]) -> None:
    """Score all outcomes again, and see that they are of the same test volumes and lesions.

    Args:
        results: runs that may be compared.

    Raises:
        StaleError: naming the first run of which this is not so.
    """
    first: Result | None = None
    for result in results:
        metric = result.record.primary
        if metric != results[0].record.primary:
            raise StaleError(
                f"{result} has the primary metric {metric}, {results[0]} has {results[0].record.primary}",
                "a task whose primary metric changes needs another version",
            )
        if result.outcomes is None or metric not in statistics.RESAMPLED:
            continue
        ones = np.ones((1, len(patients(result.outcomes))))
        found = float(statistics.RESAMPLED[metric](result.outcomes, ones)[0])
        said = result.record.scores[metric]
        if not same(found, said):
            raise StaleError(
                f"{result}: its outcomes give {metric} {found!r}, its record says {said!r}",
                "one of the two was changed; evaluate again with --fresh",
            )
        first = first or result
        if result.truth != first.truth:
            raise StaleError(
                f"{result}: its outcomes are of other test volumes or lesions than those of {first}"
            )


def same(found: float, said: float | None) -> bool:
    """Whether a score computed again is what a record says, where None stands for NaN."""
    if said is None or math.isnan(found):
        return said is None and math.isnan(found)
    return math.isclose(found, said, rel_tol=0, abs_tol=TOLERANCE)


def _compare(arms: Mapping[str, Runs]) -> dict[str, statistics.Comparison]:
    """Compare the arms that kept the outcomes of all their runs with the baseline, if that did so, too."""
    first = next(iter(next(iter(arms.values())).values())).record
    complete = {
        label: {seed: run.outcomes for seed, run in runs.items() if run.outcomes is not None}
        for label, runs in arms.items()
        if all(run.outcomes is not None for run in runs.values())
    }
    baseline = complete.get(BASELINE, {})
    complete = {label: tables for label, tables in complete.items() if baseline.keys() & tables.keys()}
    if len(complete) < 2 or first.primary not in statistics.RESAMPLED:
        return {}
    volumes = {
        label: _last(arms[label]).counts["training_real"]
        for label in complete
        if label.split(":")[0] in (BASELINE, CEILING) and "training_real" in _last(arms[label]).counts
    }
    return statistics.compare(first.primary, complete, BASELINE, CEILING, PLACEBO, volumes)


def _statistics(
    label: str, row: Mapping[str, Any], comparison: statistics.Comparison | None, baseline: bool
) -> dict[str, Any]:
    """What chance has to do with the gain; in words also where that cannot be said."""
    if row["arm"] == BASELINE:
        return {"verdict": ""}
    if comparison is not None:
        return {
            "gain_low": comparison.low,
            "gain_high": comparison.high,
            **{name: getattr(comparison, name) for name in COMPARED},
            "verdict": comparison.verdict(label, BASELINE),
        }
    if not baseline:
        return {"verdict": f"{label}: no run of {BASELINE} to compare with"}
    if not row["gains"]:
        return {"verdict": f"{label}: no seed in common with {BASELINE}"}
    gain = f"{row['gain']:+.4f} {row['metric']} over {BASELINE}"
    without = "its runs keep no outcomes" if row["metric"] in statistics.RESAMPLED else "it is not resampled"
    return {"verdict": f"{label}: {gain}; no interval, {without}"}


def _values(metric: str, runs: Runs, baseline: Runs) -> dict[str, Any]:
    values, base = _by_seed(metric, runs), _by_seed(metric, baseline)
    gains = (values - base).reindex(values.index.intersection(base.index))
    return {
        "metric": metric,
        "value": values.mean(),
        "sd": values.std(),
        "baseline": base[gains.index].mean(),
        "gain": gains.mean(),
        "gains": " ".join(f"{seed}:{gain:.6f}" for seed, gain in gains.dropna().items()),
        "verified": "no",
    }


def _by_seed(metric: str, runs: Runs) -> pd.Series:
    scores = {seed: _number(runs[seed].record.scores.get(metric)) for seed in sorted(runs)}
    return pd.Series(scores, dtype=float)


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def _last(runs: Runs) -> Record:
    return max((run.record for run in runs.values()), key=lambda record: (record.created, record.hash))


def _shared(runs: Runs) -> dict[str, Any]:
    """What all rows of an arm have in common."""
    records = [runs[seed].record for seed in sorted(runs)]
    last = _last(runs)
    made = last.augmentation
    real, synthetic = last.counts.get("training_real"), made.volumes if made else 0
    return {
        "task": last.task,
        "task_version": last.version,
        "dataset": last.data.name,
        "dataset_fingerprint": last.data.fingerprint,
        "split_hash": last.data.split_hash,
        "recipe_hash": last.comparable["recipe hash"],
        "arm": last.arm,
        "generator": made.generator if made else "",
        "generator_version": made.version if made else "",
        "generator_recipe": digest(made.recipe)[:12] if made else "",
        "generator_run": made.run if made else "",
        "synthetic_fingerprint": last.synthetic,
        "synthetic_volumes": synthetic,
        "real_volumes": "" if real is None else real,
        "ratio": synthetic / real if real else math.nan,
        "steps": last.recipe.get("steps", ""),
        "seeds": len(runs),
        **{name: last.counts.get(name, "") for name in ("patients", "volumes", "boxes")},
        "dbtbench": _different(record.dbtbench for record in records),
        "commit": _different(record.commit for record in records),
        "torch": _different(record.versions.get("torch") for record in records),
        "monai": _different(record.versions.get("monai") for record in records),
        "device": _different(record.device for record in records),
        "seconds": round(sum(record.seconds for record in records), 1),
        "date": last.created[:10],
    }


def _different(values: Iterable[str | None]) -> str:
    return "; ".join(sorted({value for value in values if value}))
