"""MONAI's 3-D RetinaNet, without torchvision and small enough for a CPU.

MONAI's detector takes images (N, 1, H, W, D) and boxes [y0, x0, z0, y1, x1, z1]; the toolkit has
(N, 1, D, H, W) and [z0, y0, x0, z1, y1, x1]. Only `LesionDetector` knows both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes

NORM_GROUPS = 8
"""Groups of every GroupNorm; MONAI's heads have this number written in."""

TO_MONAI = [1, 2, 0, 4, 5, 3]
FROM_MONAI = [2, 0, 1, 5, 3, 4]


def divisors(levels: int) -> tuple[int, int, int]:
    """Give the numbers that slices, rows and columns must be multiples of, by the number of levels."""
    plane = 4 * 2 ** (levels - 1)
    return 2, plane, plane


def check_grid(grid: tuple[int, int, int], levels: int) -> None:
    """Refuse a grid that the strides do not divide.

    Args:
        grid: slices, rows, columns.
        levels: number of pyramid levels.

    Raises:
        UsageError: naming the axis.
    """
    for name, size, step in zip(("slices", "rows", "columns"), grid, divisors(levels), strict=True):
        if size % step:
            raise UsageError(
                f"the detector cannot take volumes with {size} {name}: {size} is not a multiple of {step}",
                "import the data set on another grid, such as --grid 8x64x64",
            )


def anchor_shapes(boxes: Boxes, grid: tuple[int, int, int]) -> NDArray[np.float32]:
    """Two anchor shapes: the lower and upper quartile of each side of the boxes.

    Args:
        boxes: (n, 6) with n > 0.
        grid: slices, rows, columns; no side is longer than the volume.

    Returns:
        (2, 3) float32: slices, rows, columns; at least one voxel along each axis.
    """
    quartiles = np.quantile(boxes[:, 3:] - boxes[:, :3], (0.25, 0.75), axis=0)
    shapes: NDArray[np.float32] = np.clip(quartiles, 1, grid).astype(np.float32)
    return shapes


class ExactAnchors(AnchorGeneratorWithAnchorShape):
    """Anchors of exactly the shapes asked for.

    MONAI rounds half shapes to even, so that a depth of 1 becomes 0 (and the first step fails with NaN), 3
    becomes 4 and 5 becomes 4; and it scales depth with the pyramid level, past the volume's own depth.
    """

    def __init__(self, scales: Sequence[float], shapes: Sequence[Sequence[float]], depth: int) -> None:
        super().__init__(scales, shapes)
        for anchors in self.cell_anchors:
            anchors[:, [2, 5]] = anchors[:, [2, 5]].clamp(-depth / 2, depth / 2)

    @staticmethod
    def generate_anchors_using_shape(
        anchor_shapes: Tensor, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Tensor:
        """Corners of zero-centred anchors: (n, 3) sides to (n, 6)."""
        half = anchor_shapes / 2
        return torch.cat([-half, half], dim=1).to(dtype=dtype, device=device)


class ATSSRetinaNetDetector(RetinaNetDetector):
    """A detector whose anchors are matched by ATSS (Zhang et al., CVPR 2020) and nothing else.

    MONAI's own method asks first whether the matcher is torchvision's, which raises without torchvision.
    """

    def compute_anchor_matched_idxs(
        self,
        anchors: list[Tensor],
        targets: list[dict[str, Tensor]],
        num_anchor_locs_per_level: Sequence[int],
    ) -> list[Tensor]:
        """Index of the box that each anchor is matched with, below 0 for none; one tensor per volume."""
        matched = []
        for anchor, target in zip(anchors, targets, strict=True):
            boxes = target[self.target_box_key].to(anchor.device)
            _, index = self.proposal_matcher(
                boxes, anchor, num_anchor_locs_per_level, self.num_anchors_per_loc
            )
            matched.append(index.to(anchor.device))
        return matched


class PyramidBody(nn.Module):
    """Convolutions with GroupNorm under MONAI's feature pyramid.

    MONAI's ResNet keeps BatchNorm inside its blocks, which is noisy at a batch of four, and halves depth at
    every stage; here depth is halved once in all, and the first of the pyramid's maps has stride 2 x 4 x 4.

    Args:
        channels: of the first stage and of every map given out.
        levels: number of maps; each further one halves rows and columns again.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        strides = [(2, 2, 1), (2, 2, 2), *[(2, 2, 1)] * (levels - 1)]
        widths = [1, *(channels * (stage + 1) for stage in range(levels + 1))]
        self.stages = nn.ModuleList(
            _stage(n_in, n_out, stride)
            for n_in, n_out, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.pyramid = FeaturePyramidNetwork(3, widths[2:], channels, None)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of (N, 1, H, W, D) images, the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        features = self.stages[0](images)
        for level, stage in enumerate(self.stages[1:]):
            features = stage(features)
            maps[str(level)] = features
        pyramid: dict[str, Tensor] = self.pyramid(maps)
        return pyramid


def _stage(n_in: int, n_out: int, stride: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(n_in, n_out, 3, stride, 1, bias=False),
        nn.GroupNorm(NORM_GROUPS, n_out),
        nn.SiLU(),
        nn.Conv3d(n_out, n_out, 3, 1, 1, bias=False),
        nn.GroupNorm(NORM_GROUPS, n_out),
        nn.SiLU(),
    )


class LesionDetector(nn.Module):
    """A RetinaNet for one class, in the toolkit's conventions.

    Args:
        grid: slices, rows, columns of the volumes.
        anchors: (n, 3) sides of the anchors in voxels: slices, rows, columns.
        channels: a multiple of 8.
        levels: number of pyramid levels.
        score_threshold: boxes with lower scores are not given out.
        overlap: of two boxes with a larger intersection over union, only the better is given out.
        detections: most boxes given out for a volume.

    Raises:
        UsageError: for a grid that the strides do not divide.
    """

    def __init__(
        self,
        grid: tuple[int, int, int],
        anchors: NDArray[np.float32],
        channels: int,
        levels: int,
        score_threshold: float,
        overlap: float,
        detections: int,
    ) -> None:
        super().__init__()
        check_grid(grid, levels)
        self.grid = grid
        depth_last = anchors[:, [1, 2, 0]].tolist()
        generator = ExactAnchors([2.0**level for level in range(levels)], depth_last, grid[0])
        depth, *plane = divisors(levels)
        network = RetinaNet(3, 1, len(anchors), PyramidBody(channels, levels), size_divisible=(*plane, depth))
        self.detector = ATSSRetinaNetDetector(network, generator)
        self.detector.set_target_keys(box_key="boxes", label_key="labels")
        # MONAI's 4 candidates leave a lesion one or two positive anchors; those next to them, which see it as
        # well, become the hardest negatives, and some seeds learn nothing for hundreds of steps.
        self.detector.set_atss_matcher(num_candidates=32, center_in_gt=False)
        # A volume without lesions gives `min_neg` negatives, one by default: too few to learn from.
        self.detector.set_hard_negative_sampler(
            batch_size_per_image=64, positive_fraction=0.33, min_neg=16, pool_size=20
        )
        self.detector.set_box_selector_parameters(
            score_thresh=score_threshold,
            topk_candidates_per_level=10 * detections,
            nms_thresh=overlap,
            detections_per_img=detections,
        )

    def _images(self, volumes: Tensor) -> Tensor:
        assert volumes.shape[1:] == (1, *self.grid), "volumes must be (N, 1, D, H, W) on the detector's grid"
        return volumes.permute(0, 1, 3, 4, 2).contiguous()

    def forward(self, volumes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Training loss: classification plus box regression.

        Args:
            volumes: (N, 1, D, H, W) in [0, 1].
            boxes: for each volume (n, 6) float32, n = 0 where it has no lesion.

        Returns:
            A scalar.

        Raises:
            ValueError: when outputs or targets are not finite.
        """
        self.detector.train()
        targets = [
            {"boxes": box[:, TO_MONAI], "labels": torch.zeros(len(box), dtype=torch.long, device=box.device)}
            for box in boxes
        ]
        # Anchors take the type of the feature maps, and bfloat16 cannot tell voxel 257 from voxel 258.
        with torch.autocast(volumes.device.type, enabled=False):
            losses: dict[str, Tensor] = self.detector(self._images(volumes), targets)
        return losses["classification"] + losses["box_regression"]

    @torch.no_grad()
    def detect(self, volumes: Tensor) -> list[tuple[Boxes, NDArray[np.float32]]]:
        """Find lesions.

        Args:
            volumes: (N, 1, D, H, W) in [0, 1].

        Returns:
            For each volume its boxes (n, 6) in voxels and their scores (n,) in [0, 1], the best first.
        """
        self.detector.eval()
        found: list[dict[str, Any]] = self.detector(self._images(volumes))
        return [
            (one["boxes"][:, FROM_MONAI].cpu().numpy(), one["labels_scores"].cpu().numpy()) for one in found
        ]
