"""In-painting of lesions into hosts: where they lie, the hole they are drawn in, and what is kept of it.

A lesion in tomosynthesis goes through more slices than its box, and fills the inner part of it. Both follow
from the mean shape of the training lesions (`dbtbench.lesions.shape`). The network gets a mask that is as
deep as the lesion. It draws in a wide hole, so that what it draws joins the host, and only the lesion's
extent is kept. It draws from noise, or from a training lesion that was pasted there and noised in part. See
docs/lesions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS, DBTDataset
from dbtbench.diffusion.inpainting import keep_known
from dbtbench.diffusion.preconditioning import Denoiser
from dbtbench.diffusion.sampling import sample_from
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, Volume, laterality, mirror_boxes, projection
from dbtbench.lesions.hosts import HostReader
from dbtbench.lesions.insertion import insert_lesion
from dbtbench.lesions.library import Library
from dbtbench.lesions.places import Background
from dbtbench.lesions.shape import LesionShape
from dbtbench.networks.conditioning import Conditioning, box_mask
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.training.denoising import make_denoise, run_sampler
from dbtbench.training.learned import LayoutNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import DDPMRecipe


@dataclass(frozen=True, kw_only=True)
class Canvas(Layout):
    """A layout whose host was read, and whose lesions have places in it. Arrays are those of a left breast.

    Attributes:
        background: (D, H, W) the host.
        start: (D, H, W) the host with training lesions pasted, or as it is.
        lesions: (n, 6) `boxes`, in the left breast.
        hole: (D, H, W) in [0, 1]: where the network draws.
        weight: (D, H, W) in [0, 1]: how much of what it drew is kept; 0 wherever the hole is 0.
        mask: (1, D, H, W) the lesion mask that the network gets.
    """

    background: Volume
    start: Volume
    lesions: Boxes
    hole: Volume
    weight: Volume
    mask: Volume


class Inpainting:
    """Prepares layouts for in-painting.

    Args:
        train: the training split.
        pasted: whether training lesions are pasted, to start from.

    Raises:
        UsageError: when a layout would have no host, or training lesions have no contrast.
    """

    def __init__(self, train: DBTDataset, pasted: bool = False) -> None:
        self.hosts, self.grid = HostReader(train, "ddpm"), train.grid
        self.hosts.check()
        self.library = Library.cut(train, "ddpm") if pasted else None
        cases = [int(case) for case in train.cases["case"][train.positive]]
        read = [self.hosts.read(case) for case in cases]
        shape = LesionShape.fit(read, train.grid[0])
        if shape is None:
            raise UsageError(
                f"{train.name} has no training lesions that are brighter than their surroundings on average",
                "import more patients with lesions, or draw whole volumes: --set background=drawn",
            )
        self.shape = shape
        self.lesions: dict[str, list[NDArray[np.float32]]] = {}
        for case, (_, boxes) in zip(cases, read, strict=True):
            self.lesions.setdefault(str(self.hosts.views[case]), []).extend(boxes)
        depth = " ".join(f"{contrast:.2f}" for contrast in shape.depth)
        log.info(
            f"ddpm: training lesions have a relative contrast of {depth} at 0, 1, … slices from their centre"
        )

    def prepare(self, layout: Layout) -> Canvas:
        """Read a layout's host, and find places for its lesions.

        A lesion has the wanted centre, or the nearest place where its box's ellipse lies in the breast, in no
        other lesion and not in the bright part of the muscle. Where there is none, it is left out. A layout
        without lesions gets a hole as well, at the place of a training lesion: else the traces of in-painting
        would tell a detector where lesions are. The label is normal when no lesion is left. Where training
        lesions are pasted, boxes and label are theirs.

        Raises:
            UsageError: for a layout without a host.
        """
        host, width = self.hosts.read_host(layout), self.grid[2]
        background = host.volume if self.library is None else host.volume.copy()
        right = laterality(layout.view) == "r"
        wanted = mirror_boxes(layout.boxes, width) if right else layout.boxes
        if self.library is None:
            lesions, label = self._place(host, wanted), layout.label
        else:
            lesions, label = _paste(self.library, host, wanted, layout)
        holes = lesions if len(layout.boxes) else self._place(host, self._draw_box(layout))
        boxes = mirror_boxes(lesions, width) if right else lesions
        rise, empty = host.rise(), np.zeros(self.grid, np.float32)
        return Canvas(
            **vars(layout) | {"boxes": boxes, "label": label if len(boxes) else "normal"},
            background=background,
            start=host.volume,
            lesions=lesions,
            hole=np.max([empty, *(self.shape.open_hole(box, rise) for box in holes)], axis=0),
            weight=np.max([empty, *(self.shape.weigh(box, rise) for box in holes)], axis=0),
            mask=box_mask(lesions, self.grid, [self.shape.spread_depth(box) for box in lesions]),
        )

    def _place(self, host: Background, boxes: Boxes) -> Boxes:
        """Move boxes to where their ellipses are free in a host; those without a place are left out."""
        placed = []
        for box in boxes:
            half = (box[4:] - box[1:3]).astype(np.float64) / 2
            centre = host.find_place((box[1:3] + box[4:]).astype(np.float64) / 2, half)
            if centre is not None:
                moved = np.array([box[0], *(centre - half), box[3], *(centre + half)], np.float32)
                host.fill(moved)
                placed.append(moved)
        return np.stack(placed) if placed else np.zeros((0, 6), np.float32)

    def _draw_box(self, layout: Layout) -> Boxes:
        """Draw the box of a training lesion, of the layout's projection if there is one: (1, 6)."""
        known = self.lesions.get(projection(layout.view)) or list(chain(*self.lesions.values()))
        return known[np.random.default_rng(layout.seed).integers(len(known))][None]


def _paste(library: Library, host: Background, wanted: Boxes, layout: Layout) -> tuple[Boxes, str]:
    """Paste a training lesion for each box, as the generator `paste` does.

    Returns:
        Boxes of those that have a place, and the label of the gravest.
    """
    rng, kind = np.random.default_rng(layout.seed), projection(layout.view)
    found = [insert_lesion(library, host, box, kind, rng) for box in wanted]
    pasted = [one for one in found if one]
    boxes = np.stack([box for _, box in pasted]) if pasted else np.zeros((0, 6), np.float32)
    label = max((lesion.label for lesion, _ in pasted), key=LABELS.index, default="normal")
    return boxes, layout.label if label == "normal" else label


class Canvases:
    """The canvases of a batch, on `distributed.device()`; each attribute is (N, 1, D, H, W).

    Args:
        layouts: one canvas for each row.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        rows = [layout for layout in layouts if isinstance(layout, Canvas)]
        assert len(rows) == len(layouts)
        self.background = _stack([row.background[None] for row in rows])
        self.start = _stack([row.start[None] for row in rows])
        self.hole = _stack([row.hole[None] for row in rows])
        self.weight = _stack([row.weight[None] for row in rows])
        self.mask = _stack([row.mask for row in rows])

    def keep(self, drawn: Tensor) -> Tensor:
        """Put what was drawn into the hosts: where the weight is 0, every voxel keeps its bits."""
        blended = self.background + self.weight * (drawn - self.background)
        return torch.where(self.weight > 0, blended, self.background)


def inpaint_volumes(
    recipe: DDPMRecipe, model: nn.Module, conditioning: Conditioning, noise: LayoutNoise
) -> Tensor:
    """Draw lesions into the canvases of `noise.layouts`: (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(model, Denoiser)
    canvases = Canvases(noise.layouts)
    denoise = make_denoise(recipe, model, replace(conditioning, lesion_mask=canvases.mask))
    denoise = keep_known(denoise, model.intensities(canvases.background), canvases.hole)
    if recipe.start_at == 1:
        return canvases.keep(run_sampler(recipe, model, conditioning.projection, noise, denoise))
    steps = min(recipe.sample_steps, recipe.num_timesteps)
    values, start = model.intensities(canvases.start), recipe.start_at
    drawn = sample_from(recipe.sampler, denoise, values, model.alpha_bar, steps, noise, start)
    return canvases.keep(model.intensities.inverse(drawn))


def _stack(rows: Sequence[Volume]) -> Tensor:
    return torch.from_numpy(np.stack(rows)).to(distributed.device())
