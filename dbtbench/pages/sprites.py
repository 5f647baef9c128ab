"""Sprites: the slices of a volume as tiles of one 8-bit picture, small enough for all of them in a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dbtbench.geometry.views import Volume

BUDGET = 8 * 2**20
"""Bytes of all sprites together; in base64 they are a third more."""
LARGEST = 512
"""Pixels along the longer side of a slice."""
TRIED = 4
"""Volumes that a format is tried on."""


@dataclass(frozen=True)
class Format:
    """A way to write a sprite.

    Attributes:
        kind: PNG or JPEG.
        quality: of JPEG.
        factor: how many rows and columns become one.
    """

    kind: str
    quality: int = 0
    factor: int = 1


FORMATS = (
    Format("PNG"),
    *(Format("JPEG", quality, factor) for factor in (1, 2, 4, 8) for quality in (88, 75, 60)),
)
"""From the truest to the smallest."""


def choose_format(read: Sequence[Callable[[], Volume]], budget: int = BUDGET) -> Format:
    """Choose the truest format in which volumes fit into a budget.

    Args:
        read: reads each volume (D, H, W); a few of them are tried.
        budget: bytes of all together.
    """
    if not read:
        return FORMATS[0]
    step = max(1, len(read) // TRIED)
    tried = [volume() for volume in read[::step][:TRIED]]
    smallest = math.ceil(max(tried[0].shape[1:]) / LARGEST)
    for form in FORMATS:
        if form.factor < smallest and form is not FORMATS[-1]:
            continue
        size = np.mean([len(encode(volume, form)) for volume in tried])
        if size * len(read) <= budget:
            return form
    return FORMATS[-1]


def encode(volume: Volume, form: Format) -> bytes:
    """Write a volume (D, H, W) in [0, 1] as a picture of tiles, row by row."""
    levels = np.rint(np.clip(_shrink(volume, form.factor), 0, 1) * 255).astype(np.uint8)
    depth, height, width = levels.shape
    columns = count_columns(depth)
    rows = math.ceil(depth / columns)
    tiles = np.zeros((rows * columns, height, width), np.uint8)
    tiles[:depth] = levels
    sheet = tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": form.quality} if form.kind == "JPEG" else {"optimize": True}
    Image.fromarray(sheet).save(buffer, form.kind, **options)
    return buffer.getvalue()


def make_sprite(volume: Volume, form: Format) -> str:
    """Write a volume as the URL of a picture that is in the URL itself."""
    data = base64.b64encode(encode(volume, form)).decode()
    return f"data:image/{form.kind.lower()};base64,{data}"


def count_columns(depth: int) -> int:
    """Count the tiles in a row of a sprite."""
    return math.ceil(math.sqrt(depth))


def size_of_tile(grid: tuple[int, int, int], form: Format) -> tuple[int, int]:
    """Give rows and columns of a tile."""
    return math.ceil(grid[1] / form.factor), math.ceil(grid[2] / form.factor)


def _shrink(volume: Volume, factor: int) -> NDArray[np.float32]:
    """Average squares of pixels in the plane; the border is repeated where a square is not full."""
    if factor == 1:
        return volume
    depth, height, width = volume.shape
    padded = np.pad(volume, ((0, 0), (0, -height % factor), (0, -width % factor)), mode="edge")
    squares = padded.reshape(depth, -(-height // factor), factor, -(-width // factor), factor)
    return np.asarray(squares.mean(axis=(2, 4)), np.float32)
