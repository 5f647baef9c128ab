"""The board in long form: one row for each (board, arm, metric), with intervals from the outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.errors import StaleError
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.leaderboard.comparison import Comparison, judge_learning
from dbtbench.leaderboard.roles import Roles
from dbtbench.leaderboard.statistics import compare
from dbtbench.metric import Find, Metric, number
from dbtbench.metrics.resampling import patients
from dbtbench.pipeline.outputs import same_score
from dbtbench.records import Record, Result
from dbtbench.runtime.files import digest, short_digest
from dbtbench.runtime.progress import log
from dbtbench.task import BASELINE

ESTIMATES = ("recovered", "patients_equivalent", "lesions_equivalent")
CONTRASTS = ("over_shuffled", "over_normals", "over_unlearned")
"""Columns that are attributes of a `Comparison`, each with its interval."""

PLACES = {"low": "value_low", "high": "value_high", "percentile": "floor_percentile"}
"""Columns of a standing's fields that are not called as they are."""

SEEDS_OF_SHARES = 10
"""Seeds that the shares of what is found are of, so that arms with more of them can be compared."""

Runs = Mapping[int, Result]
Arms = dict[tuple[str, str], dict[int, Result]]


def build_board(results: Sequence[Result]) -> pd.DataFrame:
    """Build the board of some runs: `real` stands first on each, the other arms by name.

    An arm with several synthetic data sets is as many arms. Where a seed of an arm was run twice under
    another name, the first run stands: running again until it is better does not help. Values of different
    versions of a metric are not mixed: runs with an older one count as runs without it.

    Args:
        results: the runs, in any order.

    Returns:
        One row for each (board, arm, metric), with `COLUMNS`.

    Raises:
        StaleError: when outcomes do not give their record's score, or belong to other test volumes than those
            of the same board's other runs.
    """
    rows = [row for board, runs in sort_boards(results).items() for row in _board_rows(board, runs)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).assign(other=lambda t: t["arm"] != BASELINE)
    order = ["task", "board", "other", "arm", "synthetic_fingerprint", "metric"]
    return table.sort_values(order, ignore_index=True).drop(columns="other")


def sort_boards(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Sort runs by the board that they stand on, by its name."""
    boards: dict[str, list[Result]] = {}
    for result in results:
        boards.setdefault(digest([result.record.task, _key(result.record)]), []).append(result)
    named = {}
    for runs in boards.values():
        record, names = runs[0].record, sorted(result.record.data.name for result in runs)
        # Somebody else may call the same data by another name; the board is named by most.
        named[f"{record.task}-{max(names, key=names.count)}-{_key(record)[:8]}"] = runs
    return named


def _key(record: Record) -> str:
    return digest(
        [record.task, record.version, record.recipe, record.data.fingerprint, record.data.split_hash]
    )


def arms_of(results: Iterable[Result]) -> Arms:
    """Sort runs of one board by arm and synthetic fingerprint, and by seed; the first of the same stands."""
    arms: Arms = {}
    for result in sorted(results, key=lambda result: (result.record.moment, result.record.hash)):
        record = result.record
        arms.setdefault((record.arm, record.synthetic), {}).setdefault(record.seed, result)
    return dict(sorted(arms.items()))


def labels_of(arms: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Label each arm and synthetic fingerprint: with its start where the arm has several."""
    keys = set(arms)
    names = [name for name, _ in keys]
    # Six digits tell any two apart, unless somebody invented them.
    digits = next(n for n in (6, 64) if len({(name, print_[:n]) for name, print_ in keys}) == len(keys))
    return {key: key[0] if names.count(key[0]) == 1 else f"{key[0]} {key[1][:digits]}" for key in keys}


def _board_rows(board: str, results: list[Result]) -> list[dict[str, Any]]:
    check_runs(results)
    record = results[0].record
    arms = arms_of(results)
    labels = labels_of(arms)
    roles = Roles.of({labels[key]: _last(runs) for key, runs in arms.items()})
    places_of = {label: key for key, label in labels.items()}
    for together, members in roles.trainings.items():
        joined = [run for member, _ in members for _, run in sorted(arms[places_of[member]].items())]
        arms[(together, "")] = dict(enumerate(joined))
        labels[(together, "")] = together
    metrics = _newest_metrics(results, board)
    others = [name for name, metric in metrics.items() if metric.headline and name != record.primary]
    places = {name: place for place, name in enumerate([record.primary, *others], 1)}
    rows = []
    for name, metric in metrics.items():
        own = {key: _runs_with(metric, runs) for key, runs in arms.items()}
        own = {key: runs for key, runs in own.items() if runs}
        by_label = {labels[key]: runs for key, runs in own.items()}
        compared = _compare(metric, by_label, roles)
        baseline = [run for label in roles.baseline for run in by_label.get(label, {}).values()]
        references = {
            label: float(_scores(metric, by_label[label].values()).mean())
            for label in roles.references
            if label in by_label
        }
        declared = {
            **{"metric": name, "metric_version": metric.version, "title": metric.title},
            **{"unit": metric.unit, "direction": metric.direction},
            **{"primary": int(name == record.primary), "headline": places.get(name, 0)},
        }
        for key, runs in own.items():
            label = labels[key]
            row = {"board": board} | _describe_arm(runs) | declared | _values(metric, runs)
            if label in roles.trainings:
                row |= {"arm": label, "synthetic_fingerprint": ""}
            if label not in roles.baseline:
                row |= _difference(metric, row["value"], baseline)
            judged = metric.resample or name == record.primary
            if metric.judge:
                row["verdict"] = f"{label}: {metric.judge(_mean_scores(runs), _last(runs).derived)}"
            elif judged and label == BASELINE:
                row["verdict"] = judge_learning(metric, label, row["value"], references)
            elif judged:
                row |= _statistics(metric, label, row, compared.get(label), runs, roles)
            rows.append(row)
    return rows


def _newest_metrics(results: Sequence[Result], board: str) -> dict[str, Metric]:
    """Find the metrics of a board in their newest version, as the last run that has it declares them."""
    newest: dict[str, Metric] = {}
    for result in sorted(results, key=lambda result: (result.record.moment, result.record.hash)):
        for name, metric in result.metrics.items():
            if name not in newest or metric.version >= newest[name].version:
                newest[name] = metric
    behind = [
        result
        for result in results
        if any(
            name not in result.metrics or result.metrics[name].version < m.version
            for name, m in newest.items()
        )
    ]
    if behind:
        log.info(
            f"{board}: {len(behind)} of {len(results)} runs lack a metric or have an older version of it; "
            f"run `dbtbench evaluate --task {behind[0].record.task} --rescore`"
        )
    return newest


def _runs_with(metric: Metric, runs: Runs) -> Runs:
    """Select the runs that have this version of a metric."""
    return {
        seed: run
        for seed, run in runs.items()
        if metric.name in run.metrics and run.metrics[metric.name].version == metric.version
    }


def check_runs(results: Sequence[Result]) -> None:
    """Score all outcomes again, and see that they are of the same test volumes and lesions.

    Args:
        results: runs that may be compared.

    Raises:
        StaleError: naming the first run of which this is not so.
    """
    first: dict[str, Result] = {}
    for result in results:
        if result.record.primary != results[0].record.primary:
            raise StaleError(
                f"{result} has the primary metric {result.record.primary}, "
                f"{results[0]} has {results[0].record.primary}",
                "a task whose primary metric changes needs another version",
            )
        for name, metric in result.metrics.items():
            table = result.outcomes_of(name)
            if table is None or metric.resample is None:
                continue
            found = float(metric.resample(table, np.ones((1, len(patients(table)))))[0])
            said = result.record.scores[name]
            if not same_score(found, said):
                raise StaleError(
                    f"{result}: its outcomes give {name} {found!r}, its record says {said!r}",
                    "one of the two was changed; evaluate again with --fresh",
                )
        for table_name, truth in result.truth.items():
            other = first.setdefault(table_name, result)
            if truth != other.truth[table_name]:
                raise StaleError(
                    f"{result}: its outcomes are of other test volumes or lesions than those of {other}"
                )


def _compare(metric: Metric, arms: Mapping[str, Runs], roles: Roles) -> dict[str, Comparison]:
    """Compare the arms that kept the outcomes of all their runs with the baseline, if that did so, too."""
    if metric.resample is None:
        return {}
    complete = {}
    for label, runs in arms.items():
        tables = {seed: run.outcomes_of(metric.name) for seed, run in runs.items()}
        kept = {seed: table for seed, table in tables.items() if table is not None}
        if len(kept) == len(tables) and label not in (*roles.references, *roles.trainings):
            complete[label] = kept
    baseline = [label for label in roles.baseline if label in arms]
    if BASELINE not in complete or not set(baseline) <= complete.keys():
        return {}
    return compare(metric, complete, roles) if len(complete) > len(baseline) else {}


def _statistics(
    metric: Metric,
    label: str,
    row: Mapping[str, Any],
    comparison: Comparison | None,
    runs: Runs,
    roles: Roles,
) -> dict[str, Any]:
    """Intervals and p-values of the difference, and a verdict also where there are none."""
    if label in roles.references:
        return {
            "verdict": f"{label}: {metric.title} {number(row['value'])}; a reference, nothing was trained"
        }
    if label in roles.baseline:
        return {"verdict": f"{label}: the same distribution as {BASELINE}, and pooled with it"}
    if comparison is not None:
        return _columns(comparison) | {"verdict": comparison.verdict(label, BASELINE)}
    if not row["baseline_seeds"]:
        return {"verdict": f"{label}: no run of {BASELINE} to compare with"}
    if "floor_percentile" in row:
        percentile = row["floor_percentile"]
        where = "inside" if 2.5 <= percentile <= 97.5 else "outside of"
        without = f"{where} the 95 % of what real data score, percentile {percentile:.0f}"
    elif metric.resample:
        without = "no interval, its runs or those of the baseline keep no outcomes"
    elif _last(runs).metrics[metric.name].outcomes:
        without = "no interval, its task is not installed with this version of the metric"
    else:
        without = "no interval, it is not resampled"
    return {"verdict": f"{label}: {metric.compare(row['difference'], BASELINE)}; {without}"}


def _columns(comparison: Comparison) -> dict[str, Any]:
    """Flatten a comparison."""
    difference = comparison.difference
    row: dict[str, Any] = {"difference_low": difference.low, "difference_high": difference.high}
    row |= {"p": difference.p, "p_holm": comparison.p_holm, "method": comparison.method}
    estimates = {name: getattr(comparison, name) for name in ESTIMATES}
    for name in CONTRASTS:
        contrast = getattr(comparison, name)
        estimates[name] = contrast.gain
        row[f"{name}_p"] = contrast.p_in_order
    for name, estimate in estimates.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {"unlearned": comparison.over_unlearned.other}


def _values(metric: Metric, runs: Runs) -> dict[str, Any]:
    values = _scores(metric, runs.values())
    tables = [runs[seed].outcomes_of(metric.name) for seed in sorted(runs)]
    kept = [table for table in tables if table is not None]
    checked = metric.resample and len(kept) == len(tables)
    row = {"value": values.mean(), "sd": values.std(), "verified": "outcomes" if checked else "no"}
    row |= _place(metric, runs.values(), row["value"])
    return row | _compute_shares(metric.find, kept[:SEEDS_OF_SHARES]) if checked and metric.find else row


def _place(metric: Metric, runs: Iterable[Result], value: float) -> dict[str, float]:
    """Average the intervals of an arm's runs and their places on the floor, where each run has them."""
    found = [(run.record.standings or {}).get(metric.name) for run in runs]
    placed = [standing.model_dump() for standing in found if standing is not None]
    if len(placed) < len(found):
        return {}
    mean = {str(name): float(number) for name, number in pd.DataFrame(placed).mean().items()}
    return {
        **{PLACES.get(name, name): number for name, number in mean.items()},
        "excess": value - mean["floor"],
    }


def _compute_shares(find: Find, tables: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Compute which share of what was to be found all, some and none of several runs find.

    At the metric's operating points: what all find at each of them, or none at any, cannot change the score.
    """
    times = pd.concat([find(table) for table in tables], axis=1)
    found, missed = times.all(axis=1).mean(), (~times).all(axis=1).mean()
    return {"found_by_all": found, "found_by_some": 1 - found - missed, "found_by_none": missed}


def _difference(metric: Metric, value: float, baseline: Sequence[Result]) -> dict[str, Any]:
    base = _scores(metric, baseline)
    difference = float(value - base.mean())
    return {
        "baseline": base.mean(),
        "baseline_seeds": len(base),
        "difference": difference,
        "better": metric.better(difference),
    }


def _scores(metric: Metric, runs: Iterable[Result]) -> pd.Series:
    scores = [run.record.scores[metric.name] for run in runs]
    return pd.Series([math.nan if score is None else score for score in scores], dtype=float)


def _mean_scores(runs: Runs) -> dict[str, float]:
    """Compute the mean of every score over seeds, NaN where one of them has none."""
    tables = [pd.Series(run.record.scores, dtype=float) for run in runs.values()]
    return {
        str(name): float(value)
        for name, value in pd.concat(tables, axis=1).mean(axis=1, skipna=False).items()
    }


def _last(runs: Runs) -> Record:
    return max((run.record for run in runs.values()), key=lambda record: (record.moment, record.hash))


def _describe_arm(runs: Runs) -> dict[str, Any]:
    """Describe an arm, in columns that all of its rows have."""
    records = [runs[seed].record for seed in sorted(runs)]
    last = _last(runs)
    made = last.augmentations
    real, synthetic = last.counts.get("training_real"), sum(each.volumes for each in made)
    return {
        "task": last.task,
        "task_version": last.version,
        "dataset": last.data.name,
        "dataset_fingerprint": last.data.fingerprint,
        "split_hash": last.data.split_hash,
        "recipe_hash": last.comparable["recipe hash"],
        "arm": last.arm,
        "generator": "+".join(each.generator for each in made),
        "generator_version": made[0].version if len(made) == 1 else "+".join(str(m.version) for m in made),
        "generator_recipe": "+".join(short_digest(each.recipe) for each in made),
        "derived": "" if last.derived is None else int(last.derived),
        "learned": "" if last.learned is None else int(last.learned),
        "generator_run": "+".join(each.run for each in made),
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
