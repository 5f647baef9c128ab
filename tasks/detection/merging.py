"""One finding for each place in the plane: detections one above the other are merged."""

from __future__ import annotations

import numpy as np
from monai.data.box_utils import box_iou, non_max_suppression
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes


def merge_depths(
    boxes: Boxes, scores: NDArray[np.float32], overlap: float
) -> tuple[Boxes, NDArray[np.float32]]:
    """Merge detections that overlap in the plane, whatever their depths.

    Tomosynthesis smears a lesion over many slices, and the detector finds it in several. Each of these is a
    false positive but one, and the best of them is in the right slice by chance only; the mean of their
    depths, weighted by score, is nearer.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        scores: (n,) in [0, 1].
        overlap: of two detections with a larger intersection over union in the plane, the better is kept.

    Returns:
        Boxes and scores, the best first: as deep as they were, at the weighted mean of depths.
    """
    if not len(boxes):
        return boxes, scores
    flat = boxes.copy()
    flat[:, 0], flat[:, 3] = 0, 1
    kept = np.asarray(non_max_suppression(flat, scores, overlap))
    weights = (box_iou(flat[kept], flat) > overlap) * scores
    depths = weights @ boxes[:, [0, 3]].mean(axis=1) / weights.sum(axis=1)
    merged = boxes[kept]
    merged[:, [0, 3]] += (depths - merged[:, [0, 3]].mean(axis=1))[:, None]
    return merged, scores[kept]
