"""Our U-Net beside MONAI's and the video U-Net whose design the paper's follows, 32 channels wide.

CPU seconds of one thread for a batch of 2 x (1, 8, 64, 64): a training step (forward, backward, Adam) and a
forward pass, of which sampling is made. All have levels of 1, 2, 4 and 8 times 32 channels.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest.mock import MagicMock

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from dbtbench.generators.ddpm.backbone import Backbone, build

pytestmark = pytest.mark.slow

DIM, MULTS, GRID, BATCH = 32, (1, 2, 4, 8), (8, 64, 64), 2
FASTER = {"monai": {1: 1.0, 2: 2.5}, "video": {1: 5.0, 2: 12.0}}
"""How many times faster ours must be than each peer, by its pixel-unshuffle."""


@dataclass
class Settings:
    """A recipe's settings of the network."""

    backbone: Backbone = "unet"
    unshuffle: int = 1
    dim: int = DIM
    mults: tuple[int, ...] = MULTS
    blocks: int = 2
    factorised: bool = True


@dataclass(frozen=True)
class Cost:
    """CPU seconds, and what they are for."""

    parameters: int
    step: float
    forward: float

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters, step {self.step:.2f} s, forward {self.forward:.2f} s"
        )


class Trained:
    """A network with its input, target and optimiser.

    Args:
        net: the network.
        call: runs it on noisy volumes and times in [0, 1].
    """

    def __init__(self, net: nn.Module, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.net, self.call = net, call
        self.x, self.t = torch.randn(BATCH, 1, *GRID), torch.linspace(0.3, 0.7, BATCH)
        self.optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step(self) -> None:
        self.optimiser.zero_grad()
        loss = (self.call(self.x, self.t) - self.x).square().mean()
        torch.autograd.backward(loss)
        self.optimiser.step()

    @torch.inference_mode()
    def forward(self) -> None:
        self.call(self.x, self.t)

    def cost(self, repeats: int) -> Cost:
        """The median of a few."""
        step, forward = (
            statistics.median(cpu_seconds(run) for _ in range(repeats)) for run in (self.step, self.forward)
        )
        return Cost(sum(p.numel() for p in self.net.parameters()), step, forward)


def cpu_seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def told(settings: Settings) -> Trained:
    """A network of the project, which is also told a label, a projection and a mask."""
    net = build(settings, labels=4, projections=2)
    index, mask = torch.zeros(BATCH, dtype=torch.long), torch.zeros(BATCH, 1, *GRID)
    return Trained(net, lambda x, t: net(x, t, index, index, mask))


def video() -> Trained:
    """The U-Net of `video-diffusion-pytorch`, which is told nothing.

    Its module needs torchvision, whose transforms the network does not use, to be imported.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torchvision") is None:
            patch.setitem(sys.modules, "torchvision", MagicMock())
        try:
            module = importlib.import_module("video_diffusion_pytorch")
        except ModuleNotFoundError as error:
            wanted = "video-diffusion-pytorch einops einops-exts rotary-embedding-torch"
            pytest.skip(f"{error}: pip install --no-deps {wanted}")
    net: nn.Module = module.Unet3D(dim=DIM, dim_mults=MULTS, channels=1)
    return Trained(net, lambda x, t: net(x, 1000 * t))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours(one_thread: None) -> dict[int, Cost]:
    """By pixel-unshuffle."""
    return {unshuffle: told(Settings(unshuffle=unshuffle)).cost(5) for unshuffle in (1, 2)}


@pytest.mark.parametrize("peer", FASTER)
def test_a_step_and_a_forward_pass_cost_less_than_those_of_the_peer(
    peer: str, ours: dict[int, Cost], benchmark: BenchmarkFixture
) -> None:
    # A step of the video U-Net is so long that one, without warm-up, has to do.
    theirs = video().cost(1) if peer == "video" else told(Settings("monai")).cost(3)
    sys.stdout.write(f"\n{peer}: {theirs}\n")
    for unshuffle, cost in ours.items():
        ratios = {"step": theirs.step / cost.step, "forward": theirs.forward / cost.forward}
        faster = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items())
        sys.stdout.write(f"  ours, unshuffle {unshuffle}: {cost}; times faster: {faster}\n")
        benchmark.extra_info[f"times faster at unshuffle {unshuffle}"] = ratios
        assert min(ratios.values()) >= FASTER[peer][unshuffle]
    benchmark(told(Settings(unshuffle=2)).step)
