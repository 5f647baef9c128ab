"""Drawing volumes: our U-Net beside MONAI's and the video U-Net, and the network calls that samplers need.

CPU seconds of one thread for a volume and a network call, in a DDIM drawing of 2 x (1, 8, 64, 64): the
forward pass, and what the sampler adds. Times the calls, that is what a volume costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
import torch
from peers import GRID, INSTALL, Network, Settings, told, video
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from dbtbench.diffusion.process import schedule, to_data
from dbtbench.diffusion.sampling import SAMPLERS, SamplerName

BATCH, TIMES = 2, 1000
CALLS: dict[SamplerName, int] = {"ancestral": 1000, "ddim": 50, "dpm++": 20}
FASTER = {"monai": {1: 1.0, 2: 2.5}, "video": {1: 5.0, 2: 12.0}}
"""How many times faster ours must be than each peer, by its pixel-unshuffle."""

ABAR = schedule("cosine", TIMES, zero_terminal=True)


class Drawing:
    """Volumes that a network draws, predicting v; counts its calls."""

    def __init__(self, network: Network) -> None:
        self.network, self.calls = network, 0

    def denoise(self, x: Tensor, t: int) -> Tensor:
        self.calls += 1
        times = torch.full((len(x),), t)
        data: Tensor = to_data("v", ABAR, x, self.network.call(x, times / TIMES), times)
        return data.clamp(-1, 1)

    @torch.inference_mode()
    def run(self, sampler: SamplerName, steps: int, batch: int = BATCH) -> None:
        start = torch.randn(batch, 1, *GRID)
        SAMPLERS[sampler](self.denoise, start, ABAR, steps, lambda: torch.randn_like(start))


def seconds_a_call(network: Network, steps: int) -> float:
    """CPU seconds for a volume and a call of the network, after one to warm up."""
    drawing = Drawing(network)
    drawing.run("ddim", 1)
    start = time.process_time()
    drawing.run("ddim", steps)
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
    """Seconds a call, by pixel-unshuffle."""
    return {unshuffle: seconds_a_call(told(Settings(unshuffle=unshuffle)), 6) for unshuffle in (1, 2)}


def written(name: str, seconds: float) -> None:
    a_volume = ", ".join(f"{calls * seconds:.1f} s with {name}-{calls}" for name, calls in CALLS.items())
    sys.stdout.write(f"\n{name}: {seconds:.3f} s a volume and call; a volume takes {a_volume}")


@pytest.mark.slow
@pytest.mark.parametrize("peer", FASTER)
def test_drawing_costs_less_than_with_the_peer(
    peer: str, ours: dict[int, float], benchmark: BenchmarkFixture
) -> None:
    try:
        network = video() if peer == "video" else told(Settings("monai"))
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}: {INSTALL}")
    theirs = seconds_a_call(network, 2 if peer == "video" else 4)
    written(peer, theirs)
    for unshuffle, seconds in ours.items():
        written(f"ours, unshuffle {unshuffle}, {theirs / seconds:.1f} times faster", seconds)
        assert theirs / seconds >= FASTER[peer][unshuffle]
    benchmark.extra_info["times faster"] = {n: theirs / seconds for n, seconds in ours.items()}
    benchmark(Drawing(told(Settings(unshuffle=2))).run, "ddim", 1)


@pytest.mark.parametrize(("sampler", "calls"), CALLS.items())
def test_a_sampler_calls_the_network_as_often_as_it_is_told(sampler: SamplerName, calls: int) -> None:
    drawing = Drawing(Network(torch.nn.Identity(), lambda x, t: x))
    drawing.run(sampler, calls, batch=1)
    assert drawing.calls == calls
