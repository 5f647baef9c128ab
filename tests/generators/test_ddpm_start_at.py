"""In-painting from pasted lesions: training lesions are varied, and no longer invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.generators.ddpm import DDPM, DDPMRecipe, guidance
from dbtbench.generators.ddpm.guidance import FILE
from dbtbench.generators.paste import Paste, PasteRecipe
from dbtbench.geometry.views import Volume, laterality
from dbtbench.layouts import draw_layouts
from dbtbench.lesions.insertion import GAIN, SCALE
from dbtbench.lesions.library import MARGIN
from dbtbench.recipe import folder_of, resolve
from dbtbench.runs import Run
from dbtbench.runtime.files import read_json
from dbtbench.testing.generators import GeneratorBench, check_purity

SETTINGS = {"steps": "2", "sample_steps": "8", "guidance_scale": "1"}


@pytest.fixture(scope="module")
def train(toy: DBTDataset) -> DBTDataset:
    return toy.select("train")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("start"), {})


def fit(train: DBTDataset, run: Run, start_at: float) -> DDPM:
    settings = {**SETTINGS, "start_at": str(start_at)}
    generator = DDPM(resolve(DDPMRecipe, folder_of(DDPM), "inpaint-smoke", settings))
    generator.fit(train, run)
    return generator


@pytest.fixture(scope="module")
def fitted(train: DBTDataset, run: Run) -> DDPM:
    return fit(train, run, 0.5)


@pytest.fixture(scope="module")
def layouts(train: DBTDataset) -> list[Layout]:
    return draw_layouts(train, 8, seed=0, positives=0.6)


def turn(volume: Volume, layout: Layout) -> Volume:
    return volume[..., ::-1] if laterality(layout.view) == "r" else volume


def test_it_starts_from_what_paste_gives_for_the_same_layout(
    fitted: DDPM, train: DBTDataset, layouts: list[Layout], run: Run
) -> None:
    paste = Paste(PasteRecipe())
    paste.fit(train, run)
    assert (PasteRecipe().gain, PasteRecipe().scale, PasteRecipe().margin) == (GAIN, SCALE, MARGIN)
    changed = 0
    for layout, pasted in zip(layouts, paste.sample(layouts), strict=True):
        assert fitted.inpainting
        canvas = fitted.inpainting.prepare(layout)
        np.testing.assert_array_equal(turn(canvas.start, layout), pasted.volume)
        np.testing.assert_array_equal(canvas.boxes, pasted.boxes)
        assert canvas.label == (pasted.label or layout.label)
        changed += (canvas.start != canvas.background).any()
    assert changed == sum(len(layout.boxes) > 0 for layout in layouts) > 2


def test_the_fewer_steps_the_nearer_a_sample_is_to_the_pasted_lesion(
    fitted: DDPM, train: DBTDataset, run: Run, layouts: list[Layout]
) -> None:
    distances = []
    for start_at in (0.1, 0.3, 0.6, 1.0):
        generator = fit(train, run, start_at)
        inpainting = fitted.inpainting
        assert inpainting
        rows = []
        for layout, sample in zip(layouts, generator.sample(layouts), strict=True):
            if not len(layout.boxes):
                continue
            canvas = inpainting.prepare(layout)
            inside = canvas.weight == 1
            rows.append(np.abs(turn(sample.volume, layout) - canvas.start)[inside].mean())
        distances.append(float(np.mean(rows)))
    assert distances == sorted(distances)
    assert distances[0] < 0.3 * distances[-1]


def test_outside_of_the_extent_hosts_keep_their_bits(fitted: DDPM, layouts: list[Layout]) -> None:
    for layout, sample in zip(layouts, fitted.sample(layouts), strict=True):
        assert fitted.inpainting
        canvas = fitted.inpainting.prepare(layout)
        kept = canvas.weight == 0
        assert turn(sample.volume, layout)[kept].tobytes() == canvas.background[kept].tobytes()
        assert (turn(sample.volume, layout) != canvas.background)[canvas.weight > 0.5].mean() > 0.9
        np.testing.assert_array_equal(sample.boxes, canvas.boxes)


def test_without_a_place_the_lesion_is_left_out(
    fitted: DDPM, layouts: list[Layout], train: DBTDataset
) -> None:
    layout = next(one for one in layouts if len(one.boxes))
    assert fitted.inpainting
    assert fitted.inpainting.library
    lesions = fitted.inpainting.library.lesions
    fitted.inpainting.library.lesions = []
    try:
        (sample,) = fitted.sample([layout])
    finally:
        fitted.inpainting.library.lesions = lesions
    assert (len(sample.boxes), sample.label) == (0, "normal")


def test_samples_are_derived_keep_the_training_and_are_pure(fitted: DDPM, tmp_path: Path) -> None:
    assert fitted.derived
    plain = resolve(DDPMRecipe, folder_of(DDPM), "inpaint-smoke", SETTINGS)
    assert plain.fit_settings() == fitted.recipe.fit_settings()
    check_purity(GeneratorBench("ddpm", tmp_path, "inpaint-smoke", {"steps": "2", "start_at": "0.5"}))


def test_a_choice_of_guidance_made_before_is_found_again(
    train: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where it is not 1 is the setting a part of what a scale was chosen for."""
    monkeypatch.setattr(guidance, "DRAWN", 4)
    for start_at, there in (("1", False), ("0.5", True)):
        settings = {**SETTINGS, "guidance_scale": "auto", "start_at": start_at, "sample_steps": "2"}
        generator = DDPM(resolve(DDPMRecipe, folder_of(DDPM), "inpaint-smoke", settings))
        generator.fit(train, Run(tmp_path / start_at, {}))
        assert ("start_at" in read_json(tmp_path / start_at / FILE)["settings"]) is there


@pytest.mark.parametrize("name", ["smoke", "demo"])
def test_volumes_that_are_drawn_whole_have_nothing_to_start_from(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"setting start_at = 0\.5: lesions are pasted into real volumes only"
    ):
        resolve(DDPMRecipe, folder_of(DDPM), name, {"start_at": "0.5"})
    for wrong in ("0", "1.5"):
        with pytest.raises(UsageError, match="setting start_at"):
            resolve(DDPMRecipe, folder_of(DDPM), "inpaint", {"start_at": wrong})
