"""The audit of a set of volumes, or of lesions: what it flags, and which planted copies it finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.copies import (
    Descriptor,
    Gallery,
    Lesion,
    describe_lesions,
    describe_volume,
    is_wide_enough,
)
from dbtbench.metrics.neighbours import (
    Floats,
    Neighbours,
    authenticity,
    binomial_interval,
    choose_threshold,
    exceedance_p,
    find_neighbours,
)
from dbtbench.runtime.progress import Advance

from .metrics import FIRST, SECOND, needed_recall

Item = TypeVar("Item")


@dataclass
class Items(Generic[Item]):
    """Volumes, or lesions, of a data set, as they are compared.

    Attributes:
        found: the descriptions.
        cases: the case of each.
        patients: the patient of each.
    """

    found: list[Item] = field(default_factory=list)
    cases: list[int] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)

    def add(self, items: Sequence[Item], case: int, patient: str) -> None:
        """Add what one volume has."""
        self.found.extend(items)
        self.cases.extend([case] * len(items))
        self.patients.extend([patient] * len(items))


def subsample(dataset: DBTDataset, n: int, seed: int) -> DBTDataset:
    """Choose at most n volumes at random, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:n]
    return dataset.take(np.isin(np.arange(len(dataset)), chosen))


def describe(dataset: DBTDataset, advance: Advance) -> tuple[Items[Descriptor], Items[Lesion]]:
    """Describe volumes and lesions of a data set, reading one volume at a time."""
    volumes, lesions = Items[Descriptor](), Items[Lesion]()
    for case, patient in zip(dataset.cases["case"], dataset.cases["PatientID"], strict=True):
        volume, boxes = dataset.volumes([case])[0, 0], dataset.boxes_of(case)
        volumes.add([describe_volume(volume)], int(case), str(patient))
        lesions.add(describe_wide_lesions(volume, boxes), int(case), str(patient))
        advance()
    return volumes, lesions


def describe_wide_lesions(volume: Volume, boxes: Boxes) -> list[Lesion]:
    """Describe the lesions that have voxels enough."""
    return describe_lesions(volume, boxes[is_wide_enough(boxes, volume.shape)])


@dataclass(frozen=True)
class Audit(Generic[Item]):
    """An audit by similarity to training items.

    Attributes:
        train: the training items.
        gallery: the same, ready to be compared with.
        test: real items that nobody trained on; the thresholds are theirs.
        own: what is audited.
        planted: planted copies by kind.
        advance: is called for each item that was compared.
    """

    train: Items[Item]
    gallery: Gallery[Item]
    test: Items[Item]
    own: Items[Item]
    planted: Mapping[str, Sequence[Item]]
    advance: Advance

    @cached_property
    def real(self) -> Neighbours:
        """Nearest training items of the test items."""
        return self._find(self.test.found)

    @cached_property
    def nearest(self) -> Neighbours:
        """Nearest training items of what is audited."""
        return self._find(self.own.found)

    @cached_property
    def authentic(self) -> Any:
        """Whether each audited item is authentic, (n,) bool."""
        train = self.train
        return authenticity(self.nearest, lambda i: self.gallery.compare(train.found[i]), train.patients)

    def find_threshold(self, share: float = FIRST) -> float:
        """Choose the similarity above which a share of the test items lies, at most."""
        return choose_threshold(self.real.similarity, share)

    def scores(self, name: str) -> dict[str, float]:
        """Compute the share that is flagged, with interval and p-value, and the properties of neighbours.

        Args:
            name: `copies`, or with a word before it.
        """
        prefix = name.removesuffix("copies")
        above = self.nearest.similarity > self.find_threshold()
        real = int((self.real.similarity > self.find_threshold()).sum())
        count, n, m = int(above.sum()), len(above), len(self.test.found)
        low, high = binomial_interval(count, n) if m else (math.nan, math.nan)
        return {
            name: count / n if n and m else math.nan,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_p": exceedance_p(count, n, real, m),
            f"{prefix}similarity": _median(self.nearest.similarity),
            f"{prefix}threshold": self.find_threshold(),
            f"{prefix}nn_ratio": _median(self.nearest.ratio),
            f"{prefix}authenticity": float(self.authentic.mean()) if n else math.nan,
        }

    def flag_more(self) -> float:
        """Compute the share flagged at the threshold of 5 %."""
        flagged = self.nearest.similarity > self.find_threshold(SECOND)
        return float(flagged.mean()) if len(flagged) and len(self.test.found) else math.nan

    @cached_property
    def recall(self) -> pd.DataFrame:
        """Planted copies and how many of them are found, one row a kind, with exact intervals."""
        rows = []
        decided = math.isfinite(self.find_threshold())
        for kind, items in self.planted.items():
            found = int((self._find(items).similarity > self.find_threshold()).sum())
            low, high = binomial_interval(found, len(items)) if decided else (math.nan, math.nan)
            share = found / len(items) if items and decided else math.nan
            rows.append((kind, len(items), found, share, low, high, needed_recall(kind)))
        return pd.DataFrame(rows, columns=["kind", "planted", "found", "recall", "low", "high", "needed"])

    def table(self) -> pd.DataFrame:
        """Make a table of what was audited: one row an item, with its nearest training item."""
        nearest = self.nearest
        return pd.DataFrame(
            {
                "case": self.own.cases,
                "training_case": [self.train.cases[i] for i in nearest.nearest],
                "training_patient": [self.train.patients[i] for i in nearest.nearest],
                "similarity": nearest.similarity,
                "second_patient": nearest.second,
                "distance_ratio": nearest.ratio,
                "authentic": self.authentic.astype(int),
                "flagged": (nearest.similarity > self.find_threshold()).astype(int),
            }
        )

    def _find(self, items: Sequence[Item]) -> Neighbours:
        def compare(row: int) -> Floats:
            self.advance()
            return self.gallery.compare(items[row])

        return find_neighbours(compare, len(items), self.train.patients)


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else math.nan


def iterate_pairs(table: pd.DataFrame, pairs: int) -> Iterator[tuple[int, int, float, bool]]:
    """Yield the most similar pairs: case, training case, similarity and whether it is flagged."""
    for row in table.sort_values("similarity", ascending=False, kind="stable").head(pairs).itertuples():
        yield int(row.case), int(row.training_case), float(row.similarity), bool(row.flagged)
