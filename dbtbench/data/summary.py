"""What a data set holds, counted, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd

from dbtbench.data.dataset import LABELS, SPLITS, DBTDataset

WIDTH = 80
DIGEST = 64
"""Characters of a SHA-256."""


def summarise(dataset: DBTDataset) -> dict[str, Any]:
    """Count a data set by split, class and view.

    Args:
        dataset: the data set; one that was written before accounts were kept has `account` None.

    Returns:
        JSON: `name`, `path`, `source`, `grid`, `intensity`, `split`, `volumes`, `splits` (for each: patients,
        volumes, each class, volumes_with_boxes, boxes), `views` (for each: volumes by split), `account`,
        `rejected` (volumes by reason) and `fingerprint`.

    Raises:
        DBTBenchError: when rejected.csv cannot be read.
    """
    cases = dataset.cases.assign(with_boxes=dataset.cases["case"].isin(dataset.boxes["case"]))
    boxes = dataset.boxes[["case"]].merge(cases[["case", "split"]], on="case").groupby("split").size()
    rejected = dataset.rejected()
    reasons = rejected.loc[rejected["table"] != "boxes", "reason"].value_counts()
    views = pd.crosstab(cases["View"], cases["split"]).reindex(columns=SPLITS, fill_value=0)
    return {
        "name": dataset.name,
        "path": str(dataset.path),
        "source": dataset.meta["source"],
        "grid": list(dataset.grid),
        "intensity": dataset.meta["intensity"],
        "split": dataset.meta["split"],
        "volumes": len(dataset),
        "splits": {
            split: _counts(cases[cases["split"] == split], int(boxes.get(split, 0))) for split in SPLITS
        },
        "views": {
            str(row.Index): dict(zip(SPLITS, map(int, row[1:]), strict=True)) for row in views.itertuples()
        },
        "account": dataset.meta.get("account"),
        "rejected": {str(reason): int(n) for reason, n in reasons.items()},
        "fingerprint": dataset.fingerprint,
    }


def _counts(cases: pd.DataFrame, boxes: int) -> dict[str, int]:
    return {
        "patients": int(cases["PatientID"].nunique()),
        "volumes": len(cases),
        **{label: int((cases["label"] == label).sum()) for label in LABELS},
        "volumes_with_boxes": int(cases["with_boxes"].sum()),
        "boxes": boxes,
    }


def as_text(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal of 80 columns."""
    grid = " × ".join(map(str, summary["grid"]))
    made = {
        "from": _words(summary["source"]),
        "intensity": _words(summary["intensity"]) + " (bimodality depends on this)",
        "split": _words(summary["split"]),
    }
    lines = [
        f"{summary['name']}: {summary['volumes']:,} volumes of {grid} (slices × rows × columns)",
        f"in {summary['path']}",
        "",
        *(fill(f"{title:<10} {words}", WIDTH, subsequent_indent=" " * 11) for title, words in made.items()),
        "",
        *_by_split(summary["splits"]),
        "",
        *_by_view(summary["views"]),
        "",
        *(account_lines(summary["account"]) if summary["account"] else _rejected(summary["rejected"])),
        f"fingerprint {summary['fingerprint'][:12]}",
    ]
    return "\n".join(lines)


def _words(settings: Mapping[str, Any]) -> str:
    """`kind, key value, key value`: digests cut to 12 characters, and the name of what is nested."""
    named = {key: value.get("name") if isinstance(value, dict) else value for key, value in settings.items()}
    short = {
        key: value[:12] if isinstance(value, str) and len(value) == DIGEST else value
        for key, value in named.items()
        if value is not None
    }
    kind = [str(short.pop("kind"))] if "kind" in short else []
    return ", ".join([*kind, *(f"{key} {value}" for key, value in short.items())]) or "not known"


def _by_split(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    splits = {split: n for split, n in splits.items() if n["volumes"] or split != "reserve"}
    table = pd.DataFrame(splits).T.rename(columns={"volumes_with_boxes": "with boxes"})
    return _table(table, "split")


def _by_view(views: Mapping[str, Mapping[str, int]]) -> list[str]:
    table = pd.DataFrame(views).T.reindex(columns=SPLITS)
    if not table["reserve"].any():
        table = table.drop(columns="reserve")
    table.insert(0, "volumes", table.sum(axis=1))
    return _table(table, "view")


def _table(table: pd.DataFrame, title: str) -> list[str]:
    """Lines of a table with the sum of every column below; patients are in one split each, so they add up."""
    table = table.astype(int)
    table.loc["all"] = table.sum()
    table.columns = pd.Index(table.columns, name=title)
    text: str = table.map("{:,}".format).to_string()
    return text.splitlines()


def account_lines(account: Mapping[str, Any]) -> list[str]:
    """What became of every row of an import's tables, for a terminal of 80 columns.

    Args:
        account: `account` of dataset.json.
    """
    lines = []
    for title, counts in (("volumes", account), ("boxes", account["boxes"])):
        lines.append(
            f"{title}: {counts['rows']:,} rows = {counts['imported']:,} imported "
            f"+ {sum(counts['rejected'].values()):,} rejected + {counts['missing']:,} not downloaded"
        )
        lines += _rejected(counts["rejected"])
    return lines


def _rejected(reasons: Mapping[str, int]) -> list[str]:
    lines = (f"  rejected: {count:,} × {reason}" for reason, count in reasons.items())
    return [fill(line, WIDTH, subsequent_indent=" " * 12) for line in lines]
