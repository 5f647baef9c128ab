"""Quality of the autoencoder: contrast of lesions and roughness that it keeps, on training volumes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.geometry.views import Boxes, laterality, mirror_boxes
from dbtbench.metrics.contrast import Values, lesion_profiles
from dbtbench.metrics.mask import breast_mask
from dbtbench.metrics.texture import roughness
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts

from .autoencoder import Autoencoder

MEASURED = 64
"""Most training volumes with lesions that are measured, and as many without."""


def measure_quality(autoencoder: nn.Module, data: LeftBreasts) -> None:
    """Write what the autoencoder keeps of lesions' contrast and of roughness into its buffers, as shares.

    Args:
        autoencoder: the trained one.
        data: the training volumes; those with lesions are measured first.
    """
    assert isinstance(autoencoder, Autoencoder)
    positive = data.split.positive
    rows = [*np.flatnonzero(positive)[:MEASURED], *np.flatnonzero(~positive)[:MEASURED]]
    contrasts, textures = [], []
    with progress("latent: what the autoencoder keeps", len(rows)) as advance:
        for row in rows:
            volume = data.volumes[row : row + 1].to(distributed.device())
            codes, _ = autoencoder.encode(autoencoder.intensities(volume))
            decoded = autoencoder.intensities.inverse(autoencoder.decode(codes))
            boxes = [_left_boxes(data.split, row)]
            both = [part.float().cpu().numpy() for part in (volume, decoded)]
            inside = breast_mask(both[0])
            contrasts.append([lesion_profiles(part, inside, boxes)[0][:, 0] for part in both])
            textures.append([roughness(part, inside) for part in both])
            advance()
    autoencoder.lesion_contrast.fill_(_share(contrasts))
    autoencoder.roughness.fill_(_share(textures))


def _left_boxes(split: DBTDataset, row: int) -> Boxes:
    """Boxes of a volume as a left breast."""
    case = split.cases.iloc[row]
    boxes = split.boxes_of(case["case"])
    return mirror_boxes(boxes, split.grid[2]) if laterality(case["View"]) == "r" else boxes


def _share(pairs: list[list[Values]]) -> float:
    """Mean of the reconstructed values as a share of the original ones, where both are defined."""
    before, after = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    defined = np.isfinite(before) & np.isfinite(after)
    return float(after[defined].mean() / before[defined].mean()) if defined.any() else float("nan")


def check_quality(autoencoder: Autoencoder, contrast_tolerance: float, roughness_tolerance: float) -> None:
    """Refuse an autoencoder that loses lesions or texture: what it loses no second stage can draw.

    Raises:
        DBTBenchError: when a share is further from 1 than its tolerance; it names both.
    """
    kept = {
        "of the contrast of lesions": (autoencoder.lesion_contrast, contrast_tolerance),
        "of the roughness between slices": (autoencoder.roughness, roughness_tolerance),
    }
    wrong = [
        f"{100 * float(share):.0f} % {what} (wanted: within {100 * allowed:g} % of it)"
        for what, (share, allowed) in kept.items()
        if torch.isfinite(share) and abs(float(share) - 1) > allowed
    ]
    if wrong:
        raise DBTBenchError(
            f"the autoencoder keeps {' and '.join(wrong)}; diffusion on its codes could draw no better",
            "train it longer (--set autoencoder_steps=…), give it more --set latent_channels, or use ddpm",
        )
