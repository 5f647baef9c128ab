"""Lesions: their kinds and their places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from dbtbench.phantom.acquisition import Geometry
from dbtbench.phantom.anatomy import Breast, Outline
from dbtbench.phantom.lesions import (
    CONTRAST,
    MARGIN_MM,
    SIZE_RANGE_MM,
    Lesion,
    draw_lesion,
    insert,
    locate,
)
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.reconstruction import FLOOR, ramp
from dbtbench.phantom.simulation import PRESETS, simulate
from dbtbench.phantom.texture import Grid


@pytest.fixture(scope="module")
def drawn(breasts: list[Breast]) -> list[tuple[Breast, Lesion]]:
    return [
        (breast, draw_lesion(label, breast, stream(seed, index)))
        for index, breast in enumerate(breasts)
        for seed, label in enumerate(("benign", "cancer"))
    ]


def test_both_views_show_a_lesion_equally_far_behind_the_nipple(drawn: list[tuple[Breast, Lesion]]) -> None:
    for breast, lesion in drawn[:20]:
        behind = []
        for projection in ("cc", "mlo"):
            outline = Outline(breast, projection)
            behind.append(outline.nipple[1] - locate(lesion, breast, projection, outline).centre[2])
        assert behind[0] == pytest.approx(behind[1], abs=2e-3) == pytest.approx(lesion.behind, abs=2e-3)


def test_the_centre_lies_in_the_breast_and_not_in_the_muscle(drawn: list[tuple[Breast, Lesion]]) -> None:
    for breast, lesion in drawn:
        for projection in ("cc", "mlo"):
            outline = Outline(breast, projection)
            z, y, x = locate(lesion, breast, projection, outline).centre
            point = np.array([y]), np.array([x])
            assert outline.distance(*point)[0] > 3
            assert outline.muscle(*point)[0] < 3
            assert abs(z) <= 0.71 * breast.thickness(projection) / 2


def test_sizes_follow_the_boxes_of_bcs_dbt(drawn: list[tuple[Breast, Lesion]]) -> None:
    """There the middle box measures 20.6 mm and nine of ten between 8 and 51 mm (at 0.1 mm a pixel)."""
    sizes = [2 * np.sqrt(lesion.half[1] * lesion.half[0]) for _, lesion in drawn]
    assert 16 < np.median(sizes) < 25
    assert np.quantile(sizes, 0.05) > 5
    assert 35 < np.quantile(sizes, 0.95) < 60
    assert max(sizes) < 1.6 * SIZE_RANGE_MM[1]


def test_benign_and_cancer_differ_in_kind(drawn: list[tuple[Breast, Lesion]]) -> None:
    benign, cancer = ([lesion.kind for _, lesion in drawn[start::2]] for start in (0, 1))
    assert benign.count("mass") > 3 * benign.count("spiculated")
    assert cancer.count("spiculated") > 2 * cancer.count("mass")
    assert "distortion" in benign
    assert "distortion" in cancer


def test_contrast_and_margin_are_spread_evenly(drawn: list[tuple[Breast, Lesion]]) -> None:
    masses = [lesion for _, lesion in drawn if lesion.kind == "mass"]
    for values, (low, high) in (
        ([lesion.contrast for lesion in masses], CONTRAST["mass"]),
        ([lesion.margin for lesion in masses], MARGIN_MM),
    ):
        ranks = np.log(np.array(values) / low) / np.log(high / low)
        assert kstest(ranks, "uniform").pvalue > 0.01


def test_kind_and_size_may_be_given(breasts: list[Breast]) -> None:
    for seed, breast in enumerate(breasts[:8]):
        lesion = draw_lesion("benign", breast, stream(seed), kind="spiculated", size=12.0)
        assert lesion.kind == "spiculated"
        assert lesion.size == pytest.approx(12, abs=0.02)


def test_a_lesion_is_plain_in_fat_and_hardly_there_in_dense_gland(scattered: Breast) -> None:
    grid = Grid((32, 120, 100), (1.6, 2.0, 1.5))
    place = locate(
        Lesion("mass", 50.0, 0.0, 0.0, (10.0, 10.0, 10.0), 1.0, 7), scattered, "cc", Outline(scattered, "cc")
    )
    centre = tuple(np.rint(grid.indices(np.array(place.centre))).astype(int))

    def change(gland: float, contrast: float) -> float:
        lesion = Lesion("mass", 50.0, 0.0, 0.0, (10.0, 10.0, 10.0), contrast, 7)
        return float(insert(np.full(grid.shape, gland), lesion, place, grid)[centre] - gland)

    assert change(0.0, 0.5) == pytest.approx(0.5, abs=0.01)
    assert change(0.0, 1.5) == pytest.approx(1.5, abs=0.01)
    assert 0 < change(0.9, 0.5) < 0.1
    assert change(0.9, 1.5) == pytest.approx(0.6, abs=0.01)


def test_an_indistinct_margin_fades_over_its_width(scattered: Breast) -> None:
    grid = Grid((32, 160, 140), (1.6, 0.75, 0.75))
    width = {}
    for margin in (1.0, 5.0):
        lesion = Lesion("mass", 50.0, 0.0, 0.0, (14.0, 14.0, 14.0), 1.0, 3, margin)
        place = locate(lesion, scattered, "cc", Outline(scattered, "cc"))
        share = insert(np.zeros(grid.shape), lesion, place, grid)[16]
        width[margin] = ((share > 0.1) & (share < 0.9)).sum()
    assert width[5.0] > 2.5 * width[1.0]


def test_a_lesion_spreads_in_depth_as_the_geometry_says(scattered: Breast) -> None:
    """Each view shows a Gaussian's chords, filtered; a slice adds the views, shifted by their parallax."""
    preset, geometry, half = PRESETS["small"], Geometry(), 5.0
    lesion = Lesion("asymmetry", 50.0, 0.0, 0.0, (half, half, half), 1.0, 7)
    z, y, x = locate(lesion, scattered, "cc", Outline(scattered, "cc")).centre
    shown, clear = (
        simulate(preset, scattered, "lcc", one, [3], geometry).astype(float) for one in (lesion, None)
    )
    thickness = scattered.thickness("cc")
    heights = (np.arange(32) + 0.5) / 32 * thickness - thickness / 2 - z
    source = geometry.source - geometry.support - thickness / 2 - z
    rows, columns = (np.arange(160) + 0.5) * 1.5 - 120, (np.arange(128) + 0.5) * 1.5
    # The focus is over the chest wall: seen from there, x shrinks with the height of the slice.
    beside = np.abs(columns - x * (1 - heights / source)[:, None]) < 2.25
    near = (np.abs(rows - y) < 2.25)[None, :, None] & beside[:, None]
    measured = ((shown - clear) * near).sum(axis=(1, 2)) / near.sum(axis=(1, 2))
    seen = ramp(np.exp(-2 * (rows / half) ** 2)[None, :, None], thickness, 1.5, geometry, FLOOR)[0, :, 0]
    parallax = geometry.foci()[0] / source
    places = heights[:, None, None] * parallax[:, None] + np.array([-1.5, 0, 1.5])
    expected = np.interp(places, rows, seen).mean(axis=(1, 2))
    middle = np.abs(heights) < 3
    measured, expected = (profile / profile[middle].mean() for profile in (measured, expected))
    assert expected[0] < 0.7  # there is a spread to be seen
    assert np.abs(measured - expected).max() < 0.1


@pytest.mark.parametrize("kind", ["mass", "spiculated", "distortion", "asymmetry"])
def test_a_lesion_changes_its_box_and_its_rim_only(scattered: Breast, kind: str) -> None:
    grid = Grid((32, 120, 100), (1.6, 2.0, 1.5))
    lesion = Lesion(kind, 50.0, 5.0, -10.0, (10.0, 12.0, 9.0), 1.0, 7)
    outline = Outline(scattered, "cc")
    place = locate(lesion, scattered, "cc", outline)
    before = np.full(grid.shape, 0.1)
    after = insert(before, lesion, place, grid)
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij")
    far = np.abs(np.stack([z, y, x], -1) - place.centre) > 1.5 * np.array(place.half) + 6
    changed = after - before
    assert np.abs(changed[far.any(-1)]).max() == 0
    near = (np.abs(np.stack([z, y, x], -1) - place.centre) < np.array(place.half)).all(-1)
    assert changed[near].mean() > 0.02
    assert np.array_equal(after, insert(before, lesion, place, grid))


def test_a_spiculated_mass_has_a_rougher_margin_than_a_mass(scattered: Breast) -> None:
    grid = Grid((32, 160, 140), (1.6, 0.75, 0.75))
    outline = Outline(scattered, "cc")
    roughness = {}
    for kind in ("mass", "spiculated"):
        edges = []
        for seed in range(4):
            lesion = Lesion(kind, 50.0, 0.0, 0.0, (14.0, 14.0, 14.0), 1.0, seed)
            place = locate(lesion, scattered, "cc", outline)
            share = insert(np.zeros(grid.shape), lesion, place, grid)[16] > 0.2
            edge = (share[1:] != share[:-1]).sum() + (share[:, 1:] != share[:, :-1]).sum()
            edges.append(float(edge / np.sqrt(share.sum())))
        roughness[kind] = np.mean(edges)
    assert roughness["spiculated"] > 1.15 * roughness["mass"]
