"""Lesions: their kinds and their places."""

from __future__ import annotations

import numpy as np
import pytest

from dbtbench.phantom.anatomy import Breast, Outline
from dbtbench.phantom.lesions import SIZE_RANGE_MM, Lesion, draw_lesion, insert, locate
from dbtbench.phantom.numbers import stream
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
