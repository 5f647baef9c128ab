"""Speed of our U-Net, of MONAI's, and of the video U-Net whose design the paper's follows.

It measures CPU seconds of one thread for a batch of 2 x (1, 8, 64, 64): a training step (forward, backward,
Adam), and a forward pass as in sampling. All have levels of 1, 2, 4 and 8 times 32 channels.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from peers import GRID, INSTALL, Network, Settings, build_own, build_video
from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.slow

BATCH = 2
FASTER = {"monai": {1: 1.0, 2: 2.5}, "video": {1: 5.0, 2: 12.0}}
"""Least ratio of each peer's seconds to ours, by our pixel-unshuffle."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a step and a forward pass."""

    parameters: int
    step: float
    forward: float

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters, step {self.step:.2f} s, forward {self.forward:.2f} s"
        )


class Training:
    """A network with its input, target and optimiser."""

    def __init__(self, network: Network) -> None:
        self.network, self.call = network, network.call
        self.x, self.t = torch.randn(BATCH, 1, *GRID), torch.linspace(0.3, 0.7, BATCH)
        self.optimiser = torch.optim.Adam(network.net.parameters(), lr=1e-4)

    def step(self) -> None:
        self.optimiser.zero_grad()
        loss = (self.call(self.x, self.t) - self.x).square().mean()
        torch.autograd.backward(loss)
        self.optimiser.step()

    @torch.inference_mode()
    def forward(self) -> None:
        self.call(self.x, self.t)

    def cost(self, repeats: int) -> Cost:
        """Measure the median of a few repeats."""
        step, forward = (
            statistics.median(cpu_seconds(run) for _ in range(repeats)) for run in (self.step, self.forward)
        )
        return Cost(self.network.parameters, step, forward)


def cpu_seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def peer_network(peer: str) -> Network:
    if peer == "monai":
        return build_own(Settings("monai"))
    try:
        return build_video()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}: {INSTALL}")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours(one_thread: None) -> dict[int, Cost]:
    """Our costs, by pixel-unshuffle."""
    return {unshuffle: Training(build_own(Settings(unshuffle=unshuffle))).cost(3) for unshuffle in (1, 2)}


@pytest.mark.parametrize("peer", FASTER)
def test_a_step_and_a_forward_pass_cost_less_than_those_of_the_peer(
    peer: str, ours: dict[int, Cost], benchmark: BenchmarkFixture
) -> None:
    # A step of the video U-Net takes so long that it is measured once, without warm-up.
    theirs = Training(peer_network(peer)).cost(1 if peer == "video" else 3)
    sys.stdout.write(f"\n{peer}: {theirs}\n")
    for unshuffle, cost in ours.items():
        ratios = {"step": theirs.step / cost.step, "forward": theirs.forward / cost.forward}
        faster = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items())
        sys.stdout.write(f"  ours, unshuffle {unshuffle}: {cost}; times faster: {faster}\n")
        benchmark.extra_info[f"times faster at unshuffle {unshuffle}"] = ratios
        assert min(ratios.values()) >= FASTER[peer][unshuffle]
    benchmark.pedantic(Training(build_own(Settings(unshuffle=2))).step, rounds=1)  # type: ignore[no-untyped-call]
