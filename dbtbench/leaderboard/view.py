"""The board for readers: wide, with one row an arm, on the terminal and in README files."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from dbtbench.errors import UsageError
from dbtbench.leaderboard.board import labels_of
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.task import BASELINE

LINE = 110
HEADING = 12


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One board with one row an arm.

    Args:
        table: the rows of one board (`COLUMNS`).

    Returns:
        Indexed by arm (with the start of its synthetic fingerprint where it has several synthetic data sets)
        and number of seeds; the mean over seeds of each metric, the primary one first.
    """
    keys = list(zip(table["arm"], table["synthetic_fingerprint"].fillna(""), strict=True))
    labels = labels_of(dict.fromkeys(keys))
    rows = table.assign(label=[labels[key] for key in keys])
    metrics = rows.sort_values(["primary", "metric"], ascending=[False, True])["metric"].unique()
    values = rows.pivot_table("value", "label", "metric", aggfunc="first", dropna=False)[metrics]
    arms = rows[["label", "seeds"]].drop_duplicates()
    return values.loc[arms["label"]].set_axis(pd.MultiIndex.from_frame(arms, names=["arm", "seeds"]))


def summary(table: pd.DataFrame) -> str:
    """The boards for a terminal: means over seeds with the primary metric first, then a verdict for each arm.

    Args:
        table: boards in long form, from `rank` or `publish`.
    """
    parts = []
    for board, rows in table.groupby("board", sort=False):
        primary = rows["primary"] == 1
        heading = f"{board} (means over seeds; * {rows.loc[primary, 'metric'].iloc[0]} decides)"
        verdicts = [verdict for verdict in rows.loc[primary, "verdict"] if verdict]
        parts.append("\n".join([heading, *_blocks(wide(rows)), *(verdicts and ["", *verdicts])]))
    return "\n\n".join(parts)


def _blocks(values: pd.DataFrame) -> Iterator[str]:
    """Lines of a wide table, in blocks of as many columns as fit."""
    labels = [f"{arm} ×{seeds}" for arm, seeds in values.index]
    room = LINE - max(map(len, labels))
    block: list[list[str]] = []
    for number, name in enumerate(values.columns):
        column = [*_heading(name if number else f"*{name}"), *map(_short, values[name])]
        if block and sum(_width(other) for other in [*block, column]) > room:
            yield from [*_lines(labels, block), ""]
            block = []
        block.append(column)
    yield from _lines(labels, block)


def _lines(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns beside their labels; headings stand at the bottom of their lines."""
    height = max(map(len, columns))
    first = max(map(len, labels))
    for row in range(-height, 0):
        label = labels[row] if -row <= len(labels) else ""
        cells = [f"{column[row] if -row <= len(column) else '':>{_width(column)}}" for column in columns]
        yield f"{label:{first}}{''.join(cells)}".rstrip()


def _width(column: Sequence[str]) -> int:
    return 2 + max(map(len, column))


def _heading(name: str) -> list[str]:
    """A metric's name on lines of at most `HEADING` characters, broken after underscores."""
    lines = [""]
    for word in re.findall(r"[^_]*_?", name):
        if lines[-1] and len(lines[-1] + word) > HEADING:
            lines.append("")
        lines[-1] += word
    return lines


def _short(value: float, signed: bool = False) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def markdown(table: pd.DataFrame) -> str:
    """The boards as Markdown: arm, seeds, primary metric, gain with interval, Holm's p, verdict."""
    parts = []
    for board, rows in table[table["primary"] == 1].groupby("board", sort=False):
        metric = _escaped(rows["metric"].iloc[0])
        lines = [
            f"**{_escaped(board)}**",
            "",
            f"| arm | seeds | {metric} | gain over {BASELINE} [95 %] | Holm p | verdict |",
            "|---|---|---|---|---|---|",
        ]
        labels = wide(rows).index.get_level_values("arm")
        for label, (_, row) in zip(labels, rows.iterrows(), strict=True):
            gain = "" if row["arm"] == BASELINE else _short(row["gain"], signed=True)
            if not pd.isna(row["gain_low"]):
                gain += f" [{_short(row['gain_low'], signed=True)}, {_short(row['gain_high'], signed=True)}]"
            p = "" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}"
            cells = [label, str(row["seeds"]), _short(row["value"]), gain, p, row["verdict"]]
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def column_table() -> str:
    """What the columns of leaderboard.csv say, as Markdown."""
    return "\n".join(
        ["| column | |", "|---|---|", *(f"| {name} | {text} |" for name, text in COLUMNS.items())]
    )


def _escaped(cell: str) -> str:
    """Text that Markdown shows as it is: no HTML, no table cell, link or emphasis of its own."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(" ".join(str(cell).split()), quote=False))


def filled(path: Path, sections: dict[str, str]) -> bytes:
    """A file's bytes with what stands between its markers `<!-- NAME -->` and `<!-- /NAME -->` made anew.

    Args:
        path: a text file; nothing else of it changes, whatever its encoding.
        sections: the content for each NAME; a NAME whose markers the file lacks is left out.

    Raises:
        UsageError: when a marker is there without its other half, or several times.
    """
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    for name, content in sections.items():
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        counts = text.count(opening), text.count(closing)
        if counts == (0, 0):
            continue
        start, end = text.find(opening) + len(opening), text.find(closing)
        if counts != (1, 1) or start > end:
            raise UsageError(f"{path} must have {opening} and then {closing} once each", "mend the markers")
        text = f"{text[:start]}\n\n{content}\n\n{text[end:]}"
    return text.encode("utf-8", "surrogateescape")
