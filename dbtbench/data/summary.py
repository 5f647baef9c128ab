"""What a data set holds, counted."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dbtbench.data.dataset import LABELS, SPLITS, DBTDataset


def summarise(dataset: DBTDataset) -> dict[str, Any]:
    """Counts of a data set by split and class, by view, and of what was rejected by reason."""
    cases = dataset.cases
    by_class = pd.crosstab(cases["split"], cases["label"]).reindex(index=SPLITS, columns=LABELS, fill_value=0)
    patients = cases.groupby("split")["PatientID"].nunique().reindex(SPLITS, fill_value=0)
    boxes = dataset.boxes.merge(cases[["case", "split"]], on="case").groupby("split").size()
    rejected = pd.read_csv(dataset.path / "rejected.csv", dtype=str)["reason"].value_counts()
    return {
        "name": dataset.name,
        "path": str(dataset.path),
        "kind": dataset.meta["source"]["kind"],
        "grid": list(dataset.grid),
        "intensity": dataset.meta["intensity"],
        "volumes": len(dataset),
        "splits": {
            split: {
                "patients": int(patients[split]),
                "volumes": int(by_class.loc[split].sum()),
                **{label: int(by_class.loc[split, label]) for label in LABELS},
                "boxes": int(boxes.get(split, 0)),
            }
            for split in SPLITS
        },
        "views": {str(view): int(n) for view, n in cases["View"].value_counts().sort_index().items()},
        "rejected": {str(reason): int(n) for reason, n in rejected.items()},
        "fingerprint": dataset.fingerprint,
    }


def as_text(summary: dict[str, Any]) -> str:
    """The summary for a terminal."""
    grid = " × ".join(map(str, summary["grid"]))
    intensity = ", ".join(f"{key} {value}" for key, value in summary["intensity"].items())
    table = pd.DataFrame(summary["splits"]).T
    table.loc["all"] = table.sum()
    lines = [
        f"{summary['name']}: {summary['volumes']} volumes of {grid} ({intensity}), {summary['kind']}",
        f"in {summary['path']}",
        table.to_string(),
        "views: " + ", ".join(f"{view} {n}" for view, n in summary["views"].items()),
        *(f"rejected: {n} × {reason}" for reason, n in summary["rejected"].items()),
        f"fingerprint: {summary['fingerprint'][:12]}",
    ]
    return "\n".join(lines)
