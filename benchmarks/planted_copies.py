"""Recall of planted copies by several distances: which of them can see a copy at all.

    python benchmarks/planted_copies.py WORK/datasets/NAME [--copies N]

The threshold of each distance is the one that flags 1 % of the real volumes of the validation split, by which
the distance of the task `privacy` was chosen, and then of the test split. Tables in Markdown on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Volume
from dbtbench.metrics import copies
from dbtbench.metrics.neighbours import choose_threshold
from dbtbench.tasks.privacy.planting import KINDS

Floats = NDArray[np.float64]
SHARE = 0.01


@dataclass(frozen=True)
class Distance:
    """A way to compare volumes.

    Attributes:
        title: in words.
        describe: makes of a volume what is compared.
        gather: makes of descriptions of the training volumes a function that compares one with all of them.
        constants: of `dbtbench.metrics.copies`, changed while it is measured.
    """

    title: str
    describe: Callable[[Volume], Any]
    gather: Callable[[list[Any]], Callable[[Any], Floats]]
    constants: dict[str, Any]


def turn_left(volume: Volume) -> Floats:
    """Mirror a volume so that its brighter half is on the left: float64."""
    half = volume.shape[2] // 2
    left = volume[:, :, :half].sum() >= volume[:, :, -half:].sum()
    return np.asarray(volume if left else volume[:, :, ::-1], np.float64)


def by_rms(train: list[Floats]) -> Callable[[Floats], Floats]:
    """Compare by the root of the mean squared difference, as earlier audits did."""
    return lambda item: np.array([-np.sqrt(((item - other) ** 2).mean()) for other in train])


def by_correlation(train: list[Floats]) -> Callable[[Floats], Floats]:
    """Compare by the correlation, voxel by voxel."""

    def unit(volume: Floats) -> Floats:
        centred = volume.ravel() - volume.mean()
        return np.asarray(centred / max(np.linalg.norm(centred), 1e-12))

    table = np.stack([unit(volume) for volume in train])
    return lambda item: np.asarray(table @ unit(item))


def by_registration(train: list[copies.Descriptor]) -> Callable[[copies.Descriptor], Floats]:
    """Compare as the task does."""
    return copies.VolumeGallery(train).compare


DISTANCES = (
    Distance("RMS difference", turn_left, by_rms, {}),
    Distance("correlation of intensities", turn_left, by_correlation, {}),
    Distance("fine structure, not registered", copies.describe_volume, by_correlation, {}),
    Distance("registered, without rotation", copies.describe_volume, by_registration, {"ANGLES": (0.0,)}),
    Distance("registered, contrast as it is", copies.describe_volume, by_registration, {"FLOOR": 1e6}),
    Distance("registered (in use)", copies.describe_volume, by_registration, {}),
)


@contextlib.contextmanager
def change_constants(constants: dict[str, Any]) -> Iterator[None]:
    """Change constants of the module for a while."""
    with contextlib.ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(patch.object(copies, name, value))
        yield


def measure(distance: Distance, data: DBTDataset, number: int) -> tuple[dict[str, dict[str, float]], float]:
    """Measure the share found of each kind of copy.

    Returns:
        The shares by kind, for the threshold of either split; and CPU seconds.
    """
    started = time.process_time()
    train = data.select("train")
    with change_constants(distance.constants):
        read = {split: data.select(split).volumes()[:, 0] for split in ("train", "validation", "test")}
        compare = distance.gather([distance.describe(volume) for volume in read["train"]])

        def similarity(volume: Volume) -> float:
            return float(compare(distance.describe(volume)).max())

        thresholds = {
            split: choose_threshold([similarity(volume) for volume in read[split]], SHARE)
            for split in ("validation", "test")
        }
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for row in np.random.default_rng(0).permutation(len(train))[:number]:
            rng = np.random.default_rng([0, int(row)])
            other = read["train"][rng.integers(len(train))]
            for kind, change in KINDS.items():
                found[kind].append(similarity(change(read["train"][row], other, rng)))
    shares = {
        split: {kind: float((np.array(values) > threshold).mean()) for kind, values in found.items()}
        for split, threshold in thresholds.items()
    }
    return shares, time.process_time() - started


def main() -> None:
    """Print a table for the threshold of either split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder of a data set")
    parser.add_argument("--copies", type=int, default=64, help="copies of each kind")
    asked = parser.parse_args()
    data = DBTDataset.open(asked.data)
    sizes = {split: len(data.select(split)) for split in ("train", "validation", "test")}
    results = {distance.title: measure(distance, data, asked.copies) for distance in DISTANCES}
    for split in ("validation", "test"):
        counts = f"{sizes[split]} volumes of the {split} split; {sizes['train']} for training"
        lines = [
            f"Threshold that flags 1 % of {counts}",
            "",
            "| distance | " + " | ".join(kind.replace("_", " ") for kind in KINDS) + " | CPU s |",
        ]
        lines.append("|---" * (len(KINDS) + 2) + "|")
        for name, (shares, seconds) in results.items():
            cells = [f"{100 * shares[split][kind]:.0f}" for kind in KINDS]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds:.0f} |")
        sys.stdout.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
