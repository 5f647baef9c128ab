"""Paste: lesions keep contrast and profiles, lie in the breast, and leave all else as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout, Sample
from dbtbench.generators.paste import Paste, PasteRecipe
from dbtbench.geometry.views import Boxes, Volume, mirror_boxes, projection
from dbtbench.layouts import draw_layouts
from dbtbench.lesions.insertion import Insertion, feather, make_matrix
from dbtbench.lesions.library import cut_out, subtract_planes
from dbtbench.lesions.places import Background, find_muscle, plane_distance
from dbtbench.metrics.contrast import lesion_profiles
from dbtbench.metrics.mask import breast_mask
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run

GRID = (8, 48, 40)
BREAST = 34
"""Columns of tissue; the others are air."""
NO_BOXES = np.zeros((0, 6), np.float32)
DEPTHS = np.array([0.2, 0.4, 0.7, 1.0, 0.9, 0.6, 0.3, 0.1])
"""Height of a lesion in each slice; its box has slices 3 and 4."""
VIEWS = ("lcc", "rcc", "lmlo", "rmlo")


@dataclass(frozen=True, eq=False, repr=False)
class InMemory(DBTDataset):
    """Volumes in memory, as displayed."""

    stored: Volume = None  # type: ignore[assignment]
    wanted: Sequence[Boxes] = ()

    def volumes(self, cases: Any = None) -> Volume:
        wanted: Volume = self.stored[list(cases)][:, None].copy()
        return wanted

    def boxes_of(self, case: int) -> Boxes:
        return self.wanted[case].copy()


def in_memory(left: Sequence[Volume], boxes: Sequence[Boxes], views: Sequence[str]) -> InMemory:
    """A data set of left breasts, of which right views are mirrored; a patient for each volume."""
    n, width = len(left), left[0].shape[2]
    right = [view[0] == "r" for view in views]
    stored = np.stack([v[..., ::-1] if r else v for v, r in zip(left, right, strict=True)]).astype(np.float32)
    shown = [mirror_boxes(b, width) if r else b for b, r in zip(boxes, right, strict=True)]
    cases = pd.DataFrame(
        {
            **{"case": range(n), "View": list(views), "PatientID": [f"P{i}" for i in range(n)]},
            **{"label": ["cancer" if len(b) else "normal" for b in boxes]},
        }
    )
    rows = pd.DataFrame({"case": [i for i, b in enumerate(boxes) for _ in b]})
    meta = {"name": "made", "grid": list(left[0].shape)}
    return InMemory(Path("made"), meta, cases, rows, stored=stored, wanted=shown)


def tissue(seed: int | None = None, level: float = 0.3, grid: tuple[int, int, int] = GRID) -> Volume:
    """A breast of one grey level, with noise that has a seed, and air."""
    volume = np.zeros(grid, np.float32)
    inside = max(grid[2] * BREAST // GRID[2], 1)
    volume[..., :inside] = level
    if seed is not None:
        noise = gaussian_filter(np.random.default_rng(seed).standard_normal(grid), (0.5, 1, 1))
        volume[..., :inside] += 0.02 * (noise / noise.std())[..., :inside]
    return volume.clip(0, 1)


def box_at(y: float, x: float, half: float = 4.0) -> NDArray[np.float32]:
    return np.array([3, y - half, x - half, 5, y + half, x + half], np.float32)


def add_lesion(volume: Volume, box: NDArray[np.float32], height: float = 0.3) -> Volume:
    """Add a lesion that is bright in the inner part of its box, through the depth."""
    distance = plane_distance(box, (volume.shape[1], volume.shape[2]))
    shape = height * np.exp(-((distance / 0.6) ** 4))
    lesion: Volume = (volume + DEPTHS[:, None, None] * shape).clip(0, 1).astype(np.float32)
    return lesion


def made(lesions: int = 6, normals: int = 12, seed: int | None = 0, height: float = 0.3) -> InMemory:
    """Lesions in several places and views, and normal volumes of other patients."""
    rng = np.random.default_rng(1)
    boxes = [box_at(*rng.uniform((14, 12), (34, 22)))[None] for _ in range(lesions)]
    noise = [None if seed is None else seed + i for i in range(lesions + normals)]
    left = [add_lesion(tissue(n), b[0], height) for n, b in zip(noise, boxes, strict=False)]
    left += [tissue(n) for n in noise[lesions:]]
    views = [VIEWS[i % 4] for i in range(lesions)] + [VIEWS[i % 4] for i in range(normals)]
    return in_memory(left, boxes + [NO_BOXES] * normals, views)


def paste(data: DBTDataset, **settings: Any) -> Paste:
    generator = Paste(PasteRecipe(**settings))
    generator.fit(data, Run(Path(), {}))
    return generator


def turn_left(volumes: Volume, boxes: Sequence[Boxes], views: Sequence[str]) -> tuple[Volume, list[Boxes]]:
    right = [view[0] == "r" for view in views]
    turned = np.stack([v[..., ::-1] if r else v for v, r in zip(volumes, right, strict=True)])
    width = volumes.shape[-1]
    return turned, [mirror_boxes(b, width) if r else b for b, r in zip(boxes, right, strict=True)]


def measure(volumes: Volume, boxes: Sequence[Boxes]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean profiles in depth and radius of volumes (N, D, H, W)."""
    whole = volumes[:, None]
    depth, radius = lesion_profiles(whole, breast_mask(whole), boxes)
    return np.nanmean(depth[:, :4], axis=0), np.nanmean(radius, axis=0)  # no slice is farther away


def host_of(data: DBTDataset, layout: Layout) -> Volume:
    """The layout's host, turned to its side."""
    assert layout.host is not None
    volume = data.volumes([layout.host])[0, 0]
    view = data.cases.set_index("case").loc[layout.host, "View"]
    shown: Volume = volume if view[0] == layout.view[0] else volume[..., ::-1]
    return shown


def profiles_of(data: InMemory, layouts: Sequence[Layout], samples: Sequence[Sample]) -> Any:
    """Profiles of training lesions, and of pasted ones."""
    cases = [int(case) for case in data.cases["case"][data.positive]]
    return (
        measure(data.volumes(cases)[:, 0], [data.boxes_of(case) for case in cases]),
        measure(np.stack([s.volume for s in samples]), [s.boxes for s in samples]),
    )


class TestSignal:
    def test_on_flat_tissue_the_contrast_is_the_gain_times_the_lesions(self) -> None:
        data = made(seed=None, height=0.25)
        layouts = draw_layouts(data, 12, 0, 1.0)
        samples = list(paste(data, gain=(1.2, 1.2), scale=0).sample(layouts))
        (depth, _), (pasted, _) = profiles_of(data, layouts, samples)
        np.testing.assert_allclose(pasted, 1.2 * depth, rtol=0.02)

    def test_without_a_turn_it_is_the_residual_itself(self) -> None:
        box = box_at(24, 16)
        lesion = cut_out(Background.of(add_lesion(tissue(3), box), "cc", "A"), box[None], 0, 1.0)
        assert lesion
        volume = tissue(4)
        background = Background.of(volume.copy(), "cc", "B")
        background.darkest = 0.0
        planned = Insertion.plan(lesion, background, box_at(20, 15), 0.0, False, 0.0)
        assert planned
        np.testing.assert_array_equal(planned.add(0.9), box_at(20, 15))
        added = (background.volume - volume)[:, 16:24, 11:19]
        r0, c0 = 20 - lesion.corner[0], 12 - lesion.corner[1]
        signal = lesion.residual[:, r0 : r0 + 8, c0 : c0 + 8]
        weight = feather(plane_distance(box, (48, 40)), 2.0)[20:28, 12:20]
        np.testing.assert_allclose(added, 0.9 * weight * signal, atol=1e-5)

    @pytest.mark.parametrize("margin", [0.5, 1.0])
    def test_profiles_in_depth_and_radius_are_those_of_the_training_lesions(self, margin: float) -> None:
        data = made()
        layouts = draw_layouts(data, 60, 0, 1.0)
        samples = list(paste(data, gain=(1, 1), margin=margin).sample(layouts))
        (depth, radius), (pasted_depth, pasted_radius) = profiles_of(data, layouts, samples)
        assert np.abs(pasted_depth - depth).max() < 0.1 * depth[0]
        assert np.abs(pasted_radius - radius).max() < 0.1 * radius[0]
        box_deep = depth * (np.arange(4) < 1)
        assert np.abs(box_deep - depth).max() > 0.1 * depth[0], "a patch as deep as the box would fail"

    def test_planes_remove_a_gradient(self) -> None:
        y, x = np.mgrid[:48, :40]
        slope = (0.2 + 0.006 * x + 0.003 * y).astype(np.float32)
        volume = np.where(np.arange(40) < BREAST, slope, 0)[None].repeat(8, 0)
        distance = plane_distance(box_at(24, 27), (48, 40))
        shell = (distance > 1.25) & (distance <= 2) & (x < BREAST - 1)
        assert not shell[24, 34], "the shell is one-sided"
        lesion = distance <= 1
        assert np.abs(subtract_planes(volume, shell)[:, lesion]).max() < 1e-5
        flat = volume - volume[:, shell].mean(axis=1)[:, None, None]
        assert np.abs(flat[:, lesion].mean()) > 0.003, "a mean alone leaves a contrast"
        assert np.ptp(flat[:, lesion]) > 0.05, "and the gradient"

    def test_a_lesion_on_a_gradient_is_pasted_without_it(self) -> None:
        x = np.arange(40)
        slope = np.where(x < BREAST, 0.2 + 0.006 * x, 0).astype(np.float32)
        ramp = np.broadcast_to(slope, GRID)
        box = box_at(24, 16)
        data = in_memory([add_lesion(ramp, box), tissue()], [box[None], NO_BOXES], ["lcc", "lcc"])
        layout = Layout(0, 1, "cancer", "lcc", box[None], 0, 1)
        (sample,) = paste(data, gain=(1, 1), scale=0).sample([layout])
        added = (sample.volume - host_of(data, layout))[3]
        ring = (plane_distance(box, (48, 40)) > 1.5) & (plane_distance(box, (48, 40)) < 1.9)
        assert np.abs(added[ring]).max() < 0.01
        assert added[24, 16] == pytest.approx(0.3, abs=0.01)

    def test_a_slice_beyond_the_lesions_volume_is_taken_from_its_other_side(self) -> None:
        box = box_at(24, 16)
        box[[0, 3]] = 1, 3
        lesion = cut_out(Background.of(add_lesion(tissue(), box), "cc", "A"), box[None], 0, 1.0)
        assert lesion
        background, wanted = Background.of(tissue(), "cc", "B"), box.copy()
        wanted[[0, 3]] = 5, 7
        planned = Insertion.plan(lesion, background, wanted, 0.0, False, 0.0)
        assert planned
        assert planned.shift == 4
        # The lesion's middle lies between its slices 1 and 2, which are now 5 and 6.
        assert [planned.source_slice(number) for number in range(8)] == [7, 6, 5, 4, 0, 1, 2, 3]
        wanted[[0, 3]] = 7, 8  # so far that its volume has no slice on either side
        far = Insertion.plan(lesion, background, wanted, 0.0, False, 0.0)
        assert far
        assert [far.source_slice(number) for number in range(8)] == [7, 7, 7, 6, 5, 4, 0, 1]
        np.testing.assert_array_equal(far.box[[0, 3]], [7, 8])


class TestPlace:
    def test_nothing_changes_outside_the_feather_nor_in_air(self) -> None:
        data = made()
        layouts = draw_layouts(data, 30, 0, 1.0)
        for layout, sample in zip(layouts, paste(data).sample(layouts), strict=True):
            host = host_of(data, layout)
            changed = (sample.volume != host).any(axis=0)
            assert changed.any()
            assert (plane_distance(sample.boxes[0], (48, 40))[changed] < 2).all()
            assert not changed[~breast_mask(host[None, None])[0, 0, 0]].any()

    def test_at_the_skin_air_is_neither_copied_nor_changed(self) -> None:
        box = box_at(24, BREAST - 5)
        data = in_memory([add_lesion(tissue(), box), tissue()], [box[None], NO_BOXES], ["lcc", "lcc"])
        data.stored[..., BREAST:] = 0
        generator = paste(data, gain=(1, 1), scale=0)
        for wanted in (box_at(24, 16), box_at(24, 39)):
            (sample,) = generator.sample([Layout(0, 1, "cancer", "lcc", wanted[None], 0, 1)])
            assert not sample.volume[..., BREAST:].any()
            added = (sample.volume - tissue())[3]
            assert added.max() > 0.2
            assert added.min() > -0.002, "no dark rim"
        # As it stands in its library: nothing of the edge between tissue and air.
        lesion = generator.library.lesions[0]
        assert np.abs(lesion.residual[3, :, BREAST - lesion.corner[1] :]).max() == 0
        assert lesion.residual.min() > -0.05

    def test_fat_beside_a_lesion_makes_no_hole_in_the_host(self) -> None:
        y, x = np.mgrid[:48, :40]
        gland = (np.hypot(y - 24, x - 16) < 10) & ~(np.hypot(y - 24, x - 20) < 2)
        around = tissue(0, 0.15) + 0.3 * gland.astype(np.float32)
        box = box_at(24, 14)
        data = in_memory([add_lesion(around, box), tissue(1, 0.15)], [box[None], NO_BOXES], ["lcc", "lcc"])
        layout = Layout(0, 1, "cancer", "lcc", box[None], 0, 1)
        lesion = paste(data).library.lesions[0]
        assert lesion.residual.min() < -0.25, "fat is darker than the plane through the gland"
        (sample,) = paste(data).sample([layout])
        host = host_of(data, layout)
        inside = breast_mask(host[None, None])[0, 0, 0]
        assert (sample.volume - host)[3].max() > 0.2
        assert sample.volume[:, inside].min() == host[:, inside].min()

    def test_boxes_hold_the_mass_of_what_was_added(self) -> None:
        data = made(seed=None)
        layouts = draw_layouts(data, 20, 0, 1.0)
        for layout, sample in zip(layouts, paste(data).sample(layouts), strict=True):
            added = (sample.volume - host_of(data, layout)).clip(0).sum(axis=0)
            y0, x0, y1, x1 = sample.boxes[0, [1, 2, 4, 5]].round().astype(int)
            assert added[y0:y1, x0:x1].sum() > 0.95 * added.sum()
            y, x = np.tensordot(np.indices(added.shape) + 0.5, added, axes=2) / added.sum()
            centre = (sample.boxes[0, 1:3] + sample.boxes[0, 4:]) / 2
            np.testing.assert_allclose([y, x], centre, atol=0.1)

    def test_a_wanted_place_in_the_breast_is_taken_and_one_in_air_is_moved_into_it(self) -> None:
        background = Background.of(tissue(0), "cc", "A")
        half = np.array([4.0, 4.0])
        np.testing.assert_array_equal(background.find_place(np.array([20.3, 15.7]), half), [20.3, 15.7])
        moved = background.find_place(np.array([20.3, 38.0]), half)
        assert moved is not None
        assert moved[0] == 20.5
        assert 26 < moved[1] < 30
        border = background.find_place(np.array([1.0, 1.0]), half)
        np.testing.assert_array_equal(border, [4.5, 4.5])

    def test_muscle_is_avoided_in_oblique_views(self) -> None:
        y, x = np.mgrid[:48, :40]
        muscle = x < 16 - y / 2
        volume = tissue(0) + 0.3 * muscle.astype(np.float32)
        background = Background.of(volume, "mlo", "A")
        found = find_muscle(volume, background.inside)
        assert (found & muscle).sum() > 0.8 * muscle.sum()
        assert (found & ~muscle).sum() < 0.2 * muscle.sum()
        half, wanted = np.array([3.0, 3.0]), np.array([6.0, 6.0])
        moved = background.find_place(wanted, half)
        assert moved is not None
        lesion = np.hypot(y + 0.5 - moved[0], x + 0.5 - moved[1]) <= 3
        assert not (lesion & found).any()
        inside_muscle = Background.of(volume, "cc", "A").find_place(wanted, half)
        np.testing.assert_array_equal(inside_muscle, wanted)

    def test_a_bright_gland_is_no_muscle(self) -> None:
        y, x = np.mgrid[:48, :40]
        gland = np.hypot(y - 28, x - 12) < 11
        volume = tissue(0) + 0.3 * gland.astype(np.float32)
        assert find_muscle(volume, breast_mask(volume[None, None])[0, 0, 0]).sum() < 30
        assert not find_muscle(np.zeros(GRID, np.float32), np.zeros(GRID[1:], bool)).any()

    def test_several_lesions_do_not_overlap(self) -> None:
        data = made()
        boxes = np.stack([box_at(20, 15), box_at(22, 16), box_at(24, 17)])
        layout = Layout(0, 3, "cancer", "lcc", boxes, 0, 6)
        (sample,) = paste(data, scale=0).sample([layout])
        assert len(sample.boxes) == 3
        inside = [plane_distance(box, (48, 40)) <= 1 for box in sample.boxes]
        assert np.sum(inside, axis=0).max() == 1

    def test_a_lesion_that_fits_nowhere_is_left_out_and_the_volume_is_normal(self) -> None:
        huge = np.array([3, 1, 1, 5, 47, 33], np.float32)
        small = tissue(1)
        small[..., 12:] = 0
        wide = tissue(0)
        fitting = box_at(24, 16, 7)
        data = in_memory(
            [add_lesion(wide, fitting), small, small.copy()], [fitting[None], NO_BOXES, NO_BOXES], ["lcc"] * 3
        )
        (sample,) = paste(data).sample([Layout(0, 1, "cancer", "lcc", huge[None], 0, 1)])
        assert (sample.label, len(sample.boxes)) == ("normal", 0)
        np.testing.assert_array_equal(sample.volume, small)


class TestShape:
    def test_size_follows_the_wanted_box_within_a_fifth(self) -> None:
        data = made(lesions=1, seed=None)
        for half, expected in ((4.4, 4.4), (9.0, 4.8), (2.0, 3.2)):
            layout = Layout(0, 1, "cancer", "lcc", box_at(22, 16, half)[None], 0, 5)
            (sample,) = paste(data).sample([layout])
            assert (sample.boxes[0, 4] - sample.boxes[0, 1]) / 2 == pytest.approx(expected, rel=1e-3)

    def test_a_turn_is_one_in_mm(self) -> None:
        quarter = make_matrix(np.pi / 2, False, 1.0, aspect=2.0)
        np.testing.assert_allclose(quarter @ [0, 4.0], [-2, 0], atol=1e-9)
        np.testing.assert_allclose(quarter @ [2.0, 0], [0, 4], atol=1e-9)
        assert np.linalg.det(make_matrix(0.7, False, 1.1, 1.5)) == pytest.approx(1.21)
        assert np.linalg.det(make_matrix(0.7, True, 1.1, 1.5)) == pytest.approx(-1.21)

    def test_the_box_is_that_of_the_turned_ellipse(self) -> None:
        long = np.array([3, 18, 14, 5, 30, 20], np.float32)
        lesion = cut_out(Background.of(add_lesion(tissue(), long), "cc", "A"), long[None], 0, 1.0)
        assert lesion
        background = Background.of(tissue(), "cc", "B")
        planned = Insertion.plan(lesion, background, long, np.pi / 2, False, 0.0)
        assert planned
        np.testing.assert_allclose(planned.add(1.0), [3, 21, 11, 5, 27, 23], atol=1e-4)
        added = background.volume[3] - tissue()[3]
        rows, columns = np.nonzero(added > 0.15)
        assert np.ptp(columns) > 1.5 * np.ptp(rows)


class TestLibrary:
    def test_dark_lesions_stay_out_and_the_log_says_how_many(self, capsys: Any) -> None:
        bright, dark = made(lesions=3), made(lesions=3, height=-0.2)
        data = replace(
            bright, stored=np.concatenate([bright.stored[:2], dark.stored[2:3], bright.stored[3:]])
        )
        assert {lesion.patient for lesion in paste(data).library.lesions} == {"P0", "P1"}
        assert "2 of 3 training lesions can be pasted; left out: 1 that are not" in capsys.readouterr().err

    def test_a_lesion_without_tissue_around_it_stays_out(self) -> None:
        box = box_at(24, 16)
        alone = np.where(plane_distance(box, (48, 40)) <= 1.2, add_lesion(tissue(), box), 0)
        data = in_memory([alone, tissue()], [box[None], NO_BOXES], ["lcc", "lcc"])
        with pytest.raises(UsageError, match="can be pasted: 1 with too little tissue around them"):
            paste(data)

    def test_without_a_bright_lesion_there_is_an_error(self) -> None:
        with pytest.raises(
            UsageError, match="made has no training lesion that can be pasted: 6 that are not"
        ):
            paste(made(height=-0.2))
        with pytest.raises(UsageError, match="made has no training lesion that can be pasted"):
            paste(made(lesions=0))

    def test_lesions_come_first_from_the_projection_and_never_from_the_hosts_patient(self) -> None:
        library = paste(made()).library
        order = list(library.draw_order("mlo", "P2", np.random.default_rng(0)))
        assert [lesion.projection for lesion in order] == ["mlo"] + ["cc"] * 4
        assert all(lesion.patient != "P2" for lesion in order)

    def test_a_lesion_at_the_border_is_pasted_without_a_step(self) -> None:
        box = np.array([3, 20, 0, 5, 28, 9], np.float32)
        data = in_memory([add_lesion(tissue(), box), tissue()], [box[None], NO_BOXES], ["lcc", "lcc"])
        layout = Layout(0, 1, "cancer", "lcc", box_at(24, 18)[None], 0, 1)
        (sample,) = paste(data, gain=(1, 1), scale=0).sample([layout])
        added = (sample.volume - host_of(data, layout))[3]
        assert added.max() > 0.1
        assert np.abs(np.diff(added, axis=0)).max() < 0.2
        assert np.abs(np.diff(added, axis=1)).max() < 0.2

    def test_without_hosts_the_error_names_data_and_projection(self) -> None:
        data = made(normals=2)  # two cc views, none from above
        with pytest.raises(UsageError, match=r"made has too few .* of the projection mlo") as caught:
            paste(data)
        assert "with their normal cases" in caught.value.hint
        with pytest.raises(UsageError, match="projection cc"):
            list(paste(made()).sample([Layout(0, 0, "normal", "lcc", NO_BOXES, 0)]))


class TestPlacebo:
    def test_it_pastes_flat_patches_where_lesions_would_be_without_boxes(self) -> None:
        data = made(seed=0)
        layouts = draw_layouts(data, 24, 0, 1.0)
        lesions = list(paste(data).sample(layouts))
        placebo = list(paste(data, placebo=True).sample(layouts))
        assert all((sample.label, sample.boxes.shape) == ("normal", (0, 6)) for sample in placebo)
        for layout, sample, lesion in zip(layouts, placebo, lesions, strict=True):
            changed = (sample.volume != host_of(data, layout)).any(axis=0)
            assert changed.any()
            y, x = np.argwhere(changed).mean(axis=0) + 0.5
            box = lesion.boxes[0]
            assert np.hypot(y - (box[1] + box[4]) / 2, x - (box[2] + box[5]) / 2) < 2, "the same places"
        volumes = np.stack([sample.volume for sample in placebo])
        hosts = np.stack([host_of(data, layout) for layout in layouts])
        boxes = [sample.boxes for sample in lesions]
        bright, _ = measure(np.stack([sample.volume for sample in lesions]), boxes)
        flat, _ = measure(volumes, boxes)
        natural, _ = measure(hosts, boxes)
        assert bright[0] > 0.09
        assert np.abs(flat - natural).max() < 0.01

    def test_the_recipe(self) -> None:
        assert "placebo" in names(folder_of(Paste))
        assert resolve(PasteRecipe, folder_of(Paste), "placebo") == PasteRecipe(placebo=True)
        for gain in ("[0, 1]", "[1.2, 1]"):
            with pytest.raises(UsageError, match="setting gain"):
                resolve(PasteRecipe, folder_of(Paste), "default", {"gain": gain})


class TestSamples:
    def test_a_right_view_is_the_mirror_image_whatever_side_the_host_is_of(self) -> None:
        data, boxes = made(), box_at(22, 14)[None]
        for host in (6, 7):
            left = Layout(0, 5, "cancer", "lcc", boxes, 0, host)
            right = replace(left, view="rcc", boxes=mirror_boxes(boxes, 40))
            one, other = paste(data).sample([left, right])
            np.testing.assert_array_equal(other.volume, one.volume[..., ::-1])
            np.testing.assert_allclose(other.boxes, mirror_boxes(one.boxes, 40), atol=1e-5)
            assert one.volume[..., 0].any(), "the chest wall is at the left"

    def test_a_layout_without_boxes_gets_its_host_as_it_is_displayed(self) -> None:
        data = made()
        for layout in draw_layouts(data, 6, 0, 0.0):
            (sample,) = paste(data).sample([layout])
            assert (sample.label, len(sample.boxes)) == ("normal", 0)
            np.testing.assert_array_equal(sample.volume, host_of(data, layout))

    def test_the_same_bytes_in_any_batch_and_from_a_second_fit(self) -> None:
        data = made()
        layouts = draw_layouts(data, 8, 0, 0.7)
        whole = list(paste(data).sample(layouts))
        again = paste(data)
        alone = [sample for layout in layouts[::-1] for sample in again.sample([layout])][::-1]
        for one, other in zip(whole, alone, strict=True):
            assert one.volume.tobytes() == other.volume.tobytes()
            assert one.boxes.tobytes() == other.boxes.tobytes()
            assert one.label == other.label

    def test_the_label_is_that_of_the_gravest_lesion(self) -> None:
        data = made(lesions=1)
        labels = data.cases["label"].replace("cancer", "benign")
        benign = replace(data, cases=data.cases.assign(label=labels))
        (sample,) = paste(benign).sample([Layout(0, 0, "cancer", "lcc", box_at(22, 14)[None], 0, 1)])
        assert sample.label == "benign"

    def test_a_tiny_grid_works(self) -> None:
        grid = (2, 12, 10)
        box = np.array([0, 5, 3, 1, 7, 5], np.float32)
        lesion = tissue(None, 0.3, grid)
        lesion[:, 5:7, 3:5] += 0.3
        data = in_memory([lesion, tissue(None, 0.3, grid)], [box[None], NO_BOXES], ["lcc", "rcc"])
        (sample,) = paste(data).sample([Layout(0, 0, "cancer", "lcc", box[None], 0, 1)])
        assert len(sample.boxes) == 1
        assert sample.volume.max() > 0.45
        assert projection("rcc") == "cc"
