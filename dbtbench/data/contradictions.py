"""Labels and boxes that contradict each other: no row is wrong by itself, and none is left out."""

from __future__ import annotations

import pandas as pd

LESIONS = ("benign", "cancer")
"""Labels of volumes with boxes, and classes of boxes."""
NO_BOX = "labelled benign or cancer, and has no box"
UNEXPECTED_BOX = "labelled normal or actionable, and has a box"
OTHER_CLASS = "a box has another class than the label"
NO_CLASS = "a box's class is neither benign nor cancer"


def find_contradictions(cases: pd.DataFrame, boxes: pd.DataFrame) -> dict[str, list[int]]:
    """Find the volumes whose label and boxes contradict each other.

    Args:
        cases: `case` and `label` of each volume.
        boxes: `case` and `Class` of each box.

    Returns:
        Each contradiction that there is, and the numbers of its volumes in order.
    """
    ill = cases["label"].isin(LESIONS)
    label = boxes["case"].map(dict(zip(cases["case"], cases["label"], strict=True)))
    known = boxes["Class"].astype(str).str.lower()
    found = {
        NO_BOX: cases.loc[ill & ~cases["case"].isin(boxes["case"]), "case"],
        UNEXPECTED_BOX: cases.loc[~ill & cases["case"].isin(boxes["case"]), "case"],
        OTHER_CLASS: boxes.loc[known.isin(LESIONS) & label.isin(LESIONS) & (known != label), "case"],
        NO_CLASS: boxes.loc[~known.isin(LESIONS), "case"],
    }
    return {name: sorted(set(map(int, numbers))) for name, numbers in found.items() if len(numbers)}
