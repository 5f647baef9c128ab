"""Sampling speed: our U-Net, MONAI's and the video U-Net, and the network calls of each sampler.

It measures CPU seconds of one thread per volume and network call, in DDIM sampling of 2 x (1, 8, 64, 64):
the forward pass and the sampler's own work. A volume costs that times the number of calls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
import torch
from peers import GRID, INSTALL, Network, Settings, build_own, build_video
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from dbtbench.diffusion.names import SamplerName
from dbtbench.diffusion.process import make_schedule, predict_x0
from dbtbench.diffusion.sampling import SAMPLERS

BATCH, NUM_TIMESTEPS = 2, 1000
CALLS: dict[SamplerName, int] = {"ancestral": 1000, "ddim": 50, "dpm++": 20}
FASTER = {"monai": {1: 1.0, 2: 2.5}, "video": {1: 5.0, 2: 12.0}}
"""Least ratio of each peer's seconds to ours, by our pixel-unshuffle."""

ALPHA_BAR = make_schedule("cosine", NUM_TIMESTEPS, zero_terminal=True)


class CountingSampler:
    """Sampler of a network that predicts v; counts the network's calls."""

    def __init__(self, network: Network) -> None:
        self.network, self.calls = network, 0

    def denoise(self, x: Tensor, t: int) -> Tensor:
        self.calls += 1
        timesteps = torch.full((len(x),), t)
        v = self.network.call(x, timesteps / NUM_TIMESTEPS)
        x0: Tensor = predict_x0("v", ALPHA_BAR, x, v, timesteps)
        return x0.clamp(-1, 1)

    @torch.inference_mode()
    def run(self, sampler: SamplerName, steps: int, batch: int = BATCH) -> None:
        x = torch.randn(batch, 1, *GRID)
        SAMPLERS[sampler](self.denoise, x, ALPHA_BAR, steps, lambda: torch.randn_like(x))


def seconds_per_call(network: Network, steps: int) -> float:
    """Measure CPU seconds per volume and network call, after one call to warm up."""
    counting = CountingSampler(network)
    counting.run("ddim", 1)
    start = time.process_time()
    counting.run("ddim", steps)
    return (time.process_time() - start) / (steps * BATCH)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours(one_thread: None) -> dict[int, float]:
    """Our seconds per call, by pixel-unshuffle."""
    return {unshuffle: seconds_per_call(build_own(Settings(unshuffle=unshuffle)), 6) for unshuffle in (1, 2)}


def print_seconds(name: str, seconds: float) -> None:
    per_volume = ", ".join(f"{calls * seconds:.1f} s with {name}-{calls}" for name, calls in CALLS.items())
    sys.stdout.write(f"\n{name}: {seconds:.3f} s per volume and call; a volume takes {per_volume}")


@pytest.mark.slow
@pytest.mark.parametrize("peer", FASTER)
def test_sampling_costs_less_than_with_the_peer(
    peer: str, ours: dict[int, float], benchmark: BenchmarkFixture
) -> None:
    try:
        network = build_video() if peer == "video" else build_own(Settings("monai"))
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}: {INSTALL}")
    theirs = seconds_per_call(network, 2 if peer == "video" else 4)
    print_seconds(peer, theirs)
    for unshuffle, seconds in ours.items():
        print_seconds(f"ours, unshuffle {unshuffle}, {theirs / seconds:.1f} times faster", seconds)
        assert theirs / seconds >= FASTER[peer][unshuffle]
    benchmark.extra_info["times faster"] = {n: theirs / seconds for n, seconds in ours.items()}
    sampler = CountingSampler(build_own(Settings(unshuffle=2)))
    benchmark.pedantic(sampler.run, ("ddim", 1), rounds=1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("sampler", "calls"), CALLS.items())
def test_a_sampler_calls_the_network_once_per_step(sampler: SamplerName, calls: int) -> None:
    counting = CountingSampler(Network(torch.nn.Identity(), lambda x, t: x))
    counting.run(sampler, calls, batch=1)
    assert counting.calls == calls
