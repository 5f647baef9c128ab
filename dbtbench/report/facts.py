"""Facts of a synthetic data set: what was measured of it, by the seven criteria of synthetic medical data.

Zamzmi et al. 2025 (Communications Engineering 4:130, doi 10.1038/s44172-025-00450-1) ask of a data set for
congruence, coverage, constraint, completeness, compliance, comprehension and consistency. The report and the
cards say the same, from here: what was measured of each, and what was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.schema import read_declaration
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.metric import ARROWS
from dbtbench.pipeline.catalogue import describe_datasets
from dbtbench.records import Result
from dbtbench.records.schema import Augmentation
from dbtbench.report.gathering import Material
from dbtbench.report.tables import format_difference, format_value
from dbtbench.task import ArmName

CRITERIA = {
    "congruence": "as real data are distributed",
    "coverage": "as varied as real data",
    "constraint": "within what can be",
    "completeness": "nothing that is needed is missing",
    "compliance": "privacy and formats",
    "comprehension": "documented",
    "consistency": "the same over seeds, trainings and groups",
}
NOT_MEASURED = {
    "congruence": "by readers, as in a reader study",
    "coverage": "against patients of other sites, scanners and countries",
    "constraint": "anatomy, such as a whole skin line, and physics of the acquisition",
    "completeness": "age, density, symptoms, pathology: the layouts have label, view and boxes only",
    "compliance": "law, consent and licences; formal privacy, such as differential privacy",
    "comprehension": "whether a reader understands this",
    "consistency": "over time, and on other data sets",
}
NO_RUN = {
    "congruence": "everything: no run of the task realism",
    "coverage": "everything: no run of the task realism",
    "compliance": "privacy: no run of the task privacy",
    "consistency": "everything: no run of a task that compares it with real data",
    "completeness": "everything: the data set is not at hand",
}


def list_synthetic(material: Material) -> list[Augmentation]:
    """List the synthetic data sets that runs were made with, by name."""
    found = {made.fingerprint: made for run in material.results for made in run.record.augmentations}
    return sorted(found.values(), key=lambda made: (made.name, made.fingerprint))


def describe_facts(material: Material) -> list[dict[str, Any]]:
    """Describe every synthetic data set of a report, as `describe_synthetic` does."""
    there = _find_datasets(material)
    return [
        describe_synthetic(
            {"name": made.name, "generator": made.generator, "volumes": made.volumes},
            made.fingerprint,
            material,
            there.get(made.fingerprint),
        )
        for made in list_synthetic(material)
    ]


def describe_synthetic(
    made: Mapping[str, Any], fingerprint: str, material: Material | None, dataset: DBTDataset | None
) -> dict[str, Any]:
    """Describe what was measured of one synthetic data set, and what was not.

    Args:
        made: name, generator and volumes.
        fingerprint: of the data set.
        material: boards; None where there are none.
        dataset: the data set, where it is at hand.

    Returns:
        JSON: `name`, `generator`, `volumes`, `fingerprint`, `derived` (None for not known), `gain`,
        `realism` and `privacy` (a sentence per board), and `criteria`: for each `name`, `meaning`,
        `measured` (sentences) and `not_measured`.
    """
    runs = [run for run in material.results if _is_of(run, fingerprint)] if material else []
    rows = _find_rows(material, fingerprint)
    measured = {name: list[str]() for name in CRITERIA}
    kinds: dict[str, list[Any]] = {"gain": [], "realism": [], "privacy": []}
    for row in rows.itertuples():
        metric = next((run.metrics[row.metric] for run in runs if _is_on(run, row)), None)
        if metric is None or pd.isna(row.value):
            continue
        if metric.criterion:
            measured[metric.criterion].append(_say_score(row))
        if row.primary == 1:
            place = metric.distance or not pd.isna(row.floor)
            kinds["privacy" if metric.judge else "realism" if place else "gain"].append(row)
    measured["constraint"] = ["shape, finite values in [0, 1] and boxes inside: checked when it was stored"]
    measured["completeness"] = [] if dataset is None else list(_count_gaps(dataset))
    measured["comprehension"] = ["generator, version, settings, seed and source data are recorded"]
    measured["consistency"] = [_say_spread(row) for row in kinds["gain"] if row.seeds > 1]
    said = {run.record.derived for run in runs if len(run.record.augmentations) == 1}
    said |= {None if dataset is None else read_declaration(dataset.meta["source"], "derived")}
    known = said - {None}
    return {
        **{name: made[name] for name in ("name", "generator", "volumes")},
        "fingerprint": fingerprint,
        "derived": known.pop() if len(known) == 1 else None,
        "gain": [_say_gain(row) for row in kinds["gain"]],
        "realism": [_say_score(row) for row in kinds["realism"]],
        "privacy": [_say_verdict(row) for row in kinds["privacy"]],
        "criteria": [
            {
                "name": name,
                "meaning": meaning,
                "measured": measured[name],
                "not_measured": NOT_MEASURED[name] if measured[name] else NO_RUN[name],
            }
            for name, meaning in CRITERIA.items()
        ],
    }


def _find_datasets(material: Material) -> dict[str, DBTDataset]:
    """Open the synthetic data sets of the workspace, by fingerprint."""
    if material.workspace is None:
        return {}
    wanted = {made.fingerprint for made in list_synthetic(material)}
    described = describe_datasets(material.workspace).items()
    return {
        meta["fingerprint"]: DBTDataset.open(path)
        for path, meta in described
        if meta["fingerprint"] in wanted
    }


def _find_rows(material: Material | None, fingerprint: str) -> pd.DataFrame:
    """Find a data set's own rows on the boards: not those of its controls, nor with other sets."""
    if material is None:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = material.table[material.table["synthetic_fingerprint"] == fingerprint]
    return rows[[not ArmName.parse(str(arm).partition(" (")[0]).control for arm in rows["arm"]]]


def _is_of(run: Result, fingerprint: str) -> bool:
    return fingerprint in {made.fingerprint for made in run.record.augmentations}


def _is_on(run: Result, row: Any) -> bool:
    """Say whether a run stands in a row of the boards."""
    return run.record.task == row.task and row.metric in run.metrics


def _say_score(row: Any) -> str:
    said = f"{row.title} {ARROWS[row.direction]} {format_value(row.value)}"
    if not pd.isna(row.value_low):
        said += f" [{format_value(row.value_low)}, {format_value(row.value_high)}]"
    if not pd.isna(row.floor):
        said += f"; real against real {format_value(row.floor)}"
        said += f" [{format_value(row.floor_low)}, {format_value(row.floor_high)}]"
    return said


def _say_verdict(row: Any) -> str:
    return str(row.verdict) if row.verdict else _say_score(row)


def _say_gain(row: Any) -> str:
    difference = format_difference(row.difference, row.difference_low, row.difference_high)
    return f"{row.task}: {row.title} {format_value(row.value)}, {difference} over real data alone"


def _say_spread(row: Any) -> str:
    return (
        f"{row.task}: {row.title} {format_value(row.value)}, sd {format_value(row.sd)} over {row.seeds} seeds"
    )


def _count_gaps(dataset: DBTDataset) -> Iterator[str]:
    """Count the volumes that lack a box or a spacing."""
    cases = dataset.cases
    positive = cases["label"].isin(["benign", "cancer"])
    yield f"{len(cases)} volumes with label and view"
    without = int((positive & ~dataset.positive).sum())
    yield f"{without} of {int(positive.sum())} with a lesion's label lack a box"
    known = cases["x_mm"].notna() if "x_mm" in cases else pd.Series(False, index=cases.index)
    yield f"{int((~known).sum())} lack the spacing of their voxels"
