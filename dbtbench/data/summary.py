"""The summary of a data set: its counts and its source."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd

from dbtbench.data.dataset import LABELS, SPLITS, DBTDataset
from dbtbench.data.verification import WITHOUT_VOLUMES
from dbtbench.runtime.text import one_line

WIDTH = 80
DIGEST = 64
"""Characters of a SHA-256."""


def summarise(dataset: DBTDataset) -> dict[str, Any]:
    """Count a data set by split, class and view.

    Args:
        dataset: the data set; one without an import report has `import_report` None.

    Returns:
        JSON: `name`, `path`, `source`, `grid`, `intensity`, `split`, `volumes`, `splits` (for each: patients,
        volumes, each class, volumes_with_boxes, boxes), `views` (for each: volumes by split),
        `import_report`, `rejected` (volumes by reason) and `fingerprint`.

    Raises:
        DBTBenchError: when rejected.csv cannot be read.
    """
    cases = dataset.cases.assign(with_boxes=dataset.positive)
    boxes = dataset.boxes[["case"]].merge(cases[["case", "split"]], on="case").groupby("split").size()
    rejected = dataset.read_rejected()
    reasons = rejected.loc[rejected["table"] != "boxes", "reason"].value_counts()
    views = pd.crosstab(cases["View"], cases["split"]).reindex(columns=SPLITS, fill_value=0)
    return {
        "name": dataset.name,
        "path": str(dataset.path),
        "source": dataset.meta["source"],
        "grid": list(dataset.grid),
        "intensity": dataset.meta["intensity"],
        "split": {key: value for key, value in dataset.meta["split"].items() if key != WITHOUT_VOLUMES},
        "volumes": len(dataset),
        "splits": {
            split: _count(cases[cases["split"] == split], int(boxes.get(split, 0))) for split in SPLITS
        },
        "views": {
            str(row.Index): dict(zip(SPLITS, map(int, row[1:]), strict=True)) for row in views.itertuples()
        },
        "import_report": dataset.meta.get("import_report"),
        "rejected": {str(reason): int(n) for reason, n in reasons.items()},
        "fingerprint": dataset.fingerprint,
    }


def _count(cases: pd.DataFrame, boxes: int) -> dict[str, int]:
    return {
        "patients": int(cases["PatientID"].nunique()),
        "volumes": len(cases),
        **{label: int((cases["label"] == label).sum()) for label in LABELS},
        "volumes_with_boxes": int(cases["with_boxes"].sum()),
        "boxes": boxes,
    }


def as_text(summary: Mapping[str, Any]) -> str:
    """Write a summary as text for a terminal of 80 columns."""
    grid = " × ".join(map(str, summary["grid"]))
    made = {
        "from": _join_settings(summary["source"]),
        "intensity": _join_settings(summary["intensity"]) + " (bimodality depends on this)",
        "split": _join_settings(summary["split"]),
    }
    lines = [
        f"{one_line(summary['name'])}: {summary['volumes']:,} volumes of {grid} (slices × rows × columns)",
        f"in {summary['path']}",
        "",
        *(fill(f"{title:<10} {words}", WIDTH, subsequent_indent=" " * 11) for title, words in made.items()),
        "",
        *_split_lines(summary["splits"]),
        "",
        *_view_lines(summary["views"]),
        "",
        *map(
            one_line,
            report_lines(summary["import_report"])
            if summary["import_report"]
            else _reason_lines(summary["rejected"]),
        ),
        f"fingerprint {one_line(summary['fingerprint'][:12])}",
    ]
    return "\n".join(lines)


def _join_settings(settings: Mapping[str, Any]) -> str:
    """Write settings as `kind, key value, key value`; digests are cut to 12 characters."""
    named = {key: value.get("name") if isinstance(value, dict) else value for key, value in settings.items()}
    short = {
        key: value[:12] if isinstance(value, str) and len(value) == DIGEST else value
        for key, value in named.items()
        if value is not None
    }
    kind = [str(short.pop("kind"))] if "kind" in short else []
    return ", ".join([*kind, *(f"{key} {value}" for key, value in short.items())]) or "not known"


def _split_lines(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    splits = {split: n for split, n in splits.items() if n["volumes"] or split != "reserve"}
    table = pd.DataFrame(splits).T.rename(columns={"volumes_with_boxes": "with boxes"})
    return _table_lines(table, "split")


def _view_lines(views: Mapping[str, Mapping[str, int]]) -> list[str]:
    table = pd.DataFrame(views).T.reindex(columns=SPLITS)
    if not table["reserve"].any():
        table = table.drop(columns="reserve")
    table.insert(0, "volumes", table.sum(axis=1))
    return _table_lines(table, "view")


def _table_lines(table: pd.DataFrame, title: str) -> list[str]:
    """Write a table with a last row of sums. A patient is in one split, so patients add up too."""
    table = table.astype(int)
    table.loc["all"] = table.sum()
    table.columns = pd.Index(table.columns, name=title)
    text: str = table.map("{:,}".format).to_string()
    return text.splitlines()


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Write an import report as lines for a terminal of 80 columns.

    Args:
        report: `import_report` of dataset.json.
    """
    lines = []
    for title, counts in (("volumes", report), ("boxes", report["boxes"])):
        lines.append(
            f"{title}: {counts['rows']:,} rows = {counts['imported']:,} imported "
            f"+ {sum(counts['rejected'].values()):,} rejected + {counts['missing']:,} not downloaded"
        )
        lines += _reason_lines(counts["rejected"])
    if described := describe_orientation(report):
        lines.append(f"orientation ({report['orientation']['rule']}): {described}")
    return lines + _reason_lines(report.get("notices", {}), "notice")


def describe_orientation(report: Mapping[str, Any]) -> str:
    """Say how many volumes were turned by 180°, as an import report has it; "" where it does not."""
    found = report.get("orientation")
    if not found:
        return ""
    return f"turned {found['turned']:,} of {report['imported']:,}, undecided {len(found['undecided']):,}"


def _reason_lines(reasons: Mapping[str, int], title: str = "rejected") -> list[str]:
    lines = (f"  {title}: {count:,} × {reason}" for reason, count in reasons.items())
    return [fill(line, WIDTH, subsequent_indent=" " * 12) for line in lines]
