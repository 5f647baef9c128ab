"""The gate between a generator and the store: every sample is checked before anything of it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from dbtbench import plugins
from dbtbench.data.dataset import LABELS
from dbtbench.errors import DBTBenchError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Boxes, Volume

ROUNDING = 1e-6
"""The most that a value of 32 or more bits may lie outside [0, 1], as in `data import volumes`. Coarser types
may exceed it by one step of theirs at 1: 0.001 for float16, 0.008 for bfloat16."""
BOX_ROUNDING = 1e-3
"""The most that a box may stick out of the grid, in voxels, as in `data check`."""
OVERSHOOT = 0.25
"""Values that lie less than this outside [0, 1] are to be clipped; others have another scale."""
UNSCALED = 16
"""Values from 0 to at least this are whole grey levels that were not scaled."""
AXES = ("slices", "rows", "columns")
END = object()


class SampleError(DBTBenchError):
    """A sample that breaks the contract; what its generator drew with it is not kept."""


def draw_samples(
    generator: Generator[Any], name: str, layouts: Sequence[Layout], grid: tuple[int, int, int]
) -> Iterator[Sample]:
    """Draw a checked sample for each layout.

    Args:
        generator: fitted.
        name: its name, for errors.
        layouts: what is asked for.
        grid: slices, rows, columns of the data set.

    Raises:
        SampleError: when a sample breaks the contract, or when there are too few or too many.
        DBTBenchError: when the generator's own code fails.
    """
    with plugins.blame("generators", name):
        samples: object = generator.sample(layouts)
    if not isinstance(samples, Iterable):
        raise SampleError(
            f"generator {name}: sample() returns {_describe(samples)}, not samples",
            "let it yield one Sample for each layout",
        )
    iterator = iter(samples)
    for number, layout in enumerate(layouts):
        with plugins.blame("generators", name):
            sample = next(iterator, END)
        if sample is END:
            raise SampleError(
                f"generator {name}, layout {layout.index}: no sample; sample() gave {number} for "
                f"{len(layouts)} layouts",
                "let it yield one Sample for each layout, in order",
            )
        yield check_sample(name, sample, layout, grid)
    with plugins.blame("generators", name):
        further = next(iterator, END)
    if further is not END:
        raise SampleError(
            f"generator {name}: sample() gives more than {len(layouts)} samples for {len(layouts)} layouts",
            "let it yield one Sample for each layout, in order",
        )


def check_sample(name: str, sample: object, layout: Layout, grid: tuple[int, int, int]) -> Sample:
    """Check one sample, and give it in the form in which it is stored.

    Tensors of torch (on any device, of any floating-point type, with or without a gradient) and numbers of
    other precision are converted.

    Args:
        name: the generator's name, for errors.
        sample: what it returned.
        layout: what it was asked for.
        grid: slices, rows, columns of the data set.

    Returns:
        Volume (D, H, W) float32 in [0, 1], boxes (n, 6) float32, and a label.

    Raises:
        SampleError: naming generator, layout and what is wrong.
    """
    try:
        if not isinstance(sample, Sample):
            raise SampleError(f"{_describe(sample)} instead of a Sample", "yield Sample(volume, boxes)")
        volume, boxes = _check_volume(sample.volume, grid), _check_boxes(sample.boxes, grid)
        return Sample(volume, boxes, _check_label(sample.label, layout, boxes))
    except SampleError as error:
        raise SampleError(f"generator {name}, layout {layout.index}: {error}", error.hint) from None


def _check_volume(volume: object, grid: tuple[int, int, int]) -> Volume:
    array, step = _as_array(volume, "volume")
    if array.dtype.kind not in "fiub":
        raise SampleError(f"the volume is {_describe(volume)}, not numbers", "return a float32 array")
    if array.shape != grid:
        raise SampleError(
            f"the volume's shape is {array.shape}, the grid (slices, rows, columns) is {grid}",
            _shape_hint(array.shape, grid),
        )
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind != "f":
        raise SampleError(
            f"values are whole numbers ({array.dtype}) from {_with_minus(low)} to {_with_minus(high)}",
            f"return intensities in [0, 1]: {_scale_hint(low, high)}",
        )
    wrong = int(array.size - np.isfinite(array).sum())
    if wrong:
        kind = "NaN" if np.isnan(array).any() else "infinite"
        raise SampleError(
            f"{wrong} of the volume's {array.size} values are {kind}",
            "a network that diverged gives these, and so does a division by 0",
        )
    if low < -max(step, ROUNDING) or high > 1 + max(step, ROUNDING):
        raise SampleError(
            f"values run from {_with_minus(low)} to {_with_minus(high)}, not in [0, 1]",
            _scale_hint(low, high),
        )
    checked: Volume = array.astype(np.float32)
    return checked.clip(0, 1, out=checked)


def _check_boxes(boxes: object, grid: tuple[int, int, int]) -> Boxes:
    array, _ = _as_array(boxes, "boxes")
    if array.size == 0:
        return np.zeros((0, 6), np.float32)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != 6:
        raise SampleError(
            f"the boxes are {_describe(boxes)} of shape {array.shape}, not (n, 6) numbers",
            "one row for each lesion, [z0, y0, x0, z1, y1, x1]; np.zeros((0, 6)) for none",
        )
    checked: Boxes = array.astype(np.float32)
    limits = np.array(grid, np.float32)
    for box, (low, high) in zip(checked, zip(checked[:, :3], checked[:, 3:], strict=True), strict=True):
        text = f"box [{', '.join(f'{value:g}' for value in box)}]"
        if not np.isfinite(box).all():
            raise SampleError(f"{text} is not finite", "leave out lesions that are nowhere")
        if (low >= high).any():
            axis = AXES[int(np.argmax(low >= high))]
            raise SampleError(
                f"{text} has no size along the {axis}",
                "boxes are [z0, y0, x0, z1, y1, x1], half-open: low corner, then high corner, in voxels",
            )
        if (low < -BOX_ROUNDING).any() or (high > limits + BOX_ROUNDING).any():
            raise SampleError(
                f"{text} lies outside the grid {grid}",
                "boxes are in voxels of the grid: clip them to it, and leave out lesions that are not in it",
            )
    return checked


def _check_label(label: object, layout: Layout, boxes: Boxes) -> str:
    """Give the sample's label: its own, or else the layout's. A normal volume has no lesions."""
    if label is None:
        label = layout.label
    if not isinstance(label, str) or label not in LABELS:
        raise SampleError(f"{label!r} is no label", f"known: {', '.join(LABELS)}; None for the layout's")
    asked_so = layout.label == "normal" and len(layout.boxes) > 0
    if label == "normal" and len(boxes) and not asked_so:
        raise SampleError(
            f"the volume has {len(boxes)} boxes and the label normal",
            'give the label with them, such as Sample(volume, boxes, label="cancer"), or leave the boxes out',
        )
    return label


def _as_array(value: Any, what: str) -> tuple[np.ndarray[Any, Any], float]:
    """Give an array, and the step of its number type at 1 (0 where it has none)."""
    if hasattr(value, "requires_grad"):  # a tensor; without one, torch is not imported
        import torch

        if value.is_floating_point():
            return value.float().numpy(force=True), torch.finfo(value.dtype).eps
        return value.numpy(force=True), 0.0
    try:
        array = np.asarray(value)
    except Exception as error:  # an object's own `__array__` may raise anything
        raise SampleError(f"the {what} cannot become an array: {error}", "return a numpy array") from error
    return array, float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0


def _shape_hint(shape: tuple[int, ...], grid: tuple[int, int, int]) -> str:
    if tuple(n for n in shape if n != 1) == tuple(n for n in grid if n != 1):
        return f"return the volume without its axes of length 1: volume.reshape({grid})"
    for order in ((2, 0, 1), (2, 1, 0), *permutations(range(3))):
        if len(shape) == 3 and tuple(shape[axis] for axis in order) == grid:
            names = ", ".join(AXES[order.index(axis)] for axis in range(3))
            return f"its axes seem to be ({names}): return volume.transpose({order})"
    return "draw volumes on the grid of the training data, `train.grid`"


def _scale_hint(low: float, high: float) -> str:
    for bits in (8, 10, 12, 14, 16):
        if low >= 0 and UNSCALED <= high < 2**bits:
            return f"return volume.astype(np.float32) / {2**bits - 1}"
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return "return volume.astype(np.float32).clip(0, 1)"
    if low >= -1 - OVERSHOOT and high <= 1 + OVERSHOOT:
        return "return (x + 1) / 2"
    return "scale all volumes alike: 0 is air, and 1 is the upper end of the window"


def _with_minus(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _describe(value: object) -> str:
    kind = type(value)
    return "None" if value is None else f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
