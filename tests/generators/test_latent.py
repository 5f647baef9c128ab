"""Tests of latent diffusion: its linear start, its gate, its stages, and every rule of generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.generators.latent import Latent, LatentRecipe
from dbtbench.generators.latent.autoencoder import Autoencoder, BlockComponents, join_blocks, split_blocks
from dbtbench.generators.latent.latents import LatentPreconditioner, LatentScaling
from dbtbench.generators.latent.quality import check_quality, measure_quality
from dbtbench.geometry.views import PROJECTIONS
from dbtbench.layouts import draw_layouts
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run
from dbtbench.testing.suites import GeneratorSuite
from dbtbench.training import denoising
from dbtbench.training.denoising import make_denoiser
from dbtbench.training.learned import LeftBreasts
from dbtbench.training.loop import StepContext

FOLDER = folder_of(Latent)


def smoke(**changes: Any) -> LatentRecipe:
    return resolve(LatentRecipe, FOLDER, "smoke").model_copy(update=changes)


def fit(toy: DBTDataset, folder: Path, **changes: Any) -> Latent:
    generator = Latent(smoke(**changes))
    generator.fit(toy.select("train"), Run(folder, {}))
    return generator


def sample_bytes(generator: Latent, toy: DBTDataset) -> list[bytes]:
    layouts = draw_layouts(toy.select("train"), 3, seed=0, positives=0.5)
    return [sample.volume.tobytes() for sample in generator.sample(layouts)]


@pytest.fixture
def volumes(toy: DBTDataset) -> Tensor:
    return LeftBreasts(toy.select("train")).volumes


class TestLatent(GeneratorSuite):
    plugin = "latent"


@pytest.mark.parametrize("name", names(FOLDER))
def test_every_recipe_fits_a_large_grid(name: str) -> None:
    Latent(resolve(LatentRecipe, FOLDER, name)).check((32, 256, 256))


def test_a_grid_that_cannot_be_divided_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="30 x 256 x 256 cannot be divided by 4") as caught:
        Latent(smoke()).check((30, 256, 256))
    assert "32 x 256 x 256" in caught.value.hint
    with pytest.raises(UsageError, match="6 x 64 cannot be divided by 4"):
        Latent(smoke(channel_mults=(1, 2, 4))).check((32, 24, 256))


def test_blocks_are_split_and_joined() -> None:
    values = torch.arange(2 * 8 * 4 * 12.0).view(2, 1, 8, 4, 12)
    blocks = split_blocks(values)
    assert torch.equal(blocks[1, :, 1, 0, 2], values[1, 0, 4:8, 0:4, 8:12].flatten())
    assert torch.equal(join_blocks(blocks), values)


def test_an_untrained_autoencoder_is_the_best_linear_one(volumes: Tensor) -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder(8, 1, channels=3)
    autoencoder.fit_statistics(volumes)
    values = autoencoder.intensities(volumes)
    blocks = split_blocks(values).movedim(1, -1).flatten(0, -2).numpy()
    pca = PCA(3, svd_solver="full").fit(blocks)
    best = ((blocks - pca.inverse_transform(pca.transform(blocks))) ** 2).mean()
    with torch.no_grad():
        drawn, mean, std = autoencoder(values, torch.zeros(len(values), 3, 2, 8, 8))
    assert float((drawn - values).square().mean()) == pytest.approx(best, rel=1e-3)
    assert mean.std((0, 2, 3, 4)).tolist() == pytest.approx([1, 1, 1], rel=1e-2)
    assert std.unique().tolist() == pytest.approx([np.exp(-3)])


def test_blocks_that_are_all_alike_have_codes_of_zero() -> None:
    components = BlockComponents(2)
    components.fit_statistics(torch.full((1, 1, 4, 8, 8), 0.3))
    codes = components.encode(torch.full((1, 1, 4, 8, 8), 0.3))
    assert torch.equal(codes, torch.zeros(1, 2, 1, 2, 2))
    assert components.decode(codes).numpy() == pytest.approx(0.3)


@pytest.mark.parametrize(("kept", "verdict"), [(1.0, None), (0.9, "90 %"), (1.2, "120 %")])
def test_lesions_that_fade_are_measured_and_refused(
    toy: DBTDataset, kept: float, verdict: str | None
) -> None:
    """The linear autoencoder of all 64 components keeps everything; here its intensities are then scaled."""
    data = LeftBreasts(toy.select("train"))
    autoencoder = Autoencoder(8, 1, channels=64)
    autoencoder.fit_statistics(data.volumes)
    intensities: Any = autoencoder.intensities
    inverse = intensities.inverse
    intensities.inverse = lambda values: kept * inverse(values)
    with torch.no_grad():
        measure_quality(autoencoder, data)
    assert float(autoencoder.lesion_contrast) == pytest.approx(kept, abs=0.02)
    assert float(autoencoder.roughness) == pytest.approx(kept, abs=0.02)
    if verdict is None:
        check_quality(autoencoder, 0.05, 0.1)
        return
    with pytest.raises(DBTBenchError, match=f"keeps {verdict} of the contrast of lesions"):
        check_quality(autoencoder, 0.05, 10.0)
    with pytest.raises(DBTBenchError, match=f"keeps {verdict} of the roughness"):
        check_quality(autoencoder, 10.0, 0.05)


def test_without_lesions_only_roughness_decides() -> None:
    autoencoder = Autoencoder(8, 1, channels=2)
    check_quality(autoencoder, 0.05, 0.1)
    autoencoder.roughness.fill_(0.5)
    with pytest.raises(DBTBenchError, match="keeps 50 % of the roughness"):
        check_quality(autoencoder, 0.05, 0.1)


def test_a_refused_autoencoder_is_not_trained_again(toy: DBTDataset, tmp_path: Path) -> None:
    with pytest.raises(DBTBenchError, match="the autoencoder keeps"):
        fit(toy, tmp_path, contrast_tolerance=0.05, roughness_tolerance=0.01)
    kept = tmp_path / "autoencoder" / "weights.safetensors"
    written = kept.stat().st_mtime_ns
    with pytest.raises(DBTBenchError, match="the autoencoder keeps"):
        fit(toy, tmp_path, contrast_tolerance=0.05, roughness_tolerance=0.01)
    assert kept.stat().st_mtime_ns == written
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_kill_in_the_second_stage_changes_no_byte(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample_bytes(fit(toy, tmp_path / "whole"), toy)
    call = denoising.Objective.__call__

    def stop(self: denoising.Objective, net: nn.Module, context: StepContext) -> Tensor:
        if context.step == 7:
            raise KeyboardInterrupt
        return call(self, net, context)

    with monkeypatch.context() as patch:
        patch.setattr(denoising.Objective, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(toy, tmp_path / "killed")
    assert sample_bytes(fit(toy, tmp_path / "killed"), toy) == whole
    assert sample_bytes(fit(toy, tmp_path / "whole"), toy) == whole  # loaded, not trained


def test_codes_are_scaled_by_channel_and_back() -> None:
    codes = torch.randn(5, 2, 2, 4, 4) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1) + 3
    scaling = LatentScaling(2)
    scaling.fit_statistics(codes)
    values = scaling(codes)
    assert values.mean((0, 2, 3, 4)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert values.std((0, 2, 3, 4)).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert scaling.inverse(values).numpy() == pytest.approx(codes.numpy(), abs=1e-4)
    assert scaling.limits() == pytest.approx((-float(values.abs().max()), float(values.abs().max())))


def test_the_denoiser_of_codes_starts_as_the_best_linear_one() -> None:
    """At t = T, where nothing of the signal is left, it gives the mean codes of each projection."""
    model = make_denoiser(smoke(), (2, 8, 8), 3, LatentPreconditioner)
    codes, projections = torch.randn(8, 3, 2, 8, 8), torch.tensor([0, 1] * 4)
    model.fit_statistics(codes, projections)
    t = torch.ones(1)
    with torch.no_grad():
        v = model(
            torch.randn(1, 3, 2, 8, 8),
            t,
            torch.zeros(1).long(),
            torch.tensor([1]),
            torch.zeros(1, 1, 2, 8, 8),
        )
    assert (-v[0]).numpy() == pytest.approx(model.intensities(codes[1::2]).mean(0).numpy(), abs=1e-4)
    assert len(model.mean) == len(PROJECTIONS) + 1


def test_on_a_small_grid_it_says_that_it_is_the_wrong_tool(
    toy: DBTDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(toy, tmp_path)
    assert "8 x 32 x 32 voxels become 2 x 8 x 8 codes" in caplog.text
