"""A small 3-D CNN that says whether there is a lesion anywhere in a volume."""

from __future__ import annotations

from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

NORM_GROUPS = 8
"""Groups of every GroupNorm."""


class LesionClassifier(nn.Module):
    """MONAI's convolutions with GroupNorm; the strongest response anywhere decides.

    Lesions are small: an average over the volume hides them, and MONAI's own classifiers end in one, or in
    weights for every position. They also halve slices at every stage, of which there are few, and keep
    BatchNorm, which is noisy at a batch of four, in most or all of their blocks. Here slices are halved once.

    Args:
        channels: of the first stage; stage i has i times as many. A multiple of 8.
        levels: number of stages after the first; each halves rows and columns, the first of them slices.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        strides = [(1, 2, 2), (2, 2, 2), *[(1, 2, 2)] * (levels - 1)]
        widths = [1, *(channels * (stage + 1) for stage in range(len(strides)))]
        self.body = nn.Sequential(
            *(
                nn.Sequential(_convolution(n_in, n_out, stride), _convolution(n_out, n_out, (1, 1, 1)))
                for n_in, n_out, stride in zip(widths[:-1], widths[1:], strides, strict=True)
            )
        )
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits (N,) of volumes (N, 1, D, H, W) in [0, 1]."""
        strongest = self.body(volumes).amax(dim=(2, 3, 4))
        logits: Tensor = self.head(strongest)
        return logits.squeeze(1)


def _convolution(n_in: int, n_out: int, stride: tuple[int, int, int]) -> nn.Module:
    return Convolution(
        spatial_dims=3,
        in_channels=n_in,
        out_channels=n_out,
        strides=stride,
        kernel_size=3,
        act="swish",
        norm=("group", {"num_groups": NORM_GROUPS}),
        bias=False,
    )
