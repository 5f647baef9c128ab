"""C2ST by a small 3-D CNN: whether a network that sees the voxels can separate two sets of volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask
from dbtbench.metrics.two_sample import deal_patients

WINDOW = (8, 64, 64)
FOLDS = 3
EPOCHS = 12
BATCH = 16
CHANNELS = (8, 16, 32)
RATE = 3e-3


def cut_windows(volumes: Volume, mask: Mask) -> Volume:
    """Cut a window of at most 8×64×64 out of each volume, at its own resolution: the middle of the breast.

    Args:
        volumes: (N, 1, D, H, W) float32.
        mask: same shape, True inside the breast; where it is empty, the middle of the volume is taken.

    Returns:
        (N, d, h, w) float32, no axis longer than the volumes'.
    """
    size = [min(pair) for pair in zip(volumes.shape[2:], WINDOW, strict=True)]
    found = np.empty((len(volumes), *size), np.float32)
    for row, (volume, inside) in enumerate(zip(volumes[:, 0], mask[:, 0, 0], strict=True)):
        middle = [length / 2 for length in volume.shape]
        if inside.any():
            middle[1:] = [place.mean() + 0.5 for place in np.nonzero(inside)]
        lows = [
            int(np.clip(round(at - own / 2), 0, length - own))
            for at, own, length in zip(middle, size, volume.shape, strict=True)
        ]
        found[row] = volume[tuple(slice(low, low + own) for low, own in zip(lows, size, strict=True))]
    return found


def separate_by_cnn(
    windows: Volume,
    reference: Volume,
    patients: ArrayLike,
    reference_patients: ArrayLike,
    seed: int = 0,
) -> pd.DataFrame | None:
    """Train a small CNN to separate two sets, and score each volume by one that has not seen its patient.

    Three convolutions with batch normalisation, 8 to 32 channels, strides of 2, an average over the window,
    one linear layer; 12 epochs of Adam with a one-cycle learning rate, in each of three folds of patients.
    Scores are ranks within their fold, from 0 to 1, because three networks have three scales.

    Args:
        windows: (N, d, h, w) float32 of the set to judge, from `cut_windows`.
        reference: (M, d, h, w) of real volumes.
        patients: (N,) of which patient each is; a patient's volumes are in the same fold.
        reference_patients: (M,).
        seed: of folds, weights and batches.

    Returns:
        A row for each volume, those of the set first: `PatientID`, `positive` (1 for the set), `Score`; as
        `dbtbench.metrics.classification.auroc` takes it. None with fewer than 3 patients on a side, or
        windows of fewer than 4 pixels.

    Source: Lopez-Paz D, Oquab M. Revisiting classifier two-sample tests. ICLR 2017.
    """
    import torch

    rng = np.random.default_rng(seed)
    names = [np.asarray(own, np.str_) for own in (patients, reference_patients)]
    folds = [deal_patients(own, FOLDS, rng) for own in names]
    if min(fold.max(initial=-1) for fold in folds) < FOLDS - 1 or min(windows.shape[2:]) < 4:
        return None
    fold = np.concatenate(folds)
    positive = np.arange(len(fold)) < len(folds[0])
    x = torch.from_numpy(np.concatenate([windows, reference]))[:, None]
    y = torch.from_numpy(positive.astype(np.float32))
    scores = np.empty(len(fold))
    for number in range(FOLDS):
        train, test = (torch.from_numpy(np.flatnonzero(rows)) for rows in (fold != number, fold == number))
        found = _train_and_predict(x, y, train, test, seed * FOLDS + number)
        scores[test.numpy()] = pd.Series(found).rank(pct=True).to_numpy()
    return pd.DataFrame({"PatientID": _name_apart(names), "positive": positive.astype(int), "Score": scores})


def _name_apart(names: list[NDArray[np.str_]]) -> list[str]:
    """Name the patients of both sets so that they are resampled each for itself."""
    return [f"{side}{name}" for side, own in zip("ab", names, strict=True) for name in own]


def _train_and_predict(x: Any, y: Any, train: Any, test: Any, seed: int) -> NDArray[np.float64]:
    """Train a network on some rows, and give its logits for others."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _make_network()
    mean, deviation = x[train].mean(), x[train].std().clamp(min=1e-6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    steps = max(1, len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * steps)
    loss = nn.BCEWithLogitsLoss(pos_weight=(1 - y[train]).sum() / y[train].sum())
    for _ in range(EPOCHS):
        # A batch of one has no deviation to be normalised with: what is left over joins the others.
        for rows in torch.tensor_split(train[torch.randperm(len(train), generator=generator)], steps):
            optimiser.zero_grad()
            loss(model((x[rows] - mean) / deviation)[:, 0], y[rows]).backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        parts = [model((x[rows] - mean) / deviation)[:, 0] for rows in test.split(64)]
    return np.asarray(torch.cat(parts).numpy(), np.float64)


def _make_network() -> Any:
    from torch import nn

    layers: list[Any] = []
    for incoming, outgoing in zip((1, *CHANNELS), CHANNELS, strict=False):
        layers += [nn.Conv3d(incoming, outgoing, 3, 2, 1, bias=False), nn.BatchNorm3d(outgoing), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 1))
