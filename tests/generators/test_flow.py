"""Flow: an exact likelihood, an exact inverse, and bytes that do not depend on the batch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, UsageError
from dbtbench.generator import Layout, Sample
from dbtbench.generators.flow import Flow, FlowRecipe
from dbtbench.generators.flow.block import AutoregressiveBlock
from dbtbench.generators.flow.model import Flow as FlowModel
from dbtbench.generators.flow.patches import Patches
from dbtbench.generators.flow.whitening import Whitening
from dbtbench.geometry.views import mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.recipe import folder_of, names, resolve
from dbtbench.runs import Run
from dbtbench.runtime.signals import Terminated
from dbtbench.testing.suites import GeneratorSuite
from dbtbench.training import loop, step
from dbtbench.training.learned import LeftBreasts

FOLDER = folder_of(Flow)
GRID, TINY = (8, 32, 32), (2, 4, 4)


def smoke(**changes: Any) -> FlowRecipe:
    return resolve(FlowRecipe, FOLDER, "smoke").model_copy(update=changes)


def random_flow(grid: tuple[int, int, int] = TINY, seed: int = 0) -> FlowModel:
    """A flow with weights and whitening that are all random, so that nothing is the identity."""
    torch.manual_seed(seed)
    patch, std = ((2, 2, 2), 0.3) if grid == TINY else ((4, 8, 8), 0.04)
    flow = FlowModel(smoke(patch=patch), grid).eval().requires_grad_(False)
    model: Any = flow
    for block in model.blocks:
        nn.init.normal_(block.affine.weight, std=std)
        nn.init.normal_(block.affine.bias, std=std)
    model.whitening.deviation.uniform_(0.5, 2)
    model.whitening.spectrum.uniform_(0.5, 2)
    model.basis.copy_(torch.linalg.qr(torch.randn_like(model.basis)).Q)
    return flow


def given(n: int, grid: tuple[int, int, int] = TINY) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.arange(n) % 4, torch.arange(n) % 2, torch.rand(n, 1, *grid, generator=generator)


def noise(n: int, grid: tuple[int, int, int] = TINY) -> Tensor:
    return torch.randn(n, 1, *grid, generator=torch.Generator().manual_seed(7))


class TestRules(GeneratorSuite):
    plugin = "flow"


class TestMap:
    def test_the_log_determinant_is_that_of_the_jacobian(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, conditioning = random_flow(), given(1)

        def encode(flat: Tensor) -> Tensor:
            latent: Tensor = model.encode(flat.view(1, 1, *TINY), *conditioning)[0].flatten()
            return latent

        x = noise(1)
        jacobian: Any = torch.autograd.functional.jacobian(encode, x.flatten())  # type: ignore[no-untyped-call]
        expected = float(torch.linalg.slogdet(jacobian.double()).logabsdet)
        assert abs(expected) > 1
        assert float(model.encode(x, *conditioning)[1]) == pytest.approx(expected, abs=1e-3)

        forward = AutoregressiveBlock.forward

        def wrong(self: Any, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
            z, log_det = forward(self, x, context)
            return z, -log_det

        monkeypatch.setattr(AutoregressiveBlock, "forward", wrong)
        assert float(model.encode(x, *conditioning)[1]) != pytest.approx(expected, abs=0.1)

    def test_a_token_depends_on_no_later_one(self) -> None:
        model, context = random_flow(), torch.zeros(1, 4, 32)
        block = model.blocks[0]
        x = torch.randn(1, 4, 8)
        changed = x.clone()
        changed[:, 2] += 1
        before, after = block(x, context)[0], block(changed, context)[0]
        assert torch.equal(before[:, :2], after[:, :2])
        assert not torch.allclose(before[:, 3], after[:, 3])

    @pytest.mark.parametrize("seed", [0, 1])
    def test_random_weights_are_inverted(self, seed: int) -> None:
        model, conditioning, x = random_flow(GRID, seed), given(3, GRID), noise(3, GRID)
        latent, _ = model.encode(x, *conditioning)
        assert float((latent - x).abs().mean()) > 0.1
        assert float((model.decode(latent, *conditioning) - x).abs().max()) < 1e-4

    def test_the_density_integrates_to_one(self) -> None:
        """Importance sampling: the mean of p(x) / q(x) over draws of a wider normal q is 1."""
        torch.manual_seed(0)
        model: Any = FlowModel(smoke(patch=(1, 1, 2), width=32), (1, 2, 2)).eval().requires_grad_(False)
        for block in model.blocks:
            nn.init.normal_(block.affine.weight, std=0.03)
        q: Any = torch.distributions.Normal(0.0, 1.7)
        x = q.sample((20_000, 1, 1, 2, 2))
        density = torch.cat(
            [model.log_likelihood(part, *given(len(part), (1, 2, 2))) for part in x.split(5000)]
        )
        weights = (4 * density - q.log_prob(x).flatten(1).sum(1)).exp()
        assert float(weights.mean()) == pytest.approx(1, abs=0.05)

    def test_before_training_it_is_the_whitened_gaussian(self) -> None:
        torch.manual_seed(0)
        model = FlowModel(smoke(), GRID).eval().requires_grad_(False)
        assert torch.equal(model(noise(2, GRID), *given(2, GRID)), torch.zeros(2))
        assert float((model.decode(noise(2, GRID), *given(2, GRID)) - noise(2, GRID)).abs().max()) < 1e-5

    def test_before_training_denoising_is_the_wiener_filter(self) -> None:
        torch.manual_seed(0)
        model = FlowModel(smoke(noise=0.5), GRID).eval().requires_grad_(False)
        model.whitening.spectrum.uniform_(0.5, 2)
        x, spectrum = noise(2, GRID), model.whitening.spectrum
        cosine = model.whitening.cosine
        expected = cosine.inverse(cosine(x) * (1 - 0.25 / spectrum))
        torch.testing.assert_close(model.denoise(x, *given(2, GRID)), expected, atol=1e-5, rtol=0)


class TestCache:
    def test_drawing_with_it_is_the_same_as_without_and_faster(self) -> None:
        torch.manual_seed(0)
        block = AutoregressiveBlock(tokens=64, size=16, width=64, layers=2).eval().requires_grad_(False)
        nn.init.normal_(block.affine.weight, std=0.1)
        z, context = torch.randn(8, 64, 16), torch.randn(8, 64, 64)

        def decode_without() -> Tensor:
            x = torch.zeros_like(z)
            for i in range(z.shape[1]):  # every prefix through all layers again
                hidden = (
                    torch.cat([block.first.expand(8, 1, -1), block.token(x[:, :i])], 1) + context[:, : i + 1]
                )
                for layer in block.layers:
                    hidden = layer(hidden)
                shift, log_scale = block._predict(hidden[:, -1:])
                x[:, i : i + 1] = z[:, i : i + 1] * log_scale.exp() + shift
            return x

        def measure(decode: Any) -> tuple[Tensor, float]:
            seconds = []
            for _ in range(2):
                start = time.process_time()
                x = decode()
                seconds.append(time.process_time() - start)
            return x, min(seconds)

        (slow, without), (fast, cached) = measure(decode_without), measure(lambda: block.inverse(z, context))
        torch.testing.assert_close(fast, slow, atol=1e-4, rtol=0)
        assert without / cached > 2


class TestPatches:
    @pytest.mark.parametrize("backward", [False, True])
    @pytest.mark.parametrize("shifted", [False, True])
    def test_joining_undoes_cutting(self, shifted: bool, backward: bool) -> None:
        patches = Patches(GRID, (4, 8, 16), shifted=shifted, backward=backward)
        volumes = noise(2, GRID)
        tokens = patches.cut(volumes)
        assert tokens.shape == (2, 2 * 4 * 2, 4 * 8 * 16)
        assert torch.equal(patches.join(tokens), volumes)
        first = tokens[0, -1 if backward else 0].view(4, 8, 16)
        z, y, x = (2, 4, 8) if shifted else (0, 0, 0)
        assert torch.equal(first, volumes[0, 0, z : z + 4, y : y + 8, x : x + 16])

    def test_a_seam_of_one_block_is_inside_a_patch_of_another(self) -> None:
        model = FlowModel(smoke(), GRID)
        assert [patches.shift for patches in model.patches] == [(0, 0, 0)] * 2 + [(2, 4, 4)] * 2
        assert [patches.backward for patches in model.patches] == [False, True, False, True]


def test_whitened_residuals_are_white() -> None:
    generator = torch.Generator().manual_seed(0)
    whitening = Whitening(GRID)
    colours = torch.linspace(0.1, 1, GRID[2]) * torch.linspace(1.0, 0.1, GRID[1])[:, None]
    residuals = whitening.cosine.inverse(torch.randn(64, 1, *GRID, generator=generator) * colours)
    whitening.fit(residuals, noise=0.01)
    white = whitening.cosine(whitening(residuals))
    variance = white.square().mean(dim=0)[0]
    assert float(white.square().mean()) == pytest.approx(1, abs=0.02)
    assert float(variance[:, :8, -8:].mean() / variance[:, -8:, :8].mean()) == pytest.approx(1, abs=0.2)
    coloured = whitening.cosine(residuals).square().mean(dim=0)[0]
    assert float(coloured[:, :8, -8:].mean() / coloured[:, -8:, :8].mean()) > 50
    assert float((whitening.inverse(whitening(residuals)) - residuals).abs().max()) < 1e-5


@pytest.fixture(scope="module")
def fitted(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    generator = Flow(smoke())
    generator.fit(toy.select("train"), Run(tmp_path_factory.mktemp("flow"), {}))
    return generator


@pytest.fixture(scope="module")
def layouts(toy: DBTDataset) -> list[Layout]:
    return draw_layouts(toy.select("train"), 7, seed=0, positives=0.5)


def is_same(a: Sample, b: Sample) -> bool:
    return a.volume.tobytes() == b.volume.tobytes()


class TestTrained:
    def test_it_beats_the_whitened_gaussian(self, fitted: Flow, toy: DBTDataset) -> None:
        gain = float(fitted.model.gain)
        assert gain > 0.02
        scores = fitted.score_volumes(toy.select("train"))
        assert scores.shape == (len(toy.select("train")), 2)
        assert -scores[:, 1].mean() == pytest.approx(gain, rel=0.1)

    def test_its_weights_are_inverted(self, fitted: Flow, toy: DBTDataset) -> None:
        left = LeftBreasts(toy.select("test"))
        conditioning = left.conditioning
        x = left.volumes.sqrt() - fitted.model.start.predict_mean(conditioning)
        x = x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        conditions = (conditioning.label, conditioning.projection, conditioning.lesion_mask)
        latent, _ = fitted.model.encode(x, *conditions)
        assert float((fitted.model.decode(latent, *conditions) - x).abs().max()) < 1e-4

    def test_scores_do_not_depend_on_the_other_volumes(self, fitted: Flow, toy: DBTDataset) -> None:
        test = toy.select("test")
        assert np.array_equal(fitted.score_volumes(test)[2:3], fitted.score_volumes(test[2:3]))

    def test_a_blank_volume_is_less_likely_than_a_breast(self, fitted: Flow, toy: DBTDataset) -> None:
        left = LeftBreasts(toy.select("test"))
        conditions = (left.conditioning.label, left.conditioning.projection, left.conditioning.lesion_mask)
        mean = fitted.model.start.predict_mean(left.conditioning)
        breasts = fitted.model.log_likelihood(left.volumes.sqrt() - mean, *conditions)
        blank = fitted.model.log_likelihood(0.9 - mean, *conditions)
        assert bool((breasts > blank).all())

    def test_a_sample_does_not_depend_on_its_batch(self, fitted: Flow, layouts: list[Layout]) -> None:
        together = list(fitted.sample(layouts))
        assert all(0 <= s.volume.min() < s.volume.max() <= 1 for s in together)
        order = [3, 0, 6, 5, 1, 4, 2]
        for position, sample in zip(order, fitted.sample([layouts[i] for i in order]), strict=True):
            assert is_same(sample, together[position])

    def test_a_right_breast_is_the_mirror_image_of_a_left_one(self, fitted: Flow) -> None:
        boxes = np.array([[2, 10, 4, 5, 16, 11]], np.float32)
        left = Layout(0, 5, "cancer", "lcc", boxes, 0)
        right = Layout(0, 5, "cancer", "rcc", mirror_boxes(boxes, GRID[2]), 0)
        a, b = fitted.sample([left, right])
        assert np.array_equal(a.volume, b.volume[..., ::-1])

    @pytest.mark.parametrize("changed", ["label", "view", "boxes"])
    def test_label_view_and_boxes_each_change_the_sample(self, fitted: Flow, changed: str) -> None:
        boxes = np.array([[2, 10, 4, 5, 16, 11]], np.float32)
        asked: dict[str, Any] = {"label": "cancer", "view": "lcc", "boxes": boxes}
        other = {"label": "normal", "view": "lmlo", "boxes": boxes[:0]}[changed]
        a, b = fitted.sample(
            [Layout(0, 5, source=0, **asked), Layout(0, 5, source=0, **asked | {changed: other})]
        )
        assert not np.array_equal(a.volume, b.volume)

    def test_lesions_are_bright_where_boxes_are(self, fitted: Flow) -> None:
        boxes = np.array([[2, 12, 4, 6, 20, 12]], np.float32)
        pairs = [[Layout(i, i, "cancer", "lcc", b, 0) for i in range(4)] for b in (boxes, boxes[:0])]
        inside = [np.mean([s.volume[3:5, 14:18, 6:10] for s in fitted.sample(pair)]) for pair in pairs]
        assert inside[0] - inside[1] > 0.05

    def test_denoising_takes_noise_away(self, fitted: Flow, layouts: list[Layout]) -> None:
        noisy = Flow(smoke(denoise=False))
        noisy.grid, noisy.model = fitted.grid, fitted.model

        def roughness(generator: Flow) -> float:
            drawn = np.stack([sample.volume for sample in generator.sample(layouts)])
            return float(np.abs(np.diff(np.sqrt(drawn), axis=1)).mean())

        assert roughness(fitted) < 0.95 * roughness(noisy)

    def test_a_volume_that_is_not_finite_is_an_error(self, fitted: Flow, layouts: list[Layout]) -> None:
        broken: Any = Flow(smoke(denoise=False))
        broken.grid, broken.model = fitted.grid, random_flow(GRID)
        broken.model.blocks[0].affine.bias.fill_(float("inf"))
        with pytest.raises(DivergedError, match="not finite"):
            list(broken.sample(layouts))


def test_a_training_that_was_killed_ends_with_the_same_bytes(
    fitted: Flow, toy: DBTDataset, layouts: list[Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def die(state: Any) -> Any:
        taken.append(state.step)
        if len(taken) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return step.train_step(state)

    monkeypatch.setattr(loop, "train_step", die)
    run = Run(tmp_path, {})
    with pytest.raises(Terminated):
        Flow(smoke()).fit(toy.select("train"), run)
    again = Flow(smoke())
    again.fit(toy.select("train"), run)
    assert taken == list(range(20))
    assert all(map(is_same, again.sample(layouts), fitted.sample(layouts)))
    assert torch.equal(again.model.gain, fitted.model.gain)


@pytest.mark.parametrize("name", names(FOLDER))
def test_every_recipe_is_valid_and_fits_the_grid_of_the_paper(name: str) -> None:
    Flow(resolve(FlowRecipe, FOLDER, name)).check((8, 64, 64))


def test_a_grid_that_cannot_be_cut_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UsageError, match=r"8 x 36 x 64 cannot be cut into patches of 4 x 8 x 8") as caught:
        Flow(smoke()).check((8, 36, 64))
    assert "8 x 32 x 64" in caught.value.hint
