"""Real volumes in a synthetic data set, found by the digests of their stored voxels.

A real data set has the SHA-256 of each volume in its cases.csv. So it need not be read: a synthetic volume is
hashed as it is and in every mirror image that keeps the grid, and one of these digests is the original's.
A volume with the grey levels of 8, 10, 12, 14 or 15 bits, or of half precision, is compared with real ones
rounded alike; only then are these read, once. Copies that were changed otherwise are not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.columns import FULL_SCALE
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.schema import read_declaration
from dbtbench.errors import StaleError
from dbtbench.geometry.views import Volume
from dbtbench.runtime.progress import log, progress

Known = dict[str, tuple[int, str]]
"""Case and split of each real volume, by digest."""
BITS = {f"{n} bits": n for n in (8, 10, 12, 14, 15)}
KINDS = (*BITS, "float16", "bfloat16")
"""Coarser numbers in which copies may have been kept."""
AXES = ("slices", "rows", "columns")
NAMED = 3
"""Copies that an error names one by one."""


@dataclass(frozen=True)
class Copy:
    """A synthetic volume that is a real one.

    Attributes:
        case: number of the synthetic volume, or the name of its file.
        original: number of the real one.
        split: the real one's.
        change: how it was rounded and mirrored, such as `10 bits, columns reversed`; empty for not at all.
    """

    case: int | str
    original: int
    split: str
    change: str

    def __str__(self) -> str:
        return f"{self.case} is case {self.original} ({self.split}{self.change and ', ' + self.change})"


class CopyFinder:
    """A finder of the copies of a real data set's volumes.

    Args:
        real: the real data set, all splits.
    """

    def __init__(self, real: DBTDataset) -> None:
        rows = real.cases[["sha256", "case", "split"]]
        ordered = rows.sort_values("split", key=lambda split: split != "train", kind="stable")
        self._known: Known = {
            digest: (int(case), str(split)) for digest, case, split in ordered.to_numpy().tolist()
        }
        self._images = list(_list_mirror_images(real.grid))
        self._real, self._rounded = real, dict[str, Known]()

    def find(self, case: int | str, volume: Volume) -> Copy | None:
        """Find the real volume that a volume is, mirrored or not; one that is held out comes first.

        Args:
            case: names the volume.
            volume: (D, H, W) float32 in [0, 1].
        """
        stored = _quantise(volume)
        tables = [("", self._known)]
        tables += [(kind, self._round(kind)) for kind in KINDS if _find_levels(kind)[stored].all()]
        copies = []
        for order, step, change in self._images:
            name = _hash(stored.transpose(order)[step])
            for rounded, known in tables:
                if name in known:
                    copies.append(Copy(case, *known[name], ", ".join(filter(None, (rounded, change)))))
        return min(copies, key=lambda copy: copy.split == "train", default=None)

    def _round(self, kind: str) -> Known:
        """Read the real volumes, and hash what rounding makes of them."""
        if kind not in self._rounded:
            cases = dict(self._known.values())
            found: Known = {}
            for case in sorted(cases, key=lambda case: cases[case] != "train"):
                for rounded in _list_roundings(self._real.volumes([case])[0, 0], kind):
                    found[_hash(_quantise(rounded))] = (case, cases[case])
            self._rounded[kind] = found
        return self._rounded[kind]


@lru_cache
def _find_levels(kind: str) -> NDArray[np.bool_]:
    """Find the stored values that a kind of number can have, (65536,)."""
    if kind == "float16":
        levels = np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    elif kind == "bfloat16":
        levels = (np.arange(0x3F81, dtype=np.uint32) << 16).view(np.float32)
    else:
        largest = 2 ** BITS[kind] - 1
        levels = np.arange(largest + 1) / largest
    allowed = np.zeros(FULL_SCALE + 1, bool)
    allowed[_quantise(levels)] = True
    return allowed


def _list_roundings(volume: Volume, kind: str) -> Iterator[NDArray[Any]]:
    """Yield what rounding or cutting makes of a volume; double precision rounds a few voxels differently."""
    if kind == "float16":
        yield volume.astype(np.float16)
    elif kind == "bfloat16":
        bits = np.ascontiguousarray(volume).view(np.uint32)
        for half in (0, 0x7FFF + (bits >> 16 & 1)):
            yield ((bits + half) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    else:
        largest = 2 ** BITS[kind] - 1
        for values in (volume * np.float32(largest), volume.astype(float) * largest):
            yield np.rint(values) / largest
            yield np.floor(values) / largest


def _quantise(volume: NDArray[Any]) -> NDArray[np.uint16]:
    """Give the values with which a volume is stored; the writer multiplies in single precision, too."""
    single = np.asarray(volume, np.float32)
    stored: NDArray[np.uint16] = np.rint(np.clip(single, 0, 1) * FULL_SCALE).astype(np.uint16)
    return stored


def _hash(stored: NDArray[np.uint16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(stored).tobytes()).hexdigest()


def _list_mirror_images(
    grid: tuple[int, int, int],
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], str]]:
    """Yield order of the axes, slices of them and words for each mirror image on the same grid."""
    for order in permutations(range(3)):
        if tuple(grid[axis] for axis in order) != grid:
            continue
        moved = [AXES[axis] for axis in range(3) if order[axis] != axis]
        for turned in product((False, True), repeat=3):
            words = [f"{name} reversed" for name, turn in zip(AXES, turned, strict=True) if turn]
            words = [f"{', '.join(moved)} exchanged"] * bool(moved) + words
            yield order, tuple(slice(None, None, -1 if turn else 1) for turn in turned), ", ".join(words)


def check_copies(name: str, copies: Iterable[Copy], derived: bool | None = None) -> int:
    """Refuse a synthetic data set that holds real volumes that it must not hold.

    Args:
        name: of the synthetic data set.
        copies: the real volumes in it.
        derived: whether it was made by changing training volumes, so that it may hold them as they are; None
            to let these pass.

    Returns:
        How many training volumes it holds.

    Raises:
        StaleError: when it holds a volume of another split than `train`, or is not derived and holds one of
            that.
    """
    found = list(copies)
    held_out = [copy for copy in found if copy.split != "train"]
    if held_out:
        raise StaleError(
            f"{name} holds {len(held_out)} real volumes that are held out: {_name_some(held_out)}",
            "a model may see the training split only; leave these volumes out, and make the others without "
            "the patients of other splits",
        )
    if found and derived is False:
        raise StaleError(
            f"{name} is not derived, and holds {len(found)} training volumes: {_name_some(found)}",
            "a model that repeats its training volumes draws nothing; if they are changed copies by design, "
            "declare it: `derived = True` in the generator's class, `data import volumes --derived`",
        )
    return len(found)


def check_leakage(synthetic: DBTDataset, real: DBTDataset) -> int:
    """Refuse a synthetic data set that holds real volumes that it must not hold, by reading it once.

    Args:
        synthetic: the synthetic data set.
        real: the real data set, all splits.

    Returns:
        How many training volumes it holds; a log line says so.

    Raises:
        StaleError: as `check_copies`.
    """
    finder, copies = CopyFinder(real), []
    with progress(f"compare {synthetic.name} with {real.name}", len(synthetic)) as advance:
        for case in synthetic.cases["case"].tolist():
            copies.append(finder.find(case, synthetic.volumes([case])[0, 0]))
            advance()
    held = check_copies(
        synthetic.name,
        (copy for copy in copies if copy),
        bool(read_declaration(synthetic.meta["source"], "derived")),
    )
    if held:
        log.info(f"{synthetic.name} is derived: {held} of {len(synthetic)} volumes are training volumes")
    return held


def _name_some(copies: list[Copy]) -> str:
    return "; ".join(map(str, copies[:NAMED])) + ("; …" if len(copies) > NAMED else "")
