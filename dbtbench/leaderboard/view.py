"""The board for readers: wide, with one row an arm, on the terminal and in README files."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import pandas as pd

from dbtbench.errors import UsageError
from dbtbench.leaderboard.board import labels_of
from dbtbench.leaderboard.columns import COLUMNS
from dbtbench.metric import heading
from dbtbench.runtime.text import printable
from dbtbench.task import BASELINE, CEILING

LINE = 110
HEADING = 12
SMALL = 0.1
"""Values below have four decimals where their interval is shown."""
SHARES = ("found_by_all", "found_by_some", "found_by_none")


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """Pivot one board to one row an arm.

    Args:
        table: the rows of one board (`COLUMNS`).

    Returns:
        Indexed by arm (with the start of its synthetic fingerprint where it has several synthetic data sets)
        and number of seeds; the mean over seeds of each metric, the primary one first, then the others that
        the terminal shows.
    """
    keys = list(zip(table["arm"], table["synthetic_fingerprint"].fillna(""), strict=True))
    labels = labels_of(dict.fromkeys(keys))
    rows = table.assign(label=[labels[key] for key in keys])
    place = rows["headline"].where(rows["headline"] > 0, math.inf)
    metrics = rows.assign(place=place).sort_values(["place", "metric"])["metric"].unique()
    values = rows.pivot_table("value", "label", "metric", aggfunc="first", dropna=False)[metrics]
    arms = rows.groupby("label", sort=False)["seeds"].max().reset_index()
    return values.loc[arms["label"]].set_axis(pd.MultiIndex.from_frame(arms, names=["arm", "seeds"]))


def summary(table: pd.DataFrame) -> str:
    """Format the boards for a terminal: means of the headline metrics over seeds, then a verdict an arm.

    Args:
        table: boards in long form, from `rank` or `publish`.
    """
    parts = []
    for board, rows in table.groupby("board", sort=False):
        shown = rows[rows["headline"] > 0]
        primary = rows[rows["primary"] == 1]
        headings = {row["metric"]: _heading_of(row) for _, row in shown.iterrows()}
        lines = [f"{board} (means over seeds; * {primary['title'].iloc[0]} decides)"]
        lines += _blocks(wide(rows)[list(wide(shown))], headings, _places(shown))
        if more := rows["metric"].nunique() - len(headings):
            lines.append(f"{more} more metric{'s are' if more > 1 else ' is'} in the CSV")
        notes = (_explain_places(shown), _describe_head_room(primary))
        said = [line for line in (*notes, *primary["verdict"]) if line]
        parts.append("\n".join([*lines, *(said and ["", *said])]))
    return "\n\n".join(parts)


def _describe_head_room(primary: pd.DataFrame) -> str:
    """Say how many of the lesions can tell anything, those found sometimes; nothing where it is not known."""
    shown = primary[primary["arm"].isin((BASELINE, CEILING)) & primary["found_by_all"].notna()]
    shares = [
        f"{row['arm']} {', '.join(f'{100 * row[share]:.0f}' for share in SHARES)} %"
        for _, row in shown.iterrows()
    ]
    return f"test lesions found always, sometimes and never: {'; '.join(shares)}" if shares else ""


def _places(rows: pd.DataFrame) -> Mapping[tuple[str, float], str]:
    """Format values that have a place on the floor, by metric and value."""
    placed = rows[rows["floor_percentile"].notna()]
    return {(row["metric"], row["value"]): _place(row) for _, row in placed.iterrows()}


def _place(row: pd.Series) -> str:
    """Format a value with its interval and its percentile on the floor."""
    decimals = 3 if abs(row["value"]) >= SMALL else 4
    value, low, high = (f"{row[name]:.{decimals}f}" for name in ("value", "value_low", "value_high"))
    return f"{value} [{low}, {high}] P{row['floor_percentile']:.0f}"


def _explain_places(rows: pd.DataFrame) -> str:
    """Say what the brackets and the percentiles are; nothing where there are none."""
    if rows["floor_percentile"].notna().any():
        return "[95 % interval]; P: percentile among scores of real data against real data of other patients"
    return ""


def _blocks(
    values: pd.DataFrame, headings: Mapping[str, str], places: Mapping[tuple[str, float], str]
) -> Iterator[str]:
    """Format the lines of a wide table, in blocks of as many columns as fit."""
    labels = [f"{arm} ×{seeds}" for arm, seeds in values.index]
    room = LINE - max(map(len, labels))
    block: list[list[str]] = []
    for place, name in enumerate(values.columns):
        title = headings[name] if place else f"*{headings[name]}"
        cells = [places.get((str(name), value), _short(value)) for value in values[name]]
        column = [*_break_heading(title), *cells]
        if block and sum(_width(other) for other in [*block, column]) > room:
            yield from [*_lines(labels, block), ""]
            block = []
        block.append(column)
    yield from _lines(labels, block)


def _heading_of(row: pd.Series) -> str:
    unit = "" if pd.isna(row["unit"]) else row["unit"]
    return heading(row["title"], unit, row["direction"])


def _lines(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Set columns next to their labels; headings stand at the bottom of their lines."""
    height = max(map(len, columns))
    first = max(map(len, labels))
    for row in range(-height, 0):
        label = labels[row] if -row <= len(labels) else ""
        cells = [f"{column[row] if -row <= len(column) else '':>{_width(column)}}" for column in columns]
        yield f"{label:{first}}{''.join(cells)}".rstrip()


def _width(column: Sequence[str]) -> int:
    return 2 + max(map(len, column))


def _break_heading(text: str) -> list[str]:
    """Break a heading into lines of at most `HEADING` characters, broken at spaces."""
    return wrap(text, HEADING, break_long_words=False, break_on_hyphens=False)


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def markdown(table: pd.DataFrame) -> str:
    """Format the boards as Markdown: the primary metric, difference, verdict, and whether it is verified."""
    parts = []
    for board, rows in table[table["primary"] == 1].groupby("board", sort=False):
        lines = [
            f"**{_escape(board)}**",
            "",
            f"| arm | seeds | {_escape(_heading_of(rows.iloc[0]))} | difference from {BASELINE} [95 %] "
            "| Holm p | verdict | verified |",
            "|---|---|---|---|---|---|---|",
        ]
        labels = wide(rows).index.get_level_values("arm")
        for label, (_, row) in zip(labels, rows.iterrows(), strict=True):
            difference = "" if row["arm"] == BASELINE else _with_sign(row["difference"])
            if not pd.isna(row["difference_low"]):
                difference += f" [{_with_sign(row['difference_low'])}, {_with_sign(row['difference_high'])}]"
            p = "" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}"
            value = _short(row["value"]) if pd.isna(row["floor_percentile"]) else _place(row)
            cells = [label, str(row["seeds"]), value, difference, p, row["verdict"]]
            cells.append("by its outcomes" if row["verified"] == "outcomes" else "no")
            lines.append(f"| {' | '.join(map(_escape, cells))} |")
        if line := _describe_head_room(rows):
            lines += ["", f"{line[0].upper()}{line[1:]}."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _with_sign(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def column_table() -> str:
    """List the columns of leaderboard.csv and their meaning, as Markdown."""
    return "\n".join(
        ["| column | |", "|---|---|", *(f"| {name} | {text} |" for name, text in COLUMNS.items())]
    )


def _escape(cell: str) -> str:
    """Escape text so that Markdown shows it as it is: no HTML, table cell, link, emphasis or formula."""
    text = html.escape(printable(" ".join(str(cell).split())), quote=False)
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\g<0>", text)  # an address becomes a link by itself


def fill_markers(path: Path, sections: dict[str, str]) -> bytes:
    """Make a file's bytes with new content between its markers `<!-- NAME -->` and `<!-- /NAME -->`.

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
            raise UsageError(
                f"{path} must have {opening} and then {closing} once each", "put the markers back"
            )
        text = f"{text[:start]}\n\n{content}\n\n{text[end:]}"
    return text.encode("utf-8", "surrogateescape")
