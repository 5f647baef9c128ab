"""Closed-form model: each statistic is that of the training volumes, and a wrong one would be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from in_memory import GRID, NO_BOXES, VIEWS, in_memory, smooth_noise, with_lesions
from numpy.typing import NDArray
from scipy.fft import dctn

from dbtbench.closed_form.fitting import Roots, fit_closed_form, fit_components
from dbtbench.closed_form.lesions import BINS, ContrastTable, LesionBump
from dbtbench.closed_form.model import ClosedForm
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.contrast import lesion_profiles
from dbtbench.metrics.mask import breast_mask

SMALL_BLOCK = 4 * 4 * int(np.prod(GRID))
"""Four volumes."""


def draw_roots(model: ClosedForm, n: int, view: str = "lcc", boxes: Boxes = NO_BOXES) -> Volume:
    roots: Volume = np.sqrt(np.stack([model.draw(view, boxes, seed) for seed in range(n)]))
    return roots


def band_power(residual: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of the power in four bands of frequency in the plane, coarse to fine."""
    return band_shares(np.mean([dctn(one, norm="ortho") ** 2 for one in residual], axis=0))


def band_shares(spectrum: NDArray[np.floating]) -> NDArray[np.float64]:
    power = spectrum.mean(axis=0)
    y, x = np.mgrid[: power.shape[0], : power.shape[1]]
    bands = np.minimum(4 * np.hypot(y / power.shape[0], x / power.shape[1]), 3.99).astype(int)
    shares: NDArray[np.float64] = np.bincount(bands.ravel(), power.ravel()) / power.sum()
    return shares


def is_near(one: Any, other: Any, tolerance: float) -> bool:
    """Test the root mean square of the difference."""
    return bool(np.sqrt(np.mean((np.asarray(one) - np.asarray(other)) ** 2)) < tolerance)


class TestMean:
    def test_each_projection_has_its_own_and_right_breasts_are_mirrored(self) -> None:
        ramp = np.broadcast_to(np.linspace(0.2, 0.6, GRID[2]), GRID)
        left = {"cc": ramp, "mlo": ramp**2 + 0.1}
        shown = [left[view[1:].rstrip("2")][..., :: -1 if view[0] == "r" else 1] for view in VIEWS]
        data = in_memory(np.stack(shown * 6) + 0.02 * smooth_noise(24))
        drawn = draw_roots(fit_closed_form(data, 4), 32, "rmlo").mean(axis=0)
        assert is_near(drawn, left["mlo"][..., ::-1], 0.02)
        assert not is_near(drawn, left["mlo"], 0.02)
        assert not is_near(drawn, left["cc"][..., ::-1], 0.02)

    def test_lesions_leave_no_ghost_in_volumes_without(self) -> None:
        data, box = with_lesions(0.2)
        inside = np.zeros(GRID, bool)
        inside[2:4, 10:14, 8:12] = True
        mean = fit_closed_form(data, 0).mean[0]
        assert abs(mean[inside].mean() - 0.6) < 0.01
        assert data.stored[::2, inside].mean() > 0.7**2, "half the volumes have the lesion, all of them here"
        assert len(box)

    def test_a_projection_without_volumes_takes_the_mean_of_both(self, capsys: Any) -> None:
        data = in_memory(0.5 + 0.05 * smooth_noise(8), views=["lcc"])
        model = fit_closed_form(data, 2)
        assert np.array_equal(model.mean[0], model.mean[1])
        assert "0 training volumes of the projection mlo" in capsys.readouterr().err

    def test_a_single_volume_of_a_projection_is_never_drawn_as_it_is(self) -> None:
        roots = 0.5 + 0.05 * smooth_noise(5)
        model = fit_closed_form(in_memory(roots, views=["lcc"] * 4 + ["lmlo"]), 2)
        assert not is_near(model.mean[1], roots[4], 0.02)

    @pytest.mark.parametrize("n", [0, 1])
    def test_fewer_than_two_volumes_are_an_error(self, n: int) -> None:
        with pytest.raises(UsageError, match=f"made has {n} training volumes"):
            fit_closed_form(in_memory(np.full((n, *GRID), 0.5)), 4)


class TestComponents:
    @pytest.mark.parametrize("block_bytes", [1, SMALL_BLOCK, 2**28])
    def test_they_are_those_of_a_singular_value_decomposition(self, block_bytes: int) -> None:
        data = in_memory(0.5 + 0.1 * smooth_noise(18), views=["lcc"])
        roots = Roots(data, block_bytes)
        basis, weights = fit_components(roots, lambda rows: np.full((len(rows), *GRID), 0.5, np.float32), 5)
        matrix = np.sqrt(data.stored.reshape(18, -1).astype(np.float64)) - 0.5
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(
            np.linalg.norm(basis.reshape(5, -1), axis=1), s[:5] / np.sqrt(18), rtol=1e-4
        )
        recovered = weights @ basis.reshape(5, -1)
        np.testing.assert_allclose(recovered, (u[:, :5] * s[:5]) @ v[:5], atol=1e-4)

    def test_no_more_volumes_than_a_block_are_read_at_once(self) -> None:
        data = in_memory(0.5 + 0.1 * smooth_noise(18))
        one, many = fit_closed_form(data, 4), fit_closed_form(data, 4, SMALL_BLOCK)
        assert max(data.asked[1:]) == 4
        assert data.asked[0] == 18
        np.testing.assert_allclose(one.spectrum, many.spectrum, rtol=1e-3)

    def test_what_varies_together_is_drawn_together(self) -> None:
        brightness = np.random.default_rng(1).normal(0, 0.08, 40)[:, None, None, None]
        data = in_memory(0.5 + brightness + 0.02 * smooth_noise(40), views=["lcc"])
        deviation = {k: draw_roots(fit_closed_form(data, k), 64).mean(axis=(1, 2, 3)).std() for k in (0, 3)}
        real = np.sqrt(data.stored).mean(axis=(1, 2, 3)).std()
        assert deviation[3] == pytest.approx(real, rel=0.25)
        still = replace(fit_closed_form(data, 3), components=np.zeros((0, *GRID), np.float32))
        assert draw_roots(still, 64).mean(axis=(1, 2, 3)).std() < 0.5 * real

    def test_they_are_at_most_half_the_volumes_which_is_said(self, capsys: Any) -> None:
        model = fit_closed_form(in_memory(0.5 + 0.05 * smooth_noise(9)), 64)
        assert len(model.components) == 4
        assert "4 components instead of 64, half the 9 training volumes" in capsys.readouterr().err
        assert model.noise.max() > 0.01, "half of the volumes' freedom is left to the noise"


class TestNoise:
    def test_its_spectrum_is_the_training_residuals_and_not_that_of_white_noise(self) -> None:
        noise = 0.05 * smooth_noise(40)
        model = fit_closed_form(in_memory(0.5 + noise, views=["lcc"]), 0)
        real, drawn = band_power(noise), band_power(draw_roots(model, 40) - 0.5)
        white = replace(model, spectrum=np.ones_like(model.spectrum))
        assert is_near(drawn, real, 0.03)
        assert not is_near(band_power(draw_roots(white, 40) - 0.5), real, 0.03)

    def test_its_deviation_depends_on_the_grey_level(self) -> None:
        grey = np.where(np.arange(GRID[2]) < GRID[2] // 2, 0.3, 0.7)
        deviation = np.where(grey < 0.5, 0.01, 0.05)
        data = in_memory(grey + deviation * smooth_noise(40), views=["lcc"])
        model = fit_closed_form(data, 0)
        drawn = draw_roots(model, 40) - grey

        def measured(residual: Volume) -> list[float]:
            return [float(residual[..., grey == level].std()) for level in (0.3, 0.7)]

        assert measured(drawn) == pytest.approx([0.01, 0.05], rel=0.15)
        flat = replace(model, noise=np.full_like(model.noise, 0.036))
        assert measured(draw_roots(flat, 40) - grey) != pytest.approx([0.01, 0.05], rel=0.15)

    def test_its_spectrum_is_no_more_that_of_bright_voxels_than_of_dark_ones(self) -> None:
        dark = np.arange(GRID[2]) < GRID[2] // 2
        noise = np.where(dark, smooth_noise(40), np.random.default_rng(1).standard_normal((40, *GRID)))

        def measured(*deviations: float) -> NDArray[np.float64]:
            roots = np.where(dark, 0.3, 0.6) + np.where(dark, *deviations) * noise
            return band_shares(fit_closed_form(in_memory(roots, views=["lcc"]), 0).spectrum)

        assert is_near(measured(0.01, 0.06), measured(0.03, 0.03), 0.01)
        assert not is_near(band_power(noise[..., ~dark]), measured(0.03, 0.03), 0.05)

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_volumes_that_are_all_constant_are_drawn_as_such(self, level: float) -> None:
        model = fit_closed_form(in_memory(np.full((8, *GRID), level)), 4)
        np.testing.assert_allclose(draw_roots(model, 2), level, atol=1e-3)


def lesion_contrast(volumes: Volume, boxes: Boxes) -> float:
    stacked = volumes[:, None]
    in_depth, _ = lesion_profiles(stacked, breast_mask(stacked), [boxes] * len(volumes))
    return float(np.nanmean(in_depth[:, 0]))


class TestLesions:
    @pytest.mark.parametrize("height", [0.2, -0.2])
    def test_they_have_the_contrast_of_the_training_lesions(self, height: float) -> None:
        data, box = with_lesions(height)
        model = fit_closed_form(data, 0)
        real = lesion_contrast(data.stored[::2], box)
        assert abs(real) > 0.08
        drawn = lesion_contrast(draw_roots(model, 24, boxes=box) ** 2, box)
        assert drawn == pytest.approx(real, rel=0.15)
        none = replace(model, lesion=replace(model.lesion, amplitude=0.0))
        assert abs(lesion_contrast(draw_roots(none, 24, boxes=box) ** 2, box)) < 0.1 * abs(real)
        assert abs(lesion_contrast(draw_roots(model, 24) ** 2, box)) < 0.1 * abs(real)

    def test_their_shape_falls_from_the_middle_as_the_training_lesions_do(self) -> None:
        data, _ = with_lesions(0.2)
        bump = fit_closed_form(data, 0).lesion
        in_plane = (np.arange(BINS) + 0.5) * 2 / BINS
        np.testing.assert_allclose(bump.plane, np.exp(-(in_plane**2)), atol=0.15)
        in_depth = np.array([0.5, 1.5, 2.5])  # slices from the middle of the box, whose half-axis is 1
        heights = bump.depth[(in_depth * BINS / 4).astype(int)]
        np.testing.assert_allclose(heights, np.exp(0.25 - in_depth**2), atol=0.05)
        for profile in (bump.plane, bump.depth):
            assert profile[0] == 1
            assert (np.diff(profile) <= 0).all()

    def test_their_contrast_is_that_to_the_breast_around_them(self) -> None:
        data, box = with_lesions(0.2)
        residuals, inside = np.sqrt(data.stored[::2]) - 0.6, breast_mask(data.stored[:1, None])[0, 0, 0]
        slices = np.linspace(0, 0.2, GRID[0], dtype=np.float32)[:, None, None]
        bumps = []
        for brighter in (0, 0.1, slices):
            table = ContrastTable()
            for residual in residuals:
                table.add(residual + np.float32(brighter), inside, box)
            bumps.append(table.fit())
        assert bumps[0].amplitude == pytest.approx(0.2 * np.exp(-0.25), rel=0.2)
        assert [bump.amplitude for bump in bumps[1:]] == pytest.approx([bumps[0].amplitude] * 2, rel=1e-3)

    def test_they_are_neither_in_the_components_nor_in_the_noise(self) -> None:
        data, _ = with_lesions(0.2)
        model = fit_closed_form(data, 2)
        assert np.abs(model.components).max() < 0.03, "with the lesions 0.1: half the volumes have one"
        assert model.noise.max() < 0.03

    def test_without_training_lesions_nothing_is_added(self) -> None:
        model = fit_closed_form(in_memory(0.5 + 0.05 * smooth_noise(8)), 2)
        box = np.array([[1, 5, 5, 3, 10, 10]], np.float32)
        assert np.array_equal(model.draw("lcc", box, 0), model.draw("lcc", NO_BOXES, 0))

    @pytest.mark.parametrize(
        "box",
        [
            [0, 0, 0, 1, 4, 4],
            [5, 20, 16, 6, 24, 20],
            [2, 10, 8, 2, 10, 8],
            [0, 0, 0, 6, 24, 20],
            [2.3, 9.7, 7.1, 4.2, 15.4, 11.9],
        ],
    )
    def test_the_bump_is_highest_in_the_middle_of_any_box(self, box: list[float]) -> None:
        falling = np.linspace(1, 0.1, BINS)
        drawn = LesionBump(falling, falling, 0.3).draw(np.array([box], np.float32), GRID)
        peak = np.argwhere(drawn == drawn.max()) + 0.5
        middle = (np.array(box[:3]) + box[3:]) / 2
        assert (np.abs(peak.mean(axis=0) - middle) <= 0.51).all()
        assert drawn.max() == pytest.approx(0.3, rel=0.6)

    def test_overlapping_bumps_are_not_added(self) -> None:
        falling = np.linspace(1, 0.1, BINS)
        box = np.array([[2, 9, 7, 4, 15, 12]], np.float32)
        bump = LesionBump(falling, falling, 0.3)
        assert np.array_equal(bump.draw(np.repeat(box, 2, axis=0), GRID), bump.draw(box, GRID))

    def test_a_lesion_without_a_background_is_left_out(self) -> None:
        table = ContrastTable()
        table.add(
            np.ones(GRID, np.float32), np.zeros(GRID[1:], bool), np.array([[2, 9, 7, 4, 15, 12]], np.float32)
        )
        assert not table.voxels.any()
        assert table.fit().amplitude == 0
