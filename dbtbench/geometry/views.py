"""Views, sides and mirror images of breasts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VIEW_PATTERN = r"[lr](?:cc|mlo)[0-9]*"
"""Regular expression of a view's name: the four standard ones, and further ones such as `rmlo2`."""

PROJECTIONS = ("cc", "mlo")

Volume = NDArray[np.float32]
Boxes = NDArray[np.float32]


def laterality(view: str) -> str:
    """Get the side, `"l"` or `"r"`, of a view such as `lcc` or `rmlo2`."""
    return view[0]


def projection(view: str) -> str:
    """Get the projection, `"cc"` or `"mlo"`, of a view such as `lcc` or `rmlo2`."""
    return "mlo" if view[1:].startswith("mlo") else "cc"


def image_laterality(frame: NDArray[Any]) -> str | None:
    """Decide the side by the pixels: `"r"` when a frame's right column has more signal than its left one.

    The rule of the collection's own reader (github.com/mazurowski-lab/duke-dbt-data): the laterality tag
    of BCS-DBT reads L on right breasts too, so the pixels decide.

    Args:
        frame: (H, W) values, larger where it is brighter, at full resolution: a column of a reduced image
            mixes several, and could decide otherwise.

    Returns:
        `"l"` or `"r"`; None where both columns have the same sum, which decides nothing.
    """
    exact = np.float64 if frame.dtype.kind == "f" else np.int64
    left, right = frame[:, 0].sum(dtype=exact), frame[:, -1].sum(dtype=exact)
    return None if left == right else "l" if left > right else "r"


def mirror_boxes(boxes: Boxes, width: int) -> Boxes:
    """Mirror boxes from left to right, as in a volume with `width` columns."""
    out = boxes.copy()
    out[:, 2], out[:, 5] = width - boxes[:, 5], width - boxes[:, 2]
    return out
