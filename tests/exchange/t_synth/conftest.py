"""A small collection with the layout of T-SYNTH: half-ellipses with noise, and a bright ball as the mass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SHAPE = (6, 30, 40)
"""Slices, columns, rows as displayed: the file's order."""
SPACING = (1.0, 2.0, 2.0)
HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = {mm}
DimSize = {size}
AnatomicalOrientation = ???
ElementType = MET_DOUBLE
ElementDataFile = reconstruction{number}.raw"""

WriteExample = Callable[..., Path]


def place_of(number: int) -> tuple[int, int, int]:
    """The lesion's row from the bottom, column and slice."""
    return 10 + number % 9, 8 + number % 7, 2 + number % 3


def draw_volume(number: int, radius: float) -> NDArray[np.float64]:
    """A breast as the file has it: chest wall at column 0, rows from the bottom."""
    z, x, y = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    rng = np.random.default_rng(number)
    values = 0.45 * (((x / 26) ** 2 + ((y - 20) / 17) ** 2) < 1) + 0.01 * rng.standard_normal(SHAPE)
    if number % 2:
        row, column, slice_ = place_of(number)
        mm = np.sqrt((2 * (y - row)) ** 2 + (2 * (x - column)) ** 2 + (z - slice_) ** 2)
        values[mm < radius] += 0.4
    return values


def write(root: Path, number: int, density: str = "fatty", radius: str = "5.0", mass: str = "1.06") -> Path:
    """Write one example; return its raw file."""
    cohort = f"device_data_VICTREPhantoms_spic_{mass}/{density}/2/{radius}/SIM"
    folder = root / cohort / f"D2_{radius}_{density}.{number}" / str(number)
    folder.mkdir(parents=True)
    raw = folder / f"reconstruction{number}.raw"
    raw.write_bytes(draw_volume(number, float(radius)).tobytes())
    size, mm = (" ".join(map(str, reversed(values))) for values in (SHAPE, SPACING))
    raw.with_suffix(".mhd").write_text(HEADER.format(mm=mm, size=size, number=number))
    if number % 2:
        raw.with_suffix(".loc").write_text("{} {} {} 2\n".format(*place_of(number)))
    return raw


@pytest.fixture(scope="session")
def write_example() -> WriteExample:
    """`write_example(root, number, density, radius, mass)`: write one example; returns its raw file."""
    return write


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms 1 to 8 of one cohort, and 1 and 2 of another."""
    root = tmp_path_factory.mktemp("t-synth") / "ROOT"
    for number in range(1, 9):
        write(root, number)
    for number in (1, 2):
        write(root, number, "dense", "7.0", "1.1")
    return root


@pytest.fixture
def root(small: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(small, tmp_path / "ROOT")
    return tmp_path / "ROOT"
