"""Networks to compare: the project's, MONAI's, and the video U-Net that the paper's follows."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn

from dbtbench.networks.backbone import build_network
from dbtbench.networks.names import Backbone

BASE_CHANNELS, CHANNEL_MULTS, GRID = 32, (1, 2, 4, 8), (8, 64, 64)
INSTALL = "pip install --no-deps video-diffusion-pytorch einops einops-exts rotary-embedding-torch"


@dataclass
class Settings:
    """The network settings of a recipe."""

    backbone: Backbone = "unet"
    unshuffle: int = 1
    base_channels: int = BASE_CHANNELS
    channel_mults: tuple[int, ...] = CHANNEL_MULTS
    blocks: int = 2
    factorised: bool = True


@dataclass(frozen=True)
class Network:
    """A network, and how it is run on noisy volumes (N, 1, D, H, W) at times (N,) in [0, 1]."""

    net: nn.Module
    call: Callable[[Tensor, Tensor], Tensor]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.net.parameters())


def build_own(settings: Settings) -> Network:
    """Make a network of the project; its conditioning is a label, a projection and an empty mask."""
    net = build_network(settings, num_labels=4, num_projections=2)

    def call(x: Tensor, t: Tensor) -> Tensor:
        index = torch.zeros(len(x), dtype=torch.long, device=x.device)
        predicted: Tensor = net(x, t, index, index, torch.zeros_like(x))
        return predicted

    return Network(net, call)


def build_video() -> Network:
    """Make the U-Net of `video-diffusion-pytorch`, without conditioning.

    Its module imports torchvision, which the network does not use.

    Raises:
        ModuleNotFoundError: when it is not installed; see `INSTALL`.
    """
    stubs = {} if importlib.util.find_spec("torchvision") else {"torchvision": MagicMock()}
    with patch.dict(sys.modules, stubs):
        module = importlib.import_module("video_diffusion_pytorch")
    net: nn.Module = module.Unet3D(dim=BASE_CHANNELS, dim_mults=CHANNEL_MULTS, channels=1)
    return Network(net, lambda x, t: net(x, 1000 * t))
