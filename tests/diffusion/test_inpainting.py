"""In-painting: what is known stays, and the sampler draws the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dbtbench.diffusion.inpainting import keep_known
from dbtbench.diffusion.names import SamplerName
from dbtbench.diffusion.process import make_schedule
from dbtbench.diffusion.sampling import SAMPLERS


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
