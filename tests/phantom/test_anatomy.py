"""The compressed breast."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from dbtbench.phantom.anatomy import (
    ATTENUATION,
    FIELD_MM,
    SKIN_MM,
    Breast,
    Outline,
    Tissue,
    attenuation,
    compose,
    draw_breasts,
)
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.texture import Grid


def fill(breast: Breast, projection: str, seed: int = 0) -> tuple[Tissue, Grid]:
    thickness = breast.thickness(projection)
    grid = Grid((24, 80, 96), (thickness / 24, FIELD_MM[0] / 80, 1.5))
    outline = Outline(breast, projection)
    return compose(breast, projection, outline, grid, stream(seed)), grid


def test_left_and_right_are_similar_but_not_the_same() -> None:
    both = draw_breasts(stream(0))
    left, right = asdict(both["l"]), asdict(both["r"])
    assert left.pop("density") == right.pop("density")
    for name, value in left.items():
        assert value != right[name]
        assert right[name] == pytest.approx(value, rel=0.15)


def test_densities_are_those_of_screening(breasts: list[Breast]) -> None:
    drawn = [draw_breasts(stream(s))["l"].density for s in range(2000)]
    for density, share in {"a": 0.1, "b": 0.4, "c": 0.4, "d": 0.1}.items():
        assert drawn.count(density) / len(drawn) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("projection", ["cc", "mlo"])
def test_the_skin_line_lies_at_distance_zero(scattered: Breast, projection: str) -> None:
    outline = Outline(scattered, projection)
    y, x = outline.nipple
    across = np.full(3, y)
    inwards = np.array([x - 10, x, x + 10])
    np.testing.assert_allclose(outline.distance(across, inwards), [10, 0, -10], atol=0.6)


def test_both_views_reach_equally_far_from_the_chest_wall(breasts: list[Breast]) -> None:
    for breast in breasts[:10]:
        cc, mlo = (Outline(breast, projection).nipple[1] for projection in ("cc", "mlo"))
        assert cc == pytest.approx(mlo, abs=2.0)


def test_only_the_oblique_view_shows_the_pectoral_muscle(scattered: Breast) -> None:
    assert float(fill(scattered, "cc")[0].muscle.max()) == 0
    muscle = fill(scattered, "mlo")[0].muscle
    assert float(muscle.max()) == 1
    assert float(muscle[:, 0].sum()) > float(muscle[:, 20].sum())


@pytest.mark.parametrize("projection", ["cc", "mlo"])
def test_gland_has_the_share_that_the_density_says(breasts: list[Breast], projection: str) -> None:
    shares = {}
    for density in "abcd":
        breast = next(b for b in breasts if b.density == density)
        tissue, _ = fill(breast, projection)
        shares[density] = float(tissue.gland[tissue.surface > 2.5].mean())
        assert shares[density] == pytest.approx(breast.gland, abs=0.16)
    assert sorted(shares.values()) == list(shares.values())


def test_attenuation_lies_between_fat_and_muscle_and_is_zero_in_air(scattered: Breast) -> None:
    tissue, grid = fill(scattered, "mlo")
    mu = attenuation(tissue, grid.spacing)
    deep = mu[tissue.surface > 3]
    assert float(deep.min()) >= ATTENUATION["fat"] - 1e-5
    assert float(deep.max()) <= ATTENUATION["muscle"] + 1e-5
    assert mu[tissue.surface < -1.5].max() == 0


def test_skin_covers_the_whole_breast(scattered: Breast) -> None:
    """Its thickness does not depend on how planes cut it."""
    tissue, grid = fill(scattered, "cc")
    mu = attenuation(Tissue(np.zeros_like(tissue.gland), tissue.surface, tissue.muscle), grid.spacing)
    middle = mu[len(mu) // 2]
    shell = (tissue.surface[len(mu) // 2] > 0.6) & (tissue.surface[len(mu) // 2] < 1.0)
    assert float(middle[shell].min()) > (ATTENUATION["fat"] + ATTENUATION["skin"]) / 2
    deep = tissue.surface.max(axis=0) >= scattered.thickness_cc / 2 - 0.51 * grid.spacing[0]
    excess = (mu - ATTENUATION["fat"]).sum(axis=0)[deep] * grid.spacing[0]
    assert excess == pytest.approx(2 * SKIN_MM * (ATTENUATION["skin"] - ATTENUATION["fat"]), rel=0.1)


def test_the_anatomy_is_a_function_of_the_seed(scattered: Breast) -> None:
    first, again, other = (fill(scattered, "cc", seed)[0].gland for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
