"""Features of ImageNet: of the packages' own weights, each volume's own, and never left out in silence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dbtbench.errors import MissingError
from dbtbench.geometry.views import Volume
from dbtbench.metrics import plane_features
from dbtbench.metrics.two_sample import kid, standardise


def draw(seed: int, n: int = 10, sigma: float = 1.0) -> Volume:
    noise = np.random.default_rng(seed).normal(size=(n, 2, 32, 32))
    smooth = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma))
    return np.asarray(0.4 + 0.1 * smooth / smooth.std(), np.float32)


def test_features_are_a_volumes_own_and_see_another_texture() -> None:
    real, same, finer = (
        plane_features.plane_features(draw(s, sigma=w)) for s, w in ((0, 1), (1, 1), (2, 0.6))
    )
    assert real.shape == (10, 1280)
    alone = plane_features.plane_features(draw(0)[3:4])
    assert alone[0] == pytest.approx(real[3], abs=1e-4)
    assert kid(*standardise(finer, real)) > 10 * abs(kid(*standardise(same, real)))


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_features, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="not installed") as caught:
        plane_features.plane_features(draw(0))
    assert caught.value.hint == "pip install 'dbtbench[features]'"
