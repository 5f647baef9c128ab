"""VAE: it begins as probabilistic PCA, and continues to the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_memory import GRID, in_memory, smooth_noise

from dbtbench.closed_form.start import LinearStart
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.generators.vae import VAEGenerator, VAERecipe
from dbtbench.generators.vae import model as vae_model
from dbtbench.generators.vae.crossfit import cross_fit
from dbtbench.generators.vae.model import VAE
from dbtbench.generators.vae.scoring import measure_errors
from dbtbench.layouts import draw_layouts
from dbtbench.networks.conditioning import collate, encode_conditioning
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run
from dbtbench.runtime.signals import Terminated
from dbtbench.testing.suites import GeneratorSuite

FOLDER = folder_of(VAEGenerator)
NO_BOXES = np.zeros((0, 6), np.float32)


def smoke(**changes: Any) -> VAERecipe:
    return resolve(VAERecipe, FOLDER, "smoke").model_copy(update=changes)


class TestRules(GeneratorSuite):
    plugin = "vae"


@pytest.fixture(scope="module")
def fitted(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> VAEGenerator:
    generator = VAEGenerator(smoke())
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("vae"), {}))
    return generator


@pytest.mark.parametrize("name", names(FOLDER))
def test_every_recipe_is_valid_and_fits_the_grid_of_the_paper(name: str) -> None:
    VAEGenerator(resolve(VAERecipe, FOLDER, name)).check((8, 64, 64))


def test_a_grid_that_cannot_be_divided_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UsageError, match=r"36 x 64 cannot be divided by 8") as caught:
        VAEGenerator(smoke()).check((8, 36, 64))
    assert "32 x 64" in caught.value.hint


ROOTS = 0.5 + 0.1 * smooth_noise(40) + 0.02 * np.random.default_rng(1).standard_normal((40, *GRID))


@pytest.fixture(scope="module")
def untrained() -> VAE:
    """The model with untrained networks."""
    model = VAE(smoke(code=5, unshuffle=2), GRID, 40)
    model.start.fit(in_memory(ROOTS, views=["lcc"]))
    model.variance.fill_(0.05**2)
    return model.eval()


class TestStart:
    def test_its_evidence_lower_bound_is_the_likelihood_of_probabilistic_pca(self, untrained: VAE) -> None:
        model = untrained
        roots = torch.from_numpy(ROOTS[:4, None].astype(np.float32))
        given = collate([encode_conditioning("normal", "lcc", NO_BOXES, GRID)] * 4)
        mean = model.start.predict_mean(given)
        generator, size = torch.Generator().manual_seed(0), roots[0].numel()
        bounds = []
        for _ in range(32):
            noise = torch.randn(4, 5, generator=generator)
            for signed in (noise, -noise):
                likelihood, divergence = model(
                    roots, mean, given, None, signed, torch.zeros(4, *model.local_mean.shape), 0.0
                )
                bounds.append(-size * (likelihood + divergence).detach())
        factor = (model.start.components.flatten(1).T * model.gain()).double()

        def likelihoods(factor: torch.Tensor) -> torch.Tensor:
            variance = model.variance.double().expand(size)
            normal: Any = torch.distributions.LowRankMultivariateNormal(
                mean.flatten(1).double(), factor, variance
            )
            found: torch.Tensor = normal.log_prob(roots.flatten(1).double())
            return found

        bound = torch.stack(bounds).mean(dim=0).double()
        assert (bound - likelihoods(factor)).abs().max() < 1
        assert (bound - likelihoods(6 * factor)).abs().min() > 3

    def test_its_errors_are_those_of_the_components(self, toy: DBTDataset) -> None:
        train, unseen = toy.select("train"), toy.select("validation")
        model = VAE(smoke(code=5), toy.grid, len(train))
        model.start.fit(train)
        model.variance.fill_(1e-6)
        both = measure_errors(smoke(), model.eval(), unseen)
        np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=1e-3)
        assert both.min() > 1e-4
        bias: Any = model.decoder.out_conv.bias
        torch.nn.init.constant_(bias, 10)
        assert (measure_errors(smoke(), model, unseen)[:, 0] > 1.001 * both[:, 1]).all()


def test_cross_fitted_volumes_have_the_error_of_unseen_ones() -> None:
    seen, unseen = 0.1 * smooth_noise(48), 0.1 * smooth_noise(48, seed=5)
    start = LinearStart(GRID, 24, 48)
    start.fit(in_memory(0.5 + seen, views=["lcc"]))
    residuals = [
        torch.from_numpy((0.5 + one).astype(np.float32))[:, None] - start.mean[0] for one in (seen, unseen)
    ]

    known, new = (float((one - start.decode(start.encode(one))).square().mean()) for one in residuals)
    images = cross_fit(residuals[0], 24, [str(row // 2) for row in range(48)])
    assert known < 0.6 * new
    assert float((residuals[0] - images).square().mean()) == pytest.approx(new, rel=0.1)


def test_settings_of_drawing_change_samples_and_do_not_train_again(
    fitted: VAEGenerator, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = draw_layouts(toy.select("train"), 2, seed=0, positives=0.5)
    drawn = [next(fitted.sample(layouts)).volume.tobytes()]
    for changes in ({"codes": "prior"}, {"texture": False}):
        assert smoke(**changes).fit_settings() == smoke().fit_settings()
        monkeypatch.setattr(fitted, "recipe", smoke(**changes))
        drawn.append(next(fitted.sample(layouts)).volume.tobytes())
    assert len(set(drawn)) == 3
    assert smoke(levels=2).fit_settings() != smoke().fit_settings()


@pytest.mark.parametrize("changed", ["label", "view", "boxes", "seed"])
def test_label_view_boxes_and_seed_each_change_the_sample(fitted: VAEGenerator, changed: str) -> None:
    boxes = np.array([[2, 10, 4, 5, 16, 11]], np.float32)
    asked: dict[str, Any] = {"label": "cancer", "view": "lcc", "boxes": boxes, "seed": 5}
    other = {"label": "normal", "view": "lmlo", "boxes": boxes[:0], "seed": 6}[changed]
    layouts = [Layout(0, source=0, **asked), Layout(0, source=0, **asked | {changed: other})]
    one, two = fitted.sample(layouts)
    assert not np.array_equal(one.volume, two.volume)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_training_that_was_killed_ends_with_the_same_bytes(
    levels: int, toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, recipe = toy.select("train"), smoke(levels=levels, steps=6)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    VAEGenerator(recipe).fit(train, Run(tmp_path / "whole", {}))
    compute = vae_model.Objective.__call__

    def kill(self: Any, net: Any, context: Any) -> Any:
        if context.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, net, context)

    with monkeypatch.context() as patch:
        patch.setattr(vae_model.Objective, "__call__", kill)
        with pytest.raises(Terminated):
            VAEGenerator(recipe).fit(train, Run(tmp_path / "killed", {}))
    continued = VAEGenerator(recipe)
    continued.fit(train, Run(tmp_path / "killed", {}))
    whole, killed = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    sample = next(continued.sample(draw_layouts(train, 1, seed=0, positives=1)))
    assert 0 <= sample.volume.min() < sample.volume.max() <= 1
