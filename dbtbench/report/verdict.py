"""The verdict: what the boards say, in one paragraph each, and what they cannot say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from dbtbench.leaderboard.comparison import ENOUGH_SEEDS
from dbtbench.report.gathering import BoardRuns, Material
from dbtbench.report.tables import format_difference, format_value, judge_row, kind_of, label_rows
from dbtbench.task import BASELINE, CEILING

BRACKETS = re.compile(r" \([^()]*\)")
CONTRASTS = {
    "over_shuffled": "the same volumes with each other's boxes",
    "over_normals": "its lesion-free volumes alone",
    "over_unlearned": "the best augmentation that learns nothing",
}


def write_verdicts(material: Material) -> list[dict[str, Any]]:
    """Write a paragraph for each board: `board`, `title`, `text`, and `details`, the sentence of each arm.

    A task that judges each arm by itself has `lines` in place of the text.
    """
    return [_write(material, board) for board in material.boards]


def _write(material: Material, board: BoardRuns) -> dict[str, Any]:
    rows = label_rows(material.table[material.table["board"] == board.name])
    primary = rows[rows["primary"] == 1].assign(
        outcome=lambda t: [judge_row(row) for _, row in t.iterrows()],
        kind=lambda t: [kind_of(arm) for arm in t["arm"]],
    )
    record = board.first.record
    judged = record.primary in board.first.metrics and board.first.metrics[record.primary].judge
    lines: list[str] = []
    said: list[str] = []
    if judged:
        lines = _say_judgements(primary)
    elif primary["floor_percentile"].notna().any():
        said = _say_places(primary)
    else:
        said = _say_differences(primary)
    data = f"phantom data set {record.data.name}" if record.data.phantom else f"data set {record.data.name}"
    return {
        "board": board.name,
        "title": f"{record.task.capitalize()} on the {data}",
        "text": " ".join(said),
        "lines": lines,
        "details": [row["verdict"] for _, row in primary.iterrows() if row["verdict"]],
    }


def _say_differences(primary: pd.DataFrame) -> list[str]:
    said = []
    title = primary["title"].iloc[0]
    real = primary[primary["label"] == BASELINE]
    references = primary[primary["kind"] == "reference"]
    if not real.empty:
        first = real.iloc[0]
        line = f"Trained on real data alone, {title} is {format_value(first['value'])} "
        line += f"(mean of {_count(first['seeds'], 'seed')})"
        if not references.empty:
            best = references.loc[references["better"].idxmax()]
            line += f"; without any training {best['label']} reaches {format_value(best['value'])}"
        said.append(f"{line}.")
    claims = primary[primary["kind"] == "augmentation"]
    # Several trainings of one generator are one claim, and the board corrects for claims.
    held = claims[claims["p_holm"].notna()] if claims["p_holm"].notna().any() else claims
    if not held.empty:
        said += _say_outcomes(held)
        said += [line for _, row in held.iterrows() for line in _say_contrasts(row)]
    ceiling = primary[(primary["arm"] == CEILING) & primary["difference"].notna()]
    if not ceiling.empty:
        row = ceiling.iloc[0]
        said.append(f"All real data together ({row['label']}) give {_difference(row)}.")
    short = primary[primary["outcome"] == "too few seeds"]
    if not short.empty:
        said.append(f"An arm and {BASELINE} need {ENOUGH_SEEDS} seeds each before a difference is tested.")
    return said


def _say_outcomes(held: pd.DataFrame) -> list[str]:
    """Say which augmentations are better, worse, and neither; the last are named as such."""
    total = len(held)
    said = []
    for outcome, words in (("better", "better than"), ("worse", "worse than")):
        rows = held[held["outcome"] == outcome]
        if not rows.empty:
            are = "is" if len(rows) == 1 else "are"
            said.append(
                f"Of {_count(total, 'augmentation')}, {len(rows)} {are} {words} {BASELINE}: "
                f"{_list(rows, _difference)}."
            )
    same = held[held["outcome"] == "not distinguishable"]
    if not same.empty:
        said.append(f"Not distinguishable from {BASELINE}: {_list(same, _difference)}.")
    short = held[held["outcome"] == "too few seeds"]
    if not short.empty:
        said.append(f"Too few seeds to tell: {_list(short, _difference)}.")
    rest = held[held["outcome"] == "not tested"]
    if not rest.empty:
        said.append(f"Not tested: {_list(rest, _difference)}.")
    return said


def _say_contrasts(row: pd.Series) -> list[str]:
    """Say what a gain is more than; only of arms that are better than the baseline."""
    if row["outcome"] != "better":
        return []
    said = []
    for column, other in CONTRASTS.items():
        value, low, high, p = (row[f"{column}{end}"] for end in ("", "_low", "_high", "_p"))
        if pd.isna(value):
            continue
        verb = "is worse than" if high < 0 else "could not be distinguished from"
        if p <= 0.05 and value > 0:
            verb = "is better than"
        said.append(f"{row['label']} {verb} {other} ({format_difference(value, low, high)}).")
    return said


def _say_places(primary: pd.DataFrame) -> list[str]:
    """Say which sets lie among what real data score against real data of other patients."""
    title, rows = primary["title"].iloc[0], primary[primary["kind"] == "augmentation"]
    rows = rows[~rows["label"].str.contains(r" \(\d+ trainings", regex=True)]
    said = [
        f"{title.capitalize() if title.islower() else title} of each set against real test volumes, among "
        "what real data score against real data of other patients:"
    ]
    for outcome, words in (("within real data", "within"), ("outside real data", "outside of")):
        part = rows[rows["outcome"] == outcome]
        if not part.empty:
            said.append(f"{words} the 95 % of real data: {_list(part, _value)};")
    if len(said) == 1:
        return [f"No synthetic set has a place among real data by {title}."]
    said[-1] = said[-1].removesuffix(";") + "."
    return said


def _say_judgements(primary: pd.DataFrame) -> list[str]:
    """Say an arm's own verdict, without what stands in brackets; the whole is in the details."""
    sentences = [row["verdict"] for _, row in primary.iterrows() if row["verdict"]]
    return [BRACKETS.sub("", text) for text in sentences]


def _difference(row: pd.Series) -> str:
    said = format_difference(row["difference"], row["difference_low"], row["difference_high"])
    if not pd.isna(row["p_holm"]) and row["outcome"] != "too few seeds":
        said += ", Holm p < 0.001" if row["p_holm"] < 0.001 else f", Holm p {row['p_holm']:.2g}"
    return said


def _value(row: pd.Series) -> str:
    return f"{format_value(row['value'])}, percentile {row['floor_percentile']:.0f}"


def _list(rows: pd.DataFrame, form: Callable[[pd.Series], str]) -> str:
    parts = [f"{row['label']} ({form(row)})" for _, row in rows.iterrows()]
    return _join(parts)


def _join(parts: Iterable[str]) -> str:
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
