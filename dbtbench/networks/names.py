"""The names that recipes use for networks, and what their settings must fit; this file imports no torch."""

from __future__ import annotations

from typing import Literal

from dbtbench.errors import UsageError

Backbone = Literal["unet", "monai"]
NUM_GROUPS = 8
"""Groups of every GroupNorm; channels are a multiple of it."""


def check_plane(grid: tuple[int, int, int], factor: int, way_out: str) -> None:
    """Check that a network can unshuffle and halve rows and columns.

    Args:
        grid: slices, rows, columns.
        factor: what rows and columns must be a multiple of.
        way_out: what a user may do besides choosing another grid, such as "use fewer --set channel_mults".

    Raises:
        UsageError: when one of them is not.
    """
    if grid[1] % factor or grid[2] % factor:
        rows, columns = (max(1, round(n / factor)) * factor for n in grid[1:])
        raise UsageError(
            f"a grid of {grid[1]} x {grid[2]} cannot be divided by {factor}, as this network does",
            f"ingest on a grid of {rows} x {columns}, or {way_out}",
        )
