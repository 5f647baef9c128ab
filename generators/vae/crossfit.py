"""Cross-fitting: what the components would say of a training volume that they were not fitted to.

Components fit the volumes that they come from better than others: with 64 components of 288 phantom volumes
they leave half as much of these as of unseen ones. A decoder that learned from such images would not know
the errors that those of unseen volumes have. So each volume's image is computed from other patients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dbtbench.runtime import distributed

FOLDS = 8
COLUMNS = 2**16
SMALLEST_EIGENVALUE = 1e-9


def cross_fit(residual: Tensor, components: int, patients: Sequence[str]) -> Tensor:
    """Compute the components' images of training volumes as if these were unseen.

    Patients are divided into `FOLDS`. The volumes of a fold are projected onto as many principal components
    of the other folds.

    Args:
        residual: (n, 1, D, H, W) roots less their closed-form mean.
        components: how many.
        patients: of each volume.

    Returns:
        (n, 1, D, H, W), to be added to the mean.
    """
    names = list(dict.fromkeys(patients))
    folds = np.array([names.index(patient) % FOLDS for patient in patients])
    flat, device = residual.flatten(1), distributed.device()
    blocks = range(0, flat.shape[1], COLUMNS)
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for first in blocks:
        block = flat[:, first : first + COLUMNS].to(device)
        gram += (block @ block.T).cpu()
    # A projection onto components of other volumes is a sum of these volumes: `mixture` has its terms.
    mixture = torch.zeros_like(gram)
    for fold in np.unique(folds):
        own, others = (torch.from_numpy(np.flatnonzero(side)) for side in (folds == fold, folds != fold))
        values, vectors = torch.linalg.eigh(gram[others][:, others])  # the smallest first
        values, vectors = values[-components:], vectors[:, -components:]
        mixture[own[:, None], others] = (
            gram[own][:, others] @ (vectors / values.clamp(min=SMALLEST_EIGENVALUE)) @ vectors.T
        )
    terms = mixture.float().to(device)
    images = torch.empty_like(flat)
    for first in blocks:
        images[:, first : first + COLUMNS] = terms @ flat[:, first : first + COLUMNS].to(device)
    return images.view(residual.shape)
