"""Filtered back-projection."""

from __future__ import annotations

import numpy as np
import pytest

from dbtbench.phantom.acquisition import Geometry, project
from dbtbench.phantom.reconstruction import present, reconstruct

GEOMETRY = Geometry()
PIXEL = (0.75, 0.75)
THICKNESS = 48.0


@pytest.mark.parametrize("plane", [4, 12, 19])
def test_a_bead_is_sharpest_in_its_own_slice(plane: int) -> None:
    phantom = np.full((24, 160, 64), 0.04)
    phantom[plane, 90, 30] += 1.0
    sums = project(phantom, THICKNESS, PIXEL, GEOMETRY)
    volume, _ = reconstruct(sums, (24, 160), THICKNESS, PIXEL, GEOMETRY)
    peak = volume[:, 86:95, 26:35].max((1, 2)) - volume[:, 60:80, 10:50].mean((1, 2))
    assert abs(int(peak.argmax()) - plane) <= 1
    assert float(peak[plane]) > 2 * float(peak[(plane + 12) % 24])


def test_a_bead_stays_in_its_place() -> None:
    phantom = np.full((24, 160, 64), 0.04)
    phantom[12, 90, 30] += 1.0
    volume, _ = reconstruct(
        project(phantom, THICKNESS, PIXEL, GEOMETRY), (24, 160), THICKNESS, PIXEL, GEOMETRY
    )
    row, column = divmod(int(volume[12].argmax()), 64)
    assert (row, column) == (90, 30)


def test_a_uniform_slab_is_flat_and_has_its_attenuation() -> None:
    sums = project(np.full((24, 160, 64), 0.05), THICKNESS, PIXEL, GEOMETRY)
    volume, inside = reconstruct(sums, (16, 160), THICKNESS, PIXEL, GEOMETRY, floor=1.0, equalised=False)
    assert float(volume.mean()) == pytest.approx(0.05, rel=1e-3)
    assert float(volume.std() / volume.mean()) < 1e-3
    assert float(inside.min()) == 1


def test_a_lower_floor_lowers_what_is_flat_only() -> None:
    sums = project(np.full((24, 160, 64), 0.05), THICKNESS, PIXEL, GEOMETRY)
    volume, _ = reconstruct(sums, (16, 160), THICKNESS, PIXEL, GEOMETRY, floor=0.5, equalised=False)
    assert float(volume.mean()) == pytest.approx(0.025, rel=1e-3)


def test_air_is_zero_and_tissue_is_not() -> None:
    phantom = np.zeros((24, 160, 64))
    phantom[:, 40:120, :32] = 0.045
    volume, inside = reconstruct(
        project(phantom, THICKNESS, PIXEL, GEOMETRY), (8, 160), THICKNESS, PIXEL, GEOMETRY
    )
    values = present(volume, inside)
    assert values[:, :, 50:].max() == 0
    assert values[:, 50:110, :24].min() >= 1
    assert values.max() <= 1023
    assert np.median(values[:, 50:110, :24]) == pytest.approx(300, abs=60)
