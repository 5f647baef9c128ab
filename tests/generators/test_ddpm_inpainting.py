"""In-painting: lesions are drawn into hosts, and nothing else of a host is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout, Sample
from dbtbench.generators.ddpm import DDPM, DDPMRecipe, guidance, inpainting
from dbtbench.generators.ddpm.guidance import make_layouts
from dbtbench.generators.ddpm.inpainting import Canvas, Inpainting
from dbtbench.geometry.views import Volume, laterality, mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.lesions.places import plane_distance
from dbtbench.lesions.shape import LesionShape
from dbtbench.metrics.mask import breast_mask
from dbtbench.recipe import folder_of, resolve
from dbtbench.runs import Run
from dbtbench.testing.generators import GeneratorBench, check_purity, check_resume

RECIPE = resolve(DDPMRecipe, folder_of(DDPM), "inpaint-smoke", {"steps": "2"})


@pytest.fixture(scope="module")
def train(toy: DBTDataset) -> DBTDataset:
    return toy.select("train")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("inpaint"), {})


@pytest.fixture(scope="module")
def fitted(train: DBTDataset, run: Run) -> DDPM:
    generator = DDPM(RECIPE)
    generator.fit(train, run)
    return generator


@pytest.fixture(scope="module")
def layouts(train: DBTDataset) -> list[Layout]:
    return draw_layouts(train, 8, seed=0, positives=0.5)


@pytest.fixture(scope="module")
def samples(fitted: DDPM, layouts: list[Layout]) -> list[Sample]:
    return list(fitted.sample(layouts))


def prepare(fitted: DDPM, layout: Layout) -> Canvas:
    assert fitted.inpainting
    return fitted.inpainting.prepare(layout)


def read_host(train: DBTDataset, layout: Layout) -> Volume:
    """The host as the layout shows it."""
    assert layout.host is not None
    volume: Volume = train.volumes([layout.host])[0, 0]
    view = str(train.cases.set_index("case").loc[layout.host, "View"])
    return volume if laterality(view) == laterality(layout.view) else volume[..., ::-1]


def turn(volume: Volume, layout: Layout) -> Volume:
    return volume[..., ::-1] if laterality(layout.view) == "r" else volume


def test_outside_of_the_extent_every_voxel_keeps_the_hosts_bits(
    fitted: DDPM, layouts: list[Layout], samples: list[Sample], train: DBTDataset
) -> None:
    assert {laterality(layout.view) for layout in layouts} == {"l", "r"}
    for layout, sample in zip(layouts, samples, strict=True):
        host, weight = read_host(train, layout), turn(prepare(fitted, layout).weight, layout)
        outside = weight == 0
        assert 0.7 < outside.mean() < 1
        assert sample.volume[outside].tobytes() == host[outside].tobytes()
        assert (sample.volume != host)[weight > 0.5].mean() > 0.9


def test_lesions_lie_inside_the_breast_where_their_boxes_say_so(
    fitted: DDPM, layouts: list[Layout], samples: list[Sample], train: DBTDataset
) -> None:
    found = 0
    for layout, sample in zip(layouts, samples, strict=True):
        host = read_host(train, layout)
        inside = breast_mask(host[None, None])[0, 0, 0]
        assert (sample.volume == host)[:, ~inside].all(), "nothing is drawn in air"
        assert len(sample.boxes) == len(layout.boxes)
        for box, wanted in zip(sample.boxes, layout.boxes, strict=True):
            found += 1
            assert inside[plane_distance(box, inside.shape) <= 0.8].all()
            assert box[3:] - box[:3] == pytest.approx(wanted[3:] - wanted[:3], abs=1e-4)
            assert box[[0, 3]] == pytest.approx(wanted[[0, 3]])
            changed = (sample.volume != host).any(axis=0)
            assert changed[plane_distance(box, inside.shape) < 0.4].all()
    assert found > 2


def test_a_wanted_place_in_air_is_moved_into_the_breast(fitted: DDPM, layouts: list[Layout]) -> None:
    layout = next(one for one in layouts if laterality(one.view) == "l" and len(one.boxes))
    air = layout.boxes.copy()
    air[:, [1, 2, 4, 5]] = 0, 26, 6, 32
    (sample,) = fitted.sample([replace(layout, boxes=air)])
    assert len(sample.boxes) == 1
    assert sample.boxes[0, 2] < 20
    assert sample.boxes[0, 5] - sample.boxes[0, 2] == pytest.approx(6)


def test_without_a_place_the_lesion_is_left_out_and_the_host_is_normal(
    fitted: DDPM, layouts: list[Layout], train: DBTDataset
) -> None:
    layout = next(one for one in layouts if len(one.boxes))
    whole = np.array([[2, 0, 0, 5, *train.grid[1:]]], np.float32)
    (sample,) = fitted.sample([replace(layout, boxes=whole)])
    assert (len(sample.boxes), sample.label) == (0, "normal")
    assert sample.volume.tobytes() == read_host(train, layout).tobytes(), "a hole of zero gives the host"


def test_a_layout_without_lesions_gets_a_hole_too(
    fitted: DDPM, layouts: list[Layout], samples: list[Sample], train: DBTDataset
) -> None:
    empty = [(one, sample) for one, sample in zip(layouts, samples, strict=True) if not len(one.boxes)]
    assert empty
    for layout, sample in empty:
        canvas = prepare(fitted, layout)
        assert not canvas.mask.any(), "the network draws no lesion"
        assert canvas.hole.max() == 1
        assert (sample.volume != read_host(train, layout)).any()
        assert (len(sample.boxes), sample.label) == (0, "normal")


def test_the_mask_is_as_deep_as_the_training_lesions(fitted: DDPM, layouts: list[Layout]) -> None:
    layout = next(one for one in layouts if len(one.boxes))
    assert fitted.inpainting
    deep = replace_shape(fitted.inpainting, np.ones(8)).prepare(layout)
    flat = replace_shape(fitted.inpainting, np.eye(8)[0]).prepare(layout)
    assert deep.mask[0].max(axis=(1, 2)).min() > 0.8
    assert deep.weight.max(axis=(1, 2)).min() == 1
    assert flat.mask[0].max(axis=(1, 2)).min() < 0.1
    assert sorted(flat.weight.max(axis=(1, 2)))[0] == 0


def replace_shape(found: Inpainting, depth: Any) -> Inpainting:
    other = object.__new__(Inpainting)
    vars(other).update(vars(found) | {"shape": LesionShape(depth, found.shape.plane)})
    return other


def test_a_right_breast_is_the_mirror_image_of_a_left_one(
    fitted: DDPM, layouts: list[Layout], train: DBTDataset
) -> None:
    layout = next(one for one in layouts if len(one.boxes))
    side = "l" if laterality(layout.view) == "r" else "r"
    boxes = mirror_boxes(layout.boxes, train.grid[2])
    one, other = fitted.sample([layout, replace(layout, view=side + layout.view[1:], boxes=boxes)])
    assert np.array_equal(one.volume, other.volume[..., ::-1])
    assert one.boxes == pytest.approx(mirror_boxes(other.boxes, train.grid[2]), abs=1e-4)


def test_samples_are_derived_and_come_from_the_same_training(train: DBTDataset, fitted: DDPM) -> None:
    drawn = DDPM(resolve(DDPMRecipe, folder_of(DDPM), "smoke", {"steps": "2"}))
    assert (drawn.derived, fitted.derived) == (False, True)
    assert drawn.recipe.fit_settings() == fitted.recipe.fit_settings()
    same = [resolve(DDPMRecipe, folder_of(DDPM), name).fit_settings() for name in ("default", "inpaint")]
    assert same[0] == same[1]


def test_it_keeps_the_rules_of_purity_and_resume(tmp_path: Path) -> None:
    bench = GeneratorBench("ddpm", tmp_path, "inpaint-smoke", {"steps": "2"})
    check_purity(bench)
    check_resume(bench)


def test_guidance_is_chosen_by_what_lesions_add_to_their_hosts(
    train: DBTDataset, run: Run, fitted: DDPM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same weights, lesions that are 0.1 brighter for each unit of the scale."""
    assert all(layout.host is not None for layout in make_layouts(train, 0))
    assert fitted.inpainting
    draw = DDPM.sample

    def sample(generator: DDPM, layouts: list[Layout]) -> Iterator[Sample]:
        assert generator.inpainting
        for layout in layouts:
            canvas = generator.inpainting.prepare(layout)
            lesion = 0.1 * float(generator.recipe.guidance_scale) * canvas.weight
            volume = (canvas.background + lesion).clip(0, 1)
            yield Sample(np.ascontiguousarray(turn(volume, layout)), canvas.boxes, canvas.label)

    monkeypatch.setattr(DDPM, "sample", sample)
    monkeypatch.setattr(guidance, "DRAWN", 6)
    chosen = DDPM(RECIPE.model_copy(update={"guidance_scale": "auto"}))
    chosen.fit(train, run)
    layouts = make_layouts(train, 3)
    wanted = guidance.measure_training(train)
    assert wanted is not None
    added = [
        guidance.measure_contrasts(turn(one.volume, layout), [mirror(one, layout, train)])[0]
        - guidance.measure_contrasts(read_left_host(train, layout), [mirror(one, layout, train)])[0]
        for layout, one in zip(layouts, chosen.sample(layouts), strict=True)
    ]
    assert np.nanmean(added) == pytest.approx(wanted, rel=0.15)
    assert draw is not DDPM.sample


def mirror(sample: Sample, layout: Layout, train: DBTDataset) -> Any:
    right = laterality(layout.view) == "r"
    return mirror_boxes(sample.boxes, train.grid[2]) if right else sample.boxes


def read_left_host(train: DBTDataset, layout: Layout) -> Volume:
    return turn(read_host(train, layout), layout)


def test_a_layout_without_a_host_is_an_error_that_says_what_to_import(
    fitted: DDPM, layouts: list[Layout], train: DBTDataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="ddpm needs one of another patient") as caught:
        list(fitted.sample([replace(layouts[0], host=None)]))
    assert "import the data with their normal cases" in caught.value.hint
    with pytest.raises(UsageError, match="too few lesion-free training volumes"):
        inpainting.Inpainting(train.take(train.positive))


def test_lesions_without_contrast_are_an_error(train: DBTDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LesionShape, "fit", lambda *_: None)
    with pytest.raises(UsageError, match="no training lesions that are brighter"):
        Inpainting(train)


def test_a_model_without_conditioning_cannot_draw_into_hosts() -> None:
    with pytest.raises(UsageError, match="setting background = 'real': a model without conditioning"):
        resolve(DDPMRecipe, folder_of(DDPM), "smoke", {"conditional": "false", "background": "real"})
