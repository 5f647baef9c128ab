"""A table of measured volumes: one row for each, of which every score of a set is a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes, Volume, laterality
from dbtbench.metrics import contrast, histogram
from dbtbench.metrics.c2st_cnn import cut_windows
from dbtbench.metrics.diversity import draw_pairs, ms_ssim, shrink
from dbtbench.metrics.mask import breast_mask
from dbtbench.metrics.plane_features import plane_features
from dbtbench.metrics.radiomics import lesion_radiomics, radiomics
from dbtbench.metrics.spectrum import spectrum
from dbtbench.metrics.texture import coherence, roughness
from dbtbench.runtime.progress import Advance

VOXELS_AT_ONCE = 2**23
"""So many are in memory at a time: 4 volumes of 32×256×256, 256 of 8×64×64."""
PAIRS = 4
"""Pairs for each volume of which the similarity is measured."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Measurements on N volumes with L lesions.

    Attributes:
        cases: N rows: of which patient, study and view, and the groups that the data name.
        counts: `whole` and `breast`, each (N, 256): voxels of each grey level.
        texture: N rows: mean and contrast, roughness, logarithms of power, slope, anisotropy, coherence.
        radiomics: N rows of radiomic features.
        lesions: L rows: `row` (which volume), `cnr`, contrast `depth0` … and `radius0` …, and radiomic
            features `crop_…` of the crop around it.
        pairs: (P, 3): two rows, and their similarity; of different patients.
        thumbnails: (M, d, h, w) float32, what the similarity is of; not taken when rows are.
        windows: (M, d, h, w) float32 in full resolution, what a network sees; not taken when rows are.
        places: (N,) which of the windows is each row's.
        planes: (N, F) features of planes by a network; F is 0 where they are not measured.
    """

    cases: pd.DataFrame
    counts: Mapping[str, NDArray[np.int64]]
    texture: pd.DataFrame
    radiomics: pd.DataFrame
    lesions: pd.DataFrame
    pairs: NDArray[np.float64]
    thumbnails: Volume
    windows: Volume
    places: Rows
    planes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def features(self) -> NDArray[np.float64]:
        """(N, F): texture and radiomics, what two sets are compared by."""
        return np.hstack([self.texture.to_numpy(np.float64), self.radiomics.to_numpy(np.float64)])

    @property
    def patients(self) -> NDArray[np.str_]:
        """(N,) of which patient each row is."""
        return np.asarray(self.cases["PatientID"], np.str_)

    def take(self, rows: ArrayLike) -> Table:
        """Take rows by their numbers, each at most once, with their lesions and the pairs among them."""
        chosen = np.asarray(rows, np.int64)
        place = np.full(len(self) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        lesions = self.lesions.assign(row=place[self.lesions["row"].to_numpy(np.int64)])
        pairs = self.pairs.copy()
        pairs[:, :2] = place[pairs[:, :2].astype(np.int64)]
        return Table(
            self.cases.iloc[chosen].reset_index(drop=True),
            {name: counts[chosen] for name, counts in self.counts.items()},
            self.texture.iloc[chosen].reset_index(drop=True),
            self.radiomics.iloc[chosen].reset_index(drop=True),
            lesions[lesions["row"] >= 0].reset_index(drop=True),
            pairs[(pairs[:, :2] >= 0).all(axis=1)],
            self.thumbnails,
            self.windows,
            self.places[chosen],
            self.planes[chosen],
        )

    def describe(self, side: str) -> pd.DataFrame:
        """Make what a run keeps of it: one row for each volume, without its grey levels."""
        return pd.concat([self.cases.assign(side=side), self.texture, self.radiomics], axis=1)


def join_with_pairs(parts: Sequence[Table], seed: int) -> Table:
    """Put tables one below the other, with new pairs among all their rows."""
    return _pair(_join(parts), seed)


def measure_planes(table: Table) -> Table:
    """Add the features of planes by a network.

    Raises:
        MissingError: when it is not installed.
    """
    return replace(table, planes=plane_features(table.windows)[table.places])


def measure_dataset(dataset: DBTDataset, cases: pd.DataFrame, advance: Advance, seed: int) -> Table:
    """Measure each volume of a data set once, a chunk at a time.

    Args:
        dataset: the data set.
        cases: its rows of cases.csv, with the groups to keep.
        advance: is called with how many are done.
        seed: of the pairs.
    """
    numbers = list(dataset.cases["case"])
    step = max(1, VOXELS_AT_ONCE // int(np.prod(dataset.grid)))
    parts = []
    for start in range(0, len(numbers), step):
        chunk = numbers[start : start + step]
        views = list(dataset.cases["View"].iloc[start : start + step])
        boxes = [dataset.boxes_of(case) for case in chunk]
        parts.append(_measure(dataset.volumes(chunk), boxes, views))
        advance(len(chunk))
    return _pair(replace(_join(parts), cases=cases.reset_index(drop=True)), seed)


def measure_arrays(volumes: Volume, boxes: Sequence[Boxes], name: str, views: Sequence[str] = ()) -> Table:
    """Measure volumes in memory (N, 1, D, H, W), each of a patient of its own; without boxes no lesions.

    Args:
        volumes: float32 in [0, 1].
        boxes: for each (n, 6), or none at all.
        name: of the set; patients are called by it and a number.
        views: of each, or none at all; right breasts are mirrored before volumes are compared in pairs.

    Raises:
        UsageError: when there are boxes, and not for each volume.
    """
    if boxes and len(boxes) != len(volumes):
        raise UsageError(f"{len(boxes)} lists of boxes for {len(volumes)} volumes", "give one for each")
    cases = pd.DataFrame({key: [f"{name}{number}" for number in range(len(volumes))] for key in KEY})
    step = max(1, VOXELS_AT_ONCE // int(np.prod(volumes.shape[1:])))
    parts = [
        _measure(volumes[start : start + step], boxes[start : start + step], views[start : start + step])
        for start in range(0, max(len(volumes), 1), step)
    ]
    return _pair(replace(_join(parts), cases=cases), 0)


def _measure(volumes: Volume, boxes: Sequence[Boxes], views: Sequence[str]) -> Table:
    inside = breast_mask(volumes)
    planes = spectrum(volumes, inside)
    texture = {
        "mean": volumes.mean(axis=(1, 2, 3, 4), dtype=np.float64),
        "rms_contrast": contrast.rms_contrast(volumes),
        "rms_contrast_breast": contrast.rms_contrast(volumes, inside),
        "percentile_range": contrast.percentile_range(volumes),
        "michelson_breast": contrast.michelson_contrast(volumes, inside),
        "roughness": roughness(volumes, inside),
        **planes,
        "coherence": coherence(volumes, inside),
    }
    counted = [
        [histogram.histogram(volume[None]) for volume in volumes],
        [histogram.histogram(volume[None], own[None]) for volume, own in zip(volumes, inside, strict=True)],
    ]
    whole, breast = (np.array(rows, np.int64).reshape(-1, histogram.LEVELS) for rows in counted)
    facing, facing_mask = volumes.copy(), inside.copy()
    for row, view in enumerate(views):
        if laterality(view) == "r":
            facing[row], facing_mask[row] = volumes[row, ..., ::-1], inside[row, ..., ::-1]
    return Table(
        pd.DataFrame(index=range(len(volumes))),
        {"whole": whole, "breast": breast},
        pd.DataFrame(texture),
        pd.DataFrame(radiomics(volumes, inside)),
        _measure_lesions(volumes, inside, boxes),
        np.empty((0, 3)),
        shrink(facing),
        cut_windows(facing, facing_mask),
        np.arange(len(volumes)),
        np.empty((len(volumes), 0), np.float32),
    )


def _measure_lesions(volumes: Volume, inside: NDArray[np.bool_], boxes: Sequence[Boxes]) -> pd.DataFrame:
    own = boxes or [np.empty((0, 6), np.float32)] * len(volumes)
    depth, radius = contrast.lesion_profiles(volumes, inside, own)
    return pd.DataFrame(
        {
            "row": np.repeat(np.arange(len(volumes)), [len(of_one) for of_one in own]),
            "cnr": contrast.lesion_cnr(volumes, inside, own),
            **{f"depth{place}": column for place, column in enumerate(depth.T)},
            **{f"radius{place}": column for place, column in enumerate(radius.T)},
            **{f"crop_{name}": column for name, column in lesion_radiomics(volumes, inside, own).items()},
        }
    )


def _join(parts: Sequence[Table]) -> Table:
    """Put tables one below the other, without pairs."""
    starts = np.cumsum([0, *map(len, parts)])
    firsts = np.cumsum([0, *(len(part.windows) for part in parts)])
    lesions = [
        part.lesions.assign(row=part.lesions["row"] + start)
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    return Table(
        pd.concat([part.cases for part in parts], ignore_index=True),
        {name: np.concatenate([part.counts[name] for part in parts]) for name in parts[0].counts},
        pd.concat([part.texture for part in parts], ignore_index=True),
        pd.concat([part.radiomics for part in parts], ignore_index=True),
        pd.concat(lesions, ignore_index=True),
        np.empty((0, 3)),
        np.concatenate([part.thumbnails for part in parts]),
        np.concatenate([part.windows for part in parts]),
        np.concatenate([part.places + first for part, first in zip(parts, firsts[:-1], strict=True)]),
        np.concatenate([part.planes for part in parts]),
    )


def _pair(table: Table, seed: int) -> Table:
    """Measure how alike pairs of a table's volumes are."""
    chosen = draw_pairs(list(table.patients), PAIRS, seed)
    return replace(table, pairs=np.column_stack([chosen, ms_ssim(table.thumbnails, chosen)]))
