"""Privacy for the page: planted copies and how many are found, and the nearest pairs."""

from __future__ import annotations

import base64
import io
from typing import Any

import pandas as pd
from PIL import Image

from dbtbench.metric import ARROWS
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.report.tables import format_value
from dbtbench.runtime.progress import log

FOUND = "found"
"""Unit of the share of planted copies that an audit finds."""
NEAREST_COLUMNS = ["case", "training_case", "similarity", "flagged"]
PAIRS = 8
MOST_PIXELS = 2**22
MOST_PICTURES = 8


def describe_privacy(material: Material, board: BoardRuns) -> dict[str, Any] | None:
    """Describe one board of audits: verdicts, headline scores, recall of planted copies, nearest pairs.

    Returns:
        None for a board whose task plants no copies.
    """
    metrics = board.first.metrics
    kinds = [name for name, metric in metrics.items() if metric.unit == FOUND]
    if not kinds:
        return None
    headline = [name for name, metric in metrics.items() if metric.headline]
    arms: list[dict[str, Any]] = []
    for label, seeds in board.runs.items():
        run = seeds[min(seeds)]
        scores = run.record.scores
        arms.append(
            {
                "label": label,
                "derived": bool(run.record.derived),
                "scores": [format_value(scores.get(name)) for name in headline],
                "recall": [_percent(scores.get(name)) for name in kinds],
                "pairs": _describe_pairs(material, run),
                "picture": _read_picture(material, run) if len(arms) < MOST_PICTURES else None,
            }
        )
    return {
        "board": board.name,
        "headline": [f"{metrics[name].title} {ARROWS[metrics[name].direction]}" for name in headline],
        "kinds": [metrics[name].title for name in kinds],
        "arms": arms,
    }


def _describe_pairs(material: Material, run: Any) -> list[dict[str, Any]]:
    """Read the audited volumes that are most like a training volume."""
    table = material.read_kept(run, "nearest.csv", NEAREST_COLUMNS)
    if table is None:
        return []
    numbers = table[NEAREST_COLUMNS].apply(pd.to_numeric, errors="coerce").dropna()
    nearest = numbers.sort_values("similarity", ascending=False, kind="stable").head(PAIRS)
    return [
        {
            "case": int(row["case"]),
            "training": int(row["training_case"]),
            "similarity": f"{row['similarity']:.3f}",
            "flagged": bool(row["flagged"]),
        }
        for _, row in nearest.iterrows()
    ]


def _read_picture(material: Material, run: Any) -> dict[str, Any] | None:
    """Read the picture of a run's nearest pairs, and write its pixels again, without the rest."""
    folder = material.folder_of(run)
    file = folder / "pairs.png" if folder else None
    if file is None or not file.is_file():
        return None
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            # Sixty-four grey levels and the red of a flagged pair need no more colours.
            plain = image.convert("RGB").quantize(64)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        log.info(f"left out: {file} is no picture: {error}")
        return None
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"url": f"data:image/png;base64,{data}", "width": plain.width, "height": plain.height}


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
