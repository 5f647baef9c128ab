"""Lesions of several data sets: a picture in the plane and in depth, and how deep and wide they are.

    python benchmarks/lesion_pictures.py --workspace WORK --data phantom pasted ddpm-inpaint
    python benchmarks/lesion_pictures.py … --out docs/lesions.png

The first set is the training split of `--data`. The others are synthetic, by the name of the data set.
Contrast is that of `dbtbench.metrics.contrast.lesion_profiles`, over all boxes. For a set that was drawn into
hosts, the table says how many voxels are the host's, bit by bit, and how rough volume and host are from slice
to slice.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dbtbench.data.dataset import DBTDataset
from dbtbench.figures.canvas import font
from dbtbench.figures.comparison import BOX, FAINT, INK
from dbtbench.geometry.views import Boxes, Volume, laterality, mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.metrics.contrast import lesion_profiles
from dbtbench.metrics.mask import breast_mask
from dbtbench.workspace import Workspace

COLUMNS = 10
CELL, GAP, LEFT = 128, 6, 96
DEEP = 48
"""Height of the section through all slices, in pixels."""
Values = NDArray[np.float64]


def read_left(dataset: DBTDataset, case: int) -> tuple[Volume, Boxes]:
    """Read a volume and its boxes, mirrored where it is a right breast."""
    volume, boxes = dataset.volumes([case])[0, 0], dataset.boxes_of(case)
    if laterality(dataset.cases.set_index("case").loc[case, "View"]) == "r":
        return volume[..., ::-1], mirror_boxes(boxes, dataset.grid[2])
    return volume, boxes


def measure_profiles(dataset: DBTDataset) -> tuple[Values, Values, int]:
    """Measure the mean contrast in depth (5,) and in radius (4,), and count the lesions."""
    depth, radius = [], []
    for case in dataset.cases["case"][dataset.positive]:
        volume, boxes = read_left(dataset, case)
        batch = volume[None, None]
        in_depth, in_radius = lesion_profiles(batch, breast_mask(batch), [boxes])
        depth.append(in_depth)
        radius.append(in_radius)
    along, across = np.concatenate(depth), np.concatenate(radius)
    return np.nanmean(along, axis=0), np.nanmean(across, axis=0), len(along)


def compare_with_hosts(dataset: DBTDataset, train: DBTDataset) -> tuple[float, float, float] | None:
    """Compare with hosts: share of voxels that are theirs, and roughness of volumes and hosts.

    Roughness is the mean difference of neighbouring slices where the two differ. None for a set that was not
    drawn from layouts of this split, or not into their hosts.
    """
    source: dict[str, Any] = dataset.meta["source"]
    if not source.get("derived") or source.get("data", {}).get("split_hash") is None:
        return None
    numbers = dataset.cases["case"].tolist()
    layouts = draw_layouts(train, max(numbers) + 1, source["seed"], source["positives"])
    kept, rough, smooth = [], [], []
    for case in numbers:
        layout = layouts[case]
        volume, host = read_left(dataset, case)[0], read_left(train, int(layout.host or 0))[0]
        differs = volume != host
        kept.append(1 - differs.mean())
        place = differs.any(axis=0)
        if place.any():
            rough.append(np.abs(np.diff(volume, axis=0))[:, place].mean())
            smooth.append(np.abs(np.diff(host, axis=0))[:, place].mean())
    return (float(np.mean(kept)), float(np.mean(rough)), float(np.mean(smooth))) if rough else None


def draw_row(image: Image.Image, top: int, dataset: DBTDataset) -> None:
    """Draw lesions of one set: the slice of the centre, and below it the section through all slices."""
    pen, (_, rows, columns) = ImageDraw.Draw(image), dataset.grid
    cases = dataset.cases["case"][dataset.positive].to_numpy()
    for column, case in enumerate(cases[np.linspace(0, len(cases) - 1, COLUMNS).astype(int)]):
        volume, boxes = read_left(dataset, int(case))
        z0, y0, x0, z1, y1, x1 = boxes[0]
        left = LEFT + column * (CELL + GAP)
        middle, row = int(min((z0 + z1) / 2, len(volume) - 1)), int(min((y0 + y1) / 2, rows - 1))
        for part, at, height in ((volume[middle], top, CELL), (volume[:, row], top + CELL, DEEP)):
            grey = Image.fromarray((part * 255).astype(np.uint8))
            image.paste(grey.resize((CELL, height), Image.Resampling.NEAREST), (left, at))
        down, across, along = CELL / rows, CELL / columns, DEEP / len(volume)
        pen.rectangle((left + x0 * across, top + y0 * down, left + x1 * across, top + y1 * down), outline=BOX)
        deep = top + CELL
        for x in (x0, x1):
            pen.line((left + x * across, deep + z0 * along, left + x * across, deep + z1 * along), BOX)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = Workspace(options.workspace)
    train = DBTDataset.open(work.datasets / options.data).select("train")
    sets = {"training": train} | {name: DBTDataset.open(work.datasets / name) for name in options.sets}
    for name, dataset in sets.items():
        depth, radius, lesions = measure_profiles(dataset)
        words = [" ".join(f"{value:.3f}" for value in profile) for profile in (depth, radius)]
        typer.echo(f"{name}: {lesions} lesions, in depth {words[0]}, in radius {words[1]}")
        if found := compare_with_hosts(dataset, train):
            typer.echo(f"  kept {found[0]:.4f} of the voxels, rough {found[1]:.4f}, host {found[2]:.4f}")
    if options.out:
        height = CELL + DEEP + 2 * GAP
        image = Image.new("RGB", (LEFT + COLUMNS * (CELL + GAP), 24 + len(sets) * height), "white")
        pen = ImageDraw.Draw(image)
        pen.text((LEFT, 4), "slice of the centre; below it the section through all slices", FAINT, font(13))
        for number, (name, dataset) in enumerate(sets.items()):
            top = 24 + number * height
            pen.text((4, top + 4), name.replace("-", "\n"), INK, font(14))
            draw_row(image, top, dataset)
        image.save(options.out)


if __name__ == "__main__":
    main()
