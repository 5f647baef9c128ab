"""The ranking of finished submissions: official DBTex scores of prediction files, without images.

The intervals are those of a fixed submission: patients are resampled, predictions stay as they are. They do
not include the effect of another training seed: `dbtbench.leaderboard.variance` has both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.errors import UsageError
from dbtbench.metrics.afroc import score_afroc
from dbtbench.metrics.froc import FPS_POSITIVE, VIEW_KEY, mean_sensitivity, outcomes, score_dbtex
from dbtbench.metrics.resampling import Floats, draw_weights, patients
from dbtbench.runtime.progress import progress
from dbtbench.submissions.tables import read_boxes, read_labels, read_predictions, team_names

RANKING = ["mean_sensitivity_positive", "sensitivity_at_2_fps_all"]
INTERVAL = (0.025, 0.975)
AT = [f"sensitivity_at_{fps:.0f}_fps_positive" for fps in FPS_POSITIVE]
COLUMNS = [
    *("rank", "team", RANKING[0], f"{RANKING[0]}_low", f"{RANKING[0]}_high"),
    *("difference_to_first", "difference_low", "difference_high", *AT, RANKING[1], "afroc_auc", "wafroc_auc"),
    *("predictions", "volumes", "volumes_with_boxes", "boxes", "patients_with_boxes", "replicates", "seed"),
]
FOOTNOTE = """\
mean sensitivity: at 1, 2, 3, 4 false positives per volume, on volumes with lesions; the challenge's ranking.
all, 2 FP: at 2 false positives per volume on all volumes; breaks ties. AFROC, wAFROC: areas, no threshold.
[ ]: 95 % interval, patients resampled {replicates:,} times, the same ones for every team. It is right for
these predictions as they stand. It does not cover a method that is trained again with another seed:
`dbtbench evaluate` does, by resampling seeds as well as patients."""


def score_submissions(
    labels: Sequence[Path],
    boxes: Sequence[Path],
    predictions: Sequence[Path],
    replicates: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score and rank teams' prediction files by the DBTex rule.

    Patients with lesions are resampled with replacement, the same ones for every team, so that differences
    are paired. Intervals are percentiles of the replicates.

    Args:
        labels: tables of the volumes, see `submissions.read_labels`.
        boxes: tables of the lesions, see `submissions.read_boxes`.
        predictions: one file per team, see `submissions.read_predictions`.
        replicates: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Returns:
        One row per team, the best first: `rank` (the same for equals), `team`, the official scores by their
        official names, `mean_sensitivity_positive_low` and `…_high`, `difference_to_first`, `difference_low`
        and `difference_high` (of `mean_sensitivity_positive`; NaN for the first), `afroc_auc`, `wafroc_auc`,
        the numbers of `predictions`, `volumes`, `volumes_with_boxes`, `boxes`, `patients_with_boxes`, and
        `replicates` and `seed`.

    Raises:
        MissingError: when a file is not there.
        UsageError: when one cannot be read, lacks a column or has a bad cell, there is no lesion, or a volume
            with lesions has no row in the labels or several.
    """
    truth, lesions, names = read_labels(labels), read_boxes(boxes), team_names(predictions)
    if lesions.empty:
        raise UsageError(
            f"{' '.join(map(str, boxes))}: no boxes, so no sensitivity", "name the table of boxes"
        )
    rows, drawn = [], []
    with progress("scoring", len(predictions), "files") as advance:
        for name, path in zip(names, predictions, strict=True):
            predicted = read_predictions(path, truth)
            found = outcomes(truth, lesions, predicted)
            drawn.append(
                mean_sensitivity(
                    found, draw_weights(len(patients(found)), replicates, np.random.default_rng(seed))
                )
            )
            scores = score_dbtex(truth, lesions, predicted) | score_afroc(truth, lesions, predicted)
            counts = {"predictions": len(predicted), "patients_with_boxes": len(patients(found))}
            rows.append({"team": name, **scores, **counts})
            advance(note=name)
    with_boxes = (
        pd.MultiIndex.from_frame(truth[VIEW_KEY]).isin(pd.MultiIndex.from_frame(lesions[VIEW_KEY])).sum()
    )
    shared = {"volumes": len(truth), "volumes_with_boxes": int(with_boxes), "boxes": len(lesions)}
    return _rank(rows, np.array(drawn), shared | {"replicates": replicates, "seed": seed})


def _rank(rows: Sequence[dict[str, Any]], drawn: Floats, shared: Mapping[str, int]) -> pd.DataFrame:
    """Make the board from each team's row and its replicates (teams, R)."""
    table = pd.DataFrame(rows)
    keys = list(table[RANKING].itertuples(index=False, name=None))
    table["rank"] = [1 + sum(other > own for other in keys) for own in keys]
    order = table.sort_values(["rank", "team"]).index
    first = order[0]
    low, high = np.quantile(drawn, INTERVAL, axis=1)
    table["mean_sensitivity_positive_low"], table["mean_sensitivity_positive_high"] = low, high
    value = table["mean_sensitivity_positive"]
    low, high = np.quantile(drawn - drawn[first], INTERVAL, axis=1)
    for column, values in (
        ("difference_to_first", value - value[first]),
        ("difference_low", low),
        ("difference_high", high),
    ):
        table[column] = np.where(table.index == first, np.nan, values)
    table = table.loc[order].reset_index(drop=True).assign(**shared)
    return table[COLUMNS]


def summary(table: pd.DataFrame) -> str:
    """Write the board for a terminal, with a note on its intervals."""
    first = table.iloc[0]
    shown = {
        "rank": table["rank"].map(str),
        "team": table["team"],
        "mean sensitivity": _format_interval(
            table, RANKING[0], f"{RANKING[0]}_low", f"{RANKING[0]}_high", ".3f"
        ),
        "less the first's": _format_interval(
            table, "difference_to_first", "difference_low", "difference_high", "+.3f"
        ),
        **{
            f"{fps:.0f} FP": table[name].map("{:.3f}".format)
            for fps, name in zip(FPS_POSITIVE, AT, strict=True)
        },
        "all, 2 FP": table[RANKING[1]].map("{:.3f}".format),
        "AFROC": table["afroc_auc"].map("{:.3f}".format),
        "wAFROC": table["wafroc_auc"].map("{:.3f}".format),
    }
    columns = [[heading, *cells] for heading, cells in shown.items() if any(cells)]
    widths = [max(map(len, cells)) for cells in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    title = (
        f"{len(table)} submission{'s' * (len(table) > 1)} on {first.volumes:,} volumes, "
        f"{first.volumes_with_boxes:,} of them with {first.boxes:,} lesions "
        f"of {first.patients_with_boxes:,} patients"
    )
    return "\n".join([title, "", *lines, "", FOOTNOTE.format(replicates=first.replicates)])


def _format_interval(table: pd.DataFrame, value: str, low: str, high: str, form: str) -> list[str]:
    cells = table[[value, low, high]].itertuples(index=False, name=None)
    return ["" if np.isnan(v) else f"{v:{form}} [{a:{form}}, {b:{form}}]" for v, a, b in cells]
