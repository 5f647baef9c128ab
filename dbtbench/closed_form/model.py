"""The closed-form model: statistics of the training volumes, and the drawing of volumes from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from dbtbench.closed_form.lesions import LesionBump
from dbtbench.geometry.views import PROJECTIONS, Boxes, Volume, laterality, mirror_boxes, projection
from dbtbench.runtime.files import atomic_path

LEVELS = 64
"""Grey levels that the noise's standard deviation is measured at."""


@dataclass(frozen=True)
class ClosedForm:
    """Statistics of the square roots of the training volumes' intensities, turned to left breasts.

    Attributes:
        mean: (2, D, H, W) mean volume of each projection.
        components: (K, D, H, W) principal components, each of the length of one standard deviation.
        noise: (LEVELS,) standard deviation of the residual by predicted grey level.
        spectrum: (D, H, W) variance of each DCT coefficient of the residual in units of that deviation; its
            mean is 1.
        lesion: the bump.
    """

    mean: Volume
    components: Volume
    noise: NDArray[np.float32]
    spectrum: Volume
    lesion: LesionBump

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        arrays: dict[str, NDArray[Any]] = {
            "mean": self.mean,
            "components": self.components,
            "noise": self.noise,
            "spectrum": self.spectrum,
            "lesion.plane": self.lesion.plane,
            "lesion.depth": self.lesion.depth,
            "lesion.amplitude": np.array([self.lesion.amplitude]),
        }
        with atomic_path(file) as path:
            save_file(arrays, path)

    @classmethod
    def load(cls, file: Path) -> ClosedForm:
        """Read what `save` wrote."""
        arrays: dict[str, NDArray[Any]] = load_file(file)
        lesion = LesionBump(
            arrays["lesion.plane"], arrays["lesion.depth"], float(arrays["lesion.amplitude"][0])
        )
        return cls(arrays["mean"], arrays["components"], arrays["noise"], arrays["spectrum"], lesion)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        depth, height, width = self.spectrum.shape
        return depth, height, width

    def draw(self, view: str, boxes: Boxes, seed: int) -> Volume:
        """Draw one volume.

        Every sum is taken term by term: a matrix product may round otherwise on another number of threads.

        Args:
            view: such as `lcc`.
            boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels, as displayed in that view.
            seed: of all random numbers.

        Returns:
            (D, H, W) float32 intensities in [0, 1], as displayed.
        """
        rng, right = np.random.default_rng(seed), laterality(view) == "r"
        root = self.mean[PROJECTIONS.index(projection(view))].copy()
        weights = rng.standard_normal(len(self.components)).astype(np.float32)
        for weight, component in zip(weights, self.components, strict=True):
            root += weight * component
        root += self.lesion.draw(mirror_boxes(boxes, self.grid[2]) if right else boxes, self.grid)
        root = self.add_texture(root, rng.standard_normal(self.grid, dtype=np.float32))
        volume = np.clip(root, 0, 1) ** 2
        return np.ascontiguousarray(volume[..., ::-1] if right else volume)

    def add_texture(self, root: Volume, noise: Volume) -> Volume:
        """Add residual texture, made of standard normal noise, to a predicted root; all (D, H, W)."""
        from scipy.fft import idctn

        textured: Volume = root + self.noise[grey_levels(root)] * idctn(
            np.sqrt(self.spectrum) * noise, norm="ortho"
        )
        return textured


def grey_levels(root: Volume) -> NDArray[np.intp]:
    """Find the grey level, 0 to `LEVELS` − 1, of square roots of intensities; beyond [0, 1] the nearest."""
    return np.clip(root * LEVELS, 0, LEVELS - 1).astype(np.intp)
