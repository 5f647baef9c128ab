"""Views, sides and mirror images of breasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VIEW_PATTERN = r"[lr](?:cc|mlo)[0-9]*"
"""Regular expression of a view's name: the four standard ones, and further ones such as `rmlo2`."""

Volume = NDArray[np.float32]
Boxes = NDArray[np.float32]


def laterality(view: str) -> str:
    """Get the side, `"l"` or `"r"`, of a view such as `lcc` or `rmlo2`."""
    return view[0]


def projection(view: str) -> str:
    """Get the projection, `"cc"` or `"mlo"`, of a view such as `lcc` or `rmlo2`."""
    return "mlo" if view[1:].startswith("mlo") else "cc"


def mirror_boxes(boxes: Boxes, width: int) -> Boxes:
    """Mirror boxes from left to right, as in a volume with `width` columns."""
    out = boxes.copy()
    out[:, 2], out[:, 5] = width - boxes[:, 5], width - boxes[:, 2]
    return out
