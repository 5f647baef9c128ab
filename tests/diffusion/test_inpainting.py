"""In-painting: what is known stays, and the sampler draws the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dbtbench.diffusion.inpainting import keep_known
from dbtbench.diffusion.names import SamplerName
from dbtbench.diffusion.process import add_noise, make_schedule
from dbtbench.diffusion.sampling import SAMPLERS, sample_from


def estimate_seven(x: Tensor, t: int) -> Tensor:
    """A model that always sees 7."""
    return torch.full_like(x, 7.0)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_ends_with_the_known_data_outside_and_the_model_inside(sampler: SamplerName) -> None:
    known = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros_like(known)
    hole[..., 1:3, 1:3], hole[..., 0, 0] = 1.0, 0.25
    noise = torch.Generator().manual_seed(1)
    drawn = SAMPLERS[sampler](
        keep_known(estimate_seven, known, hole),
        torch.randn(known.shape, generator=noise),
        make_schedule("cosine", 50, True),
        10,
        lambda: torch.randn(known.shape, generator=noise),
    )
    torch.testing.assert_close(drawn, hole * 7 + (1 - hole) * known, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_data_are_noised_to_a_timestep_of_the_sampler_and_denoised_from_there(
    sampler: SamplerName, share: float
) -> None:
    alpha_bar, x0 = make_schedule("cosine", 1000, True), torch.full((2, 1, 2, 4, 4), 3.0)
    noise, seen = torch.Generator().manual_seed(1), []

    def denoise(x: Tensor, t: int) -> Tensor:
        seen.append((t, x.clone()))
        return torch.full_like(x, 7.0)

    def draw() -> Tensor:
        return torch.randn(x0.shape, generator=noise)

    drawn = sample_from(sampler, denoise, x0, alpha_bar, 20, draw, share)
    torch.testing.assert_close(drawn, torch.full_like(x0, 7.0), atol=1e-4, rtol=0)
    visited = sorted({t for t, _ in seen}, reverse=True)
    everywhere: list[int] = []

    def record(x: Tensor, t: int) -> Tensor:
        everywhere.append(t)
        return x

    SAMPLERS[sampler](record, x0, alpha_bar, 20, draw)
    steps = 10 if sampler == "heun" else 20
    taken = max(1, round(share * steps))
    whole = sorted({*everywhere}, reverse=True)
    assert taken - len(visited) in range(3), "some timesteps may be the same"
    assert visited == pytest.approx(whole[-len(visited) :], abs=1), "a timestep is rounded to the nearest"
    assert (visited[0] == 1000) == (share == 1)
    first = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    start = torch.full((2,), visited[0])
    scale = (alpha_bar[-1].sqrt() + (1 - alpha_bar[-1]).sqrt()) if sampler == "heun" and share == 1 else 1.0
    torch.testing.assert_close(seen[0][1] * scale, add_noise(alpha_bar, x0, first, start))
