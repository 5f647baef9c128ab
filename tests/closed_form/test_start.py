"""The closed-form model as a torch module agrees with the arrays that it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from in_memory import GRID, NO_BOXES, InMemory, in_memory, smooth_noise, with_lesions
from safetensors.torch import load_file, save_file
from scipy.fft import idctn

from dbtbench.closed_form.fitting import fit_closed_form
from dbtbench.closed_form.model import ClosedForm
from dbtbench.closed_form.start import LinearStart
from dbtbench.geometry.views import mirror_boxes
from dbtbench.networks.conditioning import Conditioning, collate, encode_conditioning, null_conditioning

BOX = np.array([[2, 9, 7, 4, 15, 12]], np.float32)


@pytest.fixture(scope="module")
def data() -> InMemory:
    lesions, _ = with_lesions(0.2, n=24)
    return in_memory(np.sqrt(lesions.stored), views=("lcc", "lcc", "lmlo", "lmlo"), boxes=lesions.wanted)


@pytest.fixture(scope="module")
def model(data: InMemory) -> ClosedForm:
    return fit_closed_form(data, 6)


@pytest.fixture(scope="module")
def start(data: InMemory) -> LinearStart:
    start = LinearStart(GRID, 6, len(data.stored))
    start.fit(data)
    return start


def conditions(*views: str) -> Conditioning:
    """The conditioning of one volume for each view; the second one has a lesion."""
    boxes = [BOX if row == 1 else NO_BOXES for row in range(len(views))]
    return collate(
        [encode_conditioning("cancer", view, own, GRID) for view, own in zip(views, boxes, strict=True)]
    )


def test_the_mean_has_the_bump_of_each_box_at_its_place_in_a_left_breast(
    start: LinearStart, model: ClosedForm
) -> None:
    left, right, mlo = start.predict_mean(conditions("lcc", "rcc", "lmlo")).numpy()[:, 0]
    mirrored = model.lesion.draw(mirror_boxes(BOX, GRID[2]), GRID)
    assert mirrored.max() > 0.1
    np.testing.assert_array_equal(left, model.mean[0])
    np.testing.assert_array_equal(right, model.mean[0] + mirrored)
    np.testing.assert_array_equal(mlo, model.mean[1])


def test_without_conditioning_it_is_the_mean_of_both_projections(
    start: LinearStart, model: ClosedForm
) -> None:
    predicted = start.predict_mean(null_conditioning(conditions("lcc", "rcc"))).numpy()
    np.testing.assert_allclose(predicted[1, 0], model.mean.mean(axis=0), atol=1e-6)


def test_encoding_undoes_decoding_and_gives_the_nearest_point_of_the_components(
    start: LinearStart, model: ClosedForm
) -> None:
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    decoded = start.decode(weights)
    expected = np.tensordot(weights.numpy(), model.components, axes=1)
    np.testing.assert_allclose(decoded[:, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(start.encode(decoded).numpy(), weights.numpy(), atol=1e-4)
    anywhere = decoded + torch.randn(5, 1, *GRID, generator=torch.Generator().manual_seed(0))
    rest = anywhere - start.decode(start.encode(anywhere))
    assert start.encode(rest).abs().max() < 1e-2, "what is left has no part along the components"
    assert start.encode(anywhere - 0.5 * decoded).abs().max() > 0.1


def test_training_volumes_have_weights_of_variance_1(start: LinearStart, data: InMemory) -> None:
    views = [str(view) for view in data.cases["View"]]
    given = collate(
        [encode_conditioning("normal", view, data.wanted[row], GRID) for row, view in enumerate(views)]
    )
    weights = start.encode(torch.from_numpy(np.sqrt(data.stored))[:, None] - start.predict_mean(given))
    np.testing.assert_allclose(weights.square().mean(dim=0), 1, rtol=0.02)


def test_its_texture_is_that_of_the_arrays(start: LinearStart, model: ClosedForm) -> None:
    roots = np.broadcast_to(np.linspace(-0.1, 1.1, GRID[2], dtype=np.float32), GRID).copy()
    noise = np.random.default_rng(0).standard_normal(GRID, dtype=np.float32)
    drawn = start.add_texture(torch.from_numpy(roots)[None, None], torch.from_numpy(noise)[None, None])
    np.testing.assert_allclose(drawn[0, 0].numpy(), model.add_texture(roots, noise), atol=1e-5)
    assert np.abs(drawn[0, 0].numpy() - roots).max() > 0.01
    assert idctn(np.sqrt(model.spectrum) * noise, norm="ortho").std() == pytest.approx(1, rel=0.1)


def test_what_is_kept_with_the_weights_is_everything(
    start: LinearStart, data: InMemory, tmp_path: Path
) -> None:
    save_file(start.state_dict(), tmp_path / "weights.safetensors")
    other = LinearStart(GRID, 6, len(data.stored))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    given, noise = conditions("lcc", "lmlo"), torch.ones(2, 1, *GRID)
    for one in (start, other):
        assert one.predict_mean(given).any()
    assert torch.equal(start.predict_mean(given), other.predict_mean(given))
    assert torch.equal(
        start.add_texture(start.decode(torch.ones(2, 6)), noise),
        other.add_texture(other.decode(torch.ones(2, 6)), noise),
    )


def test_components_are_at_most_half_the_volumes() -> None:
    assert len(LinearStart(GRID, 64, 9).components) == 4
    assert len(LinearStart(GRID, 0, 9).decode(torch.zeros(2, 0))) == 2


def test_the_texture_that_a_network_leaves_is_measured() -> None:
    known = 0.5 + 0.05 * smooth_noise(60)
    white = np.random.default_rng(1).standard_normal(known.shape)
    data = in_memory(known + 0.03 * white, views=["lcc"])
    start = LinearStart(GRID, 0, 60)
    start.fit(data)
    middle, coarse = slice(28, 36), np.s_[:2, :6, :5]
    assert start.noise[middle].mean() == pytest.approx(np.hypot(0.05, 0.03), rel=0.1)
    assert start.spectrum[coarse].mean() > 3
    start.measure_texture(data, lambda rows: torch.from_numpy(known)[rows, None])
    assert start.noise[middle].mean() == pytest.approx(0.03, rel=0.1)
    assert start.spectrum[coarse].mean() == pytest.approx(1, rel=0.1)
