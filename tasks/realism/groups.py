"""Realism by group: density, projection, lesion, its size and kind, wherever both sides name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np
import pandas as pd

from dbtbench.data.groups import GROUPS
from dbtbench.metric import Metric, Standing, number

from .floor import draw_floor, resample, stand
from .matching import label_strata, match, pick
from .scoring import ENOUGH, Sides, score_simple
from .table import Table


def score_groups(sides: Sides, pool: Table, draws: int, seed: int) -> pd.DataFrame:
    """Score each group of the judged volumes against the same group of the reference.

    Groups with fewer than 16 volumes on a side are left out.

    Returns:
        One row for each group and metric: `column`, `group`, `volumes`, `metric`, `value`, and the fields of
        `Standing` (NaN where it has none).
    """
    rows = []
    for column, group, own, pooled in _select_groups(sides, pool):
        matched, mix = match([own.own.cases, own.reference.cases], min(len(own.own), len(own.reference)))
        rng = np.random.default_rng([seed, 3])
        of_own, of_reference = (
            pick(label_strata(table.cases, matched), mix, rng) for table in (own.own, own.reference)
        )
        if len(of_own) < ENOUGH:
            continue
        same = own.take(of_own, of_reference)
        scores = score_simple(same)
        strata = label_strata(pooled.cases, matched)
        standings: Mapping[str, Standing] = {}
        if draws:
            floor = draw_floor(pooled, strata, mix, draws, seed, score_simple, _ignore)
            halves = resample(same, draws, seed, score_simple, _ignore)
            standings = stand(scores, floor, halves)
        for name, value in scores.items():
            placed = standings.get(name)
            rows.append(
                {"column": column, "group": group, "volumes": len(of_own), "metric": name, "value": value}
                | ({} if placed is None else placed.describe())
            )
    return pd.DataFrame(
        rows,
        columns=[
            "column",
            "group",
            "volumes",
            "metric",
            "value",
            *(field.name for field in fields(Standing)),
        ],
    )


def name_worst(groups: pd.DataFrame, metric: Metric) -> str:
    """Say in which group a distance is furthest above the floor; empty without groups.

    The excess over the floor's median, in units of the way from there to the floor's upper end.
    """
    rows = groups[(groups["metric"] == metric.name) & groups["floor"].notna()]
    if rows.empty:
        return ""
    excess = (rows["value"] - rows["floor"]) / (rows["floor_high"] - rows["floor"]).clip(lower=1e-12)
    worst = rows.loc[excess.idxmax()]
    return (
        f"worst group: {worst['column']} {worst['group']} ({worst['volumes']} volumes), {metric.title} "
        f"{number(worst['value'])} against {number(worst['floor'])} of real data, "
        f"percentile {worst['percentile']:.0f}"
    )


def _select_groups(sides: Sides, pool: Table) -> Iterator[tuple[str, str, Sides, Table]]:
    """Select the rows of each group that both sides have."""
    tables: Mapping[str, Table] = {"own": sides.own, "reference": sides.reference, "pool": pool}
    for column in GROUPS:
        if any(column not in table.cases for table in tables.values()):
            continue
        for group in sorted(set(sides.own.cases[column]) & set(sides.reference.cases[column]) - {""}):
            rows = {name: np.flatnonzero(table.cases[column] == group) for name, table in tables.items()}
            if min(len(rows["own"]), len(rows["reference"])) >= ENOUGH:
                same = sides.take(rows["own"], rows["reference"])
                yield column, group, same, pool.take(rows["pool"])


def _ignore(_: int = 1) -> None:
    """Show no progress."""
