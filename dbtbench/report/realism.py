"""Realism for the page: scores against the floor of real data, grey values and spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.metric import ARROWS
from dbtbench.metrics.spectrum import BANDS
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.report.tables import format_value
from dbtbench.task import BASELINE

BINS = 128
REGIONS = {"whole": "whole volume, air included", "breast": "inside the breast"}
FURTHEST = 6.0
"""Half-widths of the floor that its chart shows on either side."""
HISTOGRAM_COLUMNS = [f"{side}_{region}" for side in ("arm", "reference") for region in REGIONS]


def describe_realism(material: Material, board: BoardRuns) -> dict[str, Any] | None:
    """Describe one board whose scores have a place among those of real data.

    Returns:
        `arms`, `metrics` with the place of each arm, and `histograms` and `spectra` where the runs kept them;
        None for other boards.
    """
    runs = {label: seeds[min(seeds)] for label, seeds in board.runs.items()}
    if not any(run.record.standings for run in runs.values()):
        return None
    return {
        "board": board.name,
        "arms": list(runs),
        "metrics": _describe_metrics(board),
        "histograms": _describe_histograms(material, board),
        "spectra": _describe_spectra(material, board),
    }


def _describe_metrics(board: BoardRuns) -> list[dict[str, Any]]:
    found = []
    for name, metric in board.first.metrics.items():
        cells = []
        for seeds in board.runs.values():
            run = seeds[min(seeds)]
            standing = (run.record.standings or {}).get(name)
            value = run.record.scores.get(name)
            cell: dict[str, Any] = {"text": format_value(value), "percentile": None}
            if standing is not None and value is not None:
                ends = {"at": value, "low": standing.low, "high": standing.high}
                cell |= {
                    key: _relate(x, standing.floor, standing.floor_low, standing.floor_high)
                    for key, x in ends.items()
                }
                cell |= {
                    "percentile": round(standing.percentile, 1),
                    "inside": bool(standing.floor_low <= value <= standing.floor_high),
                    "interval": f"[{format_value(standing.low)}, {format_value(standing.high)}]",
                    "floor": f"{format_value(standing.floor)} "
                    f"[{format_value(standing.floor_low)}, {format_value(standing.floor_high)}]",
                }
            cells.append(cell)
        if any(cell["percentile"] is not None for cell in cells):
            unit = f" ({metric.unit})" if metric.unit else ""
            found.append(
                {"title": f"{metric.title}{unit}", "arrow": ARROWS[metric.direction], "cells": cells}
            )
    return found


def _relate(value: float, floor: float, low: float, high: float) -> float:
    """Express a value as half-widths of the floor from its median: −1 and 1 are the ends of its 95 %."""
    width = (floor - low) if value < floor else (high - floor)
    if width <= 0:
        return math.copysign(FURTHEST, value - floor) if value != floor else 0.0
    return round(float(np.clip((value - floor) / width, -FURTHEST, FURTHEST)), 3)


def _describe_histograms(material: Material, board: BoardRuns) -> dict[str, Any] | None:
    """Read the grey levels of each arm's first run: shares of voxels in `BINS` bins, by region."""
    series: dict[str, list[dict[str, Any]]] = {region: [] for region in REGIONS}
    for label, seeds in board.runs.items():
        table = material.read_kept(seeds[min(seeds)], "histograms.csv", HISTOGRAM_COLUMNS)
        if table is None or len(table) % BINS:
            continue
        for region, curves in series.items():
            if not curves:
                curves.append({"label": "real test volumes", "value": _share(table[f"reference_{region}"])})
            curves.append({"label": _name(label), "value": _share(table[f"arm_{region}"])})
    if not series["whole"]:
        return None
    centres = [round((k + 0.5) / BINS, 5) for k in range(BINS)]
    regions = [{"title": REGIONS[region], "series": curves} for region, curves in series.items()]
    return {"board": board.name, "points": centres, "regions": regions}


def _name(label: str) -> str:
    """Name what an arm's own volumes are."""
    return "real training volumes" if label == BASELINE else label


def _share(counts: pd.Series) -> list[float]:
    binned = (
        pd.to_numeric(counts, errors="coerce").fillna(0).to_numpy(np.float64).reshape(BINS, -1).sum(axis=1)
    )
    return [float(f"{share:.4g}") for share in binned / max(binned.sum(), 1)]


def _describe_spectra(material: Material, board: BoardRuns) -> dict[str, Any] | None:
    """Read the power of each arm's volumes by octave of frequency: mean and 16th to 84th percentile."""
    columns = [f"power_{name}" for name in BANDS]
    curves: list[dict[str, Any]] = []
    for label, seeds in board.runs.items():
        table = material.read_kept(seeds[min(seeds)], "volumes.csv", ["side", *columns])
        if table is None:
            continue
        sides = (("reference", "real test volumes"),) if not curves else ()
        for side, name in (*sides, ("arm", _name(label))):
            power = table.loc[table["side"] == side, columns].apply(pd.to_numeric, errors="coerce")
            if len(power.dropna()):
                curves.append({"label": name, **_summarise_power(power.dropna())})
    if not curves:
        return None
    points = [round(math.sqrt(low * high), 5) for low, high in BANDS.values()]
    return {"board": board.name, "points": points, "bands": list(BANDS), "series": curves}


def _summarise_power(logs: pd.DataFrame) -> dict[str, Sequence[float]]:
    """Give the geometric mean of the power in each band, and the middle two thirds of the volumes."""
    values = logs.to_numpy(np.float64)
    low, high = np.percentile(values, (16, 84), axis=0)
    ends = {"value": values.mean(axis=0), "low": low, "high": high}
    return {name: [float(f"{x:.4g}") for x in np.exp(part)] for name, part in ends.items()}
