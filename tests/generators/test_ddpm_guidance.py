"""The guidance scale `auto`: lesions get the contrast of the training lesions, by training data alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.data.schema import read_chosen
from dbtbench.data.writer import DatasetWriter
from dbtbench.diffusion.preconditioning import Denoiser
from dbtbench.diffusion.process import make_schedule
from dbtbench.errors import UsageError
from dbtbench.generators.ddpm import DDPM, DDPMRecipe, guidance
from dbtbench.generators.ddpm.guidance import (
    Choice,
    choose_scale,
    make_layouts,
    measure_contrasts,
    measure_training,
)
from dbtbench.layouts import draw_layouts
from dbtbench.pipeline import generate
from dbtbench.recipe import folder_of, resolve
from dbtbench.runs import Run, open_run
from dbtbench.runtime.files import read_json
from dbtbench.training import denoising
from dbtbench.workspace import Workspace

Fit = Callable[..., DDPM]
STEP = 0.05
"""By how much the network below makes lesions brighter for each unit of the scale, in intensity."""


class Lesions(nn.Module):
    """A network that predicts a flat breast, and in the middle of wanted lesions `contrast` more."""

    def __init__(self, contrast: float) -> None:
        super().__init__()
        self.contrast = nn.Parameter(torch.tensor(contrast))

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        breast = torch.where(torch.arange(x.shape[-1]) < 26, -0.2, -1.0)
        lesion = (mask > 0.25).float() if (mask >= 0).all() else 0.0
        return breast.expand_as(x) + 2 * self.contrast * lesion


def fake_recipe(**changes: Any) -> DDPMRecipe:
    """The recipe `smoke` for such a network: guidance is exact, so contrast grows by the scale."""
    settings = {"guidance_scale": "auto", "guidance_rescale": 0.0, "target": "data", "preconditioned": False}
    return resolve(DDPMRecipe, folder_of(DDPM), "smoke").model_copy(update=settings | changes)


@pytest.fixture
def fit(toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(contrast, run=None, **settings)`: a DDPM whose training is replaced by such a network."""

    def make(contrast: float, run: Run | None = None, data: DBTDataset = toy, **settings: Any) -> DDPM:
        def train(recipe: DDPMRecipe, *_: Any, **__: Any) -> nn.Module:
            alpha_bar = make_schedule(recipe.noise_schedule, recipe.num_timesteps, True)
            return Denoiser(Lesions(contrast), alpha_bar, data.grid, 2, recipe.target).requires_grad_(False)

        monkeypatch.setattr(denoising, "train_denoiser", train)
        generator = DDPM(fake_recipe(**settings))
        generator.fit(data.select("train"), run or Run(tmp_path, {}))
        return generator

    return make


@pytest.fixture(scope="module")
def wanted(toy: DBTDataset) -> float:
    found: float | None = measure_training(toy.select("train"))
    assert found is not None
    return found


def contrast_of(generator: DDPM, toy: DBTDataset) -> float:
    layouts = draw_layouts(toy.select("train"), 12, seed=5, positives=1.0)
    found = [measure_contrasts(sample.volume, [sample.boxes]) for sample in generator.sample(layouts)]
    return float(np.nanmean(found))


def test_drawn_lesions_get_the_contrast_of_the_training_lesions(
    fit: Fit, toy: DBTDataset, wanted: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    generator = fit(STEP)
    scale = generator.recipe.guidance_scale
    assert isinstance(scale, float)
    assert scale == pytest.approx(wanted / contrast_of(fit(STEP, guidance_scale=1.0), toy), rel=0.05)
    assert 2 < scale < 5
    assert contrast_of(generator, toy) == pytest.approx(wanted, rel=0.05)
    kept = Choice.read(read_json(tmp_path / "guidance.json")["choice"])
    assert (kept.scale, kept.wanted) == (scale, wanted)
    low, *_, high = kept.measured
    assert low[0] == 1
    assert high[0] >= scale
    (said,) = [line for line in caplog.messages if "guidance scale" in line and "lesions get" in line]
    assert said.startswith(
        f"ddpm: guidance scale {scale:g}: lesions get the contrast of the training lesions"
    )


@pytest.mark.parametrize(("contrast", "nearest"), [(0.001, 5.0), (0.5, 1.0), (0.0, 5.0)])
def test_a_contrast_that_no_scale_gives_is_said_and_the_nearest_taken(
    fit: Fit, contrast: float, nearest: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    generator = fit(contrast)
    if contrast:
        assert generator.recipe.guidance_scale == nearest
    assert any("the nearest: none from 1 to 5" in line for line in caplog.messages)


def test_without_training_lesions_there_is_no_guidance(
    fit: Fit, toy: DBTDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    normal = replace(toy, boxes=toy.boxes.iloc[:0])
    assert fit(STEP, data=normal).recipe.guidance_scale == 1
    assert "no training lesion has a contrast that can be measured" in caplog.text
    assert read_json(tmp_path / "guidance.json")["choice"]["wanted"] is None


def test_a_test_lesion_has_no_part_in_it(fit: Fit, toy: DBTDataset, tmp_path: Path) -> None:
    train = toy.select("train")
    assert {layout.source for layout in make_layouts(train, 0)} <= set(train.boxes["case"])
    assert len(make_layouts(train, 0)) == guidance.DRAWN
    one, again, other = ([layout.seed for layout in make_layouts(train, seed)] for seed in (0, 0, 1))
    assert one == again != other
    others = toy.take((toy.cases["split"] != "train").to_numpy())
    assert measure_training(train) != measure_training(others)


def test_the_choice_is_kept_with_the_weights_and_found_again(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(tmp_path / "runs", {"a": 1}) as run:
        first = fit(STEP, run).recipe
        run.finish()
    assert "guidance.json" in run.record()["files"]
    before = (run.path / "guidance.json").read_bytes()

    def fail(*_: Any) -> Any:
        raise AssertionError("it is measured again")

    with monkeypatch.context() as patch:
        patch.setattr(guidance, "measure_contrasts", fail)
        assert fit(STEP, run).recipe == first
        with pytest.raises(AssertionError, match="measured again"):
            fit(STEP, run, sample_steps=2)
    other = fit(STEP, run, sample_steps=2).recipe
    assert other.sample_steps == 2
    assert other.guidance_scale == pytest.approx(first.guidance_scale, rel=0.05)
    assert (run.path / "guidance.json").read_bytes() == before


def test_a_killed_choice_is_made_again_with_the_same_bytes(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> Any:
        raise Killed

    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(guidance, "write_json", kill)
        with pytest.raises(Killed):
            fit(STEP, Run(tmp_path / "killed", {}))
    assert not list((tmp_path / "killed").iterdir())
    for name in ("killed", "whole"):
        fit(STEP, Run(tmp_path / name, {}))
    one, other = ((tmp_path / name / "guidance.json").read_bytes() for name in ("killed", "whole"))
    assert one == other


def test_with_a_trained_network_too_the_same_seed_gives_the_same_bytes(
    toy: DBTDataset, tmp_path: Path
) -> None:
    recipe = resolve(DDPMRecipe, folder_of(DDPM), "smoke", {"guidance_scale": "auto", "steps": "2"})
    layouts = draw_layouts(toy.select("train"), 2, seed=0, positives=1.0)
    found = []
    for name in ("one", "two", "two"):  # the last one finds the second's weights and choice
        generator = DDPM(recipe)
        generator.fit(toy.select("train"), Run(tmp_path / name, {}))
        kept = (tmp_path / name / "guidance.json").read_bytes()
        found.append((kept, *(sample.volume.tobytes() for sample in generator.sample(layouts))))
    assert found[0] == found[1] == found[2]


def test_samples_say_the_scale_that_they_were_drawn_with(fit: Fit, toy: DBTDataset, tmp_path: Path) -> None:
    fit(STEP)
    work = Workspace(tmp_path / "work")
    fitted = generate.fit_configured(work, "ddpm", DDPM(fake_recipe()), toy)
    drawn = generate.draw(work, fitted, n=2)
    scale = drawn.meta["source"]["recipe"]["guidance_scale"]
    assert 2 < scale < 5
    assert read_chosen(drawn.meta["source"]) == ["guidance_scale"]
    assert fitted.identity["recipe"] == fake_recipe(guidance_scale=9.0).fit_settings()
    again = generate.fit_configured(work, "ddpm", DDPM(fake_recipe()), toy)
    assert generate.draw(work, again, n=2).fingerprint == drawn.fingerprint


def test_a_generator_that_is_fitted_again_chooses_again(fit: Fit, toy: DBTDataset, tmp_path: Path) -> None:
    generator = fit(STEP)
    scale = generator.recipe.guidance_scale
    (tmp_path / "guidance.json").unlink()
    generator.fit(toy.select("train"), Run(tmp_path, {}))
    assert (tmp_path / "guidance.json").is_file()
    assert generator.recipe.guidance_scale == scale


def test_the_scale_is_interpolated_between_the_measurements_around_it() -> None:
    asked: list[float] = []

    def measure(scale: float) -> float | None:
        asked.append(scale)
        return {1.0: 0.1, 2.0: None, 3.0: 0.5, 5.0: 0.9}[scale]

    assert choose_scale(measure, 0.7).scale == 4
    assert choose_scale(measure, 0.1).scale == 1
    assert choose_scale(measure, 0.1).reached
    assert choose_scale(measure, 0.3).scale == 3, "no value before it to interpolate from"
    assert not choose_scale(measure, 1.0).reached
    assert choose_scale(lambda _: None, 0.3).scale == 1
    asked.clear()
    choose_scale(measure, 0.5)
    assert asked == [1, 2, 3]
    assert choose_scale(measure, None) == Choice(1.0, None)


def test_contrast_that_is_not_defined_is_left_out() -> None:
    volume = np.full((8, 32, 32), 0.4, np.float32)
    volume[:, :, 26:] = 0
    volume[:, 10:16, 8:14] += 0.2
    box = np.array([[2, 9, 7, 5, 17, 15]], np.float32)
    outside = np.array([[2, 9, 28, 5, 17, 32]], np.float32)
    inside, both, none, nothing = measure_contrasts(
        volume, [box, np.vstack([box, outside]), outside, outside[:0]]
    )
    assert both == pytest.approx(inside)
    assert inside > 0.05
    assert np.isnan([none, nothing]).all()


def test_bright_tissue_where_lesions_lie_is_no_contrast_of_theirs(
    write_volumes: Callable[..., DBTDataset],
) -> None:
    plain = measure_training(write_volumes("plain", tissue=0.0))
    bright = measure_training(write_volumes("bright", tissue=0.1))
    assert plain == pytest.approx(0.2, abs=0.005)
    assert bright == pytest.approx(plain, abs=0.005)
    only = write_volumes("only", tissue=0.1)
    alone = measure_training(only.take(only.positive))
    assert alone == pytest.approx(0.3, abs=0.005), "nothing to subtract"


@pytest.fixture
def write_volumes(toy: DBTDataset, tmp_path: Path) -> Callable[..., DBTDataset]:
    """`write_volumes(name, tissue)`: four volumes, two with a lesion of 0.2, all brighter at its place."""

    def write(name: str, tissue: float) -> DBTDataset:
        size = dict(zip(("slices", "rows", "columns"), toy.grid, strict=True))
        with DatasetWriter(tmp_path / name, toy.grid, 4, {}) as writer:
            for index in range(4):
                volume = np.full(toy.grid, 0.3, np.float32)
                volume[:, :, 26:] = 0
                volume += 0.001 * np.random.default_rng(index).standard_normal(toy.grid, np.float32)
                volume[:, 13:19, 9:15] += tissue + (0.2 if index % 2 else 0)
                row = {"Subject": 0, "Slice": 4, "X": 9, "Y": 13, "Width": 6, "Height": 6, "Class": "cancer"}
                row |= dict(zip(GRID_BOX, (3.0, 13.0, 9.0, 5.0, 19.0, 15.0), strict=True))
                row |= {"AD": 0, "VolumeSlices": 8}
                case: dict[str, Any] = {
                    "PatientID": f"P{index}",
                    "StudyUID": f"S{index}",
                    "View": "lcc",
                    "split": "train",
                }
                case |= {"label": "cancer" if index % 2 else "normal", "pixel_mm": 7.0, **size}
                case |= {"flipped": False, "file": ""}
                writer.add(index, volume.clip(0, 1), case, [row] if index % 2 else [])
            return writer.finish({"intensity": {}, "source": {"kind": "toy"}, "split": {}}, "")

    return write


def test_the_recipes_demo_chooses_and_the_papers_have_none() -> None:
    scales = {name: resolve(DDPMRecipe, folder_of(DDPM), name).guidance_scale for name in ("demo", "default")}
    assert scales == {"demo": "auto", "default": 3.0}
    assert not DDPM(resolve(DDPMRecipe, folder_of(DDPM), "paper")).chooses_guidance
    unconditional = resolve(DDPMRecipe, folder_of(DDPM), "paper", {"guidance_scale": "auto"})
    assert not DDPM(unconditional).chooses_guidance
    for wrong in ("more", "-1"):
        with pytest.raises(UsageError, match="setting guidance_scale = "):
            resolve(DDPMRecipe, folder_of(DDPM), "demo", {"guidance_scale": wrong})
