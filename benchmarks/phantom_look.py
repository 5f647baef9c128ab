"""Numbers of how the phantom looks, beside those of real slices, and pictures to look at.

    python benchmarks/phantom_look.py                          # 12 volumes of `standard`
    python benchmarks/phantom_look.py --real FOLDER            # and each picture in FOLDER, measured alike
    python benchmarks/phantom_look.py --pictures FOLDER        # and writes slices side by side there

`RANGES` are those of six real slices of BCS-DBT (DOI 10.7937/E4WT-CD02) on pixels of 0.75 mm. Real pictures
are named `…sliceNN.jpg`; those of one volume that are 8 slices or more apart are also correlated. Boxes that
were drawn on them are filled from their surroundings. It exits with 1 when the mean of the volumes, or half
of them, are outside a range.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    binary_fill_holes,
    distance_transform_edt,
    gaussian_filter,
    label,
)

from dbtbench.phantom.anatomy import FIELD_MM, draw_breasts
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.reconstruction import WINDOW
from dbtbench.phantom.simulation import PRESETS, simulate

Picture = NDArray[np.float64]
PIXEL = 0.75
RANGES = {
    "sd": (0.100, 0.164),
    "band": (0.027, 0.046),
    "skewness": (0.43, 1.17),
    "ratio": (-1.09, 0.08),
    "q95": (0.45, 0.63),
    "q99": (0.58, 0.85),
    "slope": (2.9, 3.3),
    "far": (0.4, 1.0),
}
RIM = 8
"""Pixels below the skin line that do not count in the fine band."""
SLICES = (0, 10)
"""Of 32; the two real slices of one volume are 0 and 16 of 49."""


def find_breast(picture: Picture) -> NDArray[np.bool_]:
    """Find the breast: the largest part that is not black, without holes."""
    parts, _ = label(gaussian_filter(picture, 1.0) > 0.03)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    found: NDArray[np.bool_] = binary_fill_holes(parts == sizes.argmax())
    return found


def find_band(picture: Picture, breast: NDArray[np.bool_]) -> Picture:
    """Compute what Gaussians of 0.5 and 2 mm differ by; air does not count."""
    blurred = []
    for sigma in (0.5 / PIXEL, 2.0 / PIXEL):
        weight = np.maximum(gaussian_filter(breast.astype(float), sigma), 1e-3)
        blurred.append(gaussian_filter(np.where(breast, picture, 0), sigma) / weight)
    return np.asarray(blurred[0] - blurred[1])


def measure_spectrum(picture: Picture, inner: NDArray[np.bool_]) -> tuple[float, float]:
    """Measure the slope over 0.1 to 0.5 /mm, and log(power across / power along the tube's path)."""
    size = 64
    window = np.hanning(size)[:, None] * np.hanning(size)
    total = np.zeros((size, size))
    for top in range(0, picture.shape[0] - size + 1, 16):
        for left in range(0, picture.shape[1] - size + 1, 16):
            part = np.s_[top : top + size, left : left + size]
            if inner[part].mean() > 0.98:
                total += np.abs(np.fft.fft2((picture[part] - picture[part].mean()) * window)) ** 2
    f = np.fft.fftfreq(size, PIXEL)
    radius = np.hypot(f[:, None], f)
    used = (radius >= 0.1) & (radius <= 0.5)
    edges = np.geomspace(0.1, 0.5, 12)
    bins = np.digitize(radius, edges)
    middle, power = [], []
    for k in range(1, len(edges)):
        if (bins == k).any():
            middle.append(np.log(radius[bins == k]).mean())
            power.append(np.log(total[bins == k].mean()))
    slope = -np.polyfit(middle, power, 1)[0]
    angle = np.arctan2(np.abs(f)[:, None] + 0 * f, np.abs(f)[None] + 0 * f[:, None])
    across = total[used & (angle < np.pi / 4)].sum()
    along = total[used & (angle > np.pi / 4)].sum()
    return float(slope), float(np.log(across / along))


def measure_slice(picture: Picture) -> dict[str, float]:
    """Measure all numbers of one slice, whose values are shares of the window."""
    breast = find_breast(picture)
    inner = binary_erosion(breast, iterations=RIM, border_value=1)
    band = find_band(picture, breast)[inner]
    slope, ratio = measure_spectrum(picture, inner)
    q95, q99 = np.quantile(picture[breast], [0.95, 0.99])
    return {
        "sd": float(picture[breast].std()),
        "band": float(band.std()),
        "skewness": float(((band - band.mean()) ** 3).mean() / band.std() ** 3),
        "ratio": ratio,
        "q95": float(q95),
        "q99": float(q99),
        "slope": slope,
    }


def correlate(first: Picture, second: Picture) -> float:
    """Correlate the fine bands of two slices where both show breast."""
    breasts = [find_breast(p) for p in (first, second)]
    inner = binary_erosion(breasts[0] & breasts[1], iterations=RIM, border_value=1)
    bands = [find_band(p, b)[inner] for p, b in zip((first, second), breasts, strict=True)]
    return float(np.corrcoef(*bands)[0, 1])


def measure_volume(volume: Picture) -> dict[str, float]:
    """Measure a volume of 32 slices: the mean over `SLICES`, and how far structures reach in depth."""
    slices = [measure_slice(volume[k]) for k in SLICES]
    numbers = {k: float(np.mean([s[k] for s in slices])) for k in slices[0]}
    return numbers | {"far": correlate(*(volume[k] for k in SLICES))}


def read_picture(path: Path) -> Picture:
    """Read a real slice of BCS-DBT, fill drawn boxes, and average it to 0.75 mm."""
    colours = np.asarray(Image.open(path).convert("RGB"), float)
    drawn = (np.ptp(colours, axis=2) > 60) | (colours.min(axis=2) > 250)
    parts, _ = label(drawn)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    drawn = binary_dilation((sizes > 400)[parts], iterations=6)
    grey = colours.mean(axis=2) / 255
    nearest = distance_transform_edt(drawn, return_distances=False, return_indices=True)
    grey = grey[tuple(nearest)]
    rows, columns = (round(mm / PIXEL) for mm in FIELD_MM)
    return np.asarray(
        Image.fromarray(grey.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX), float
    )


def make_volumes(count: int) -> dict[str, Picture]:
    """Simulate volumes of `standard`, each of another patient: the densities in turn, CC and MLO."""
    volumes, seed = {}, 0
    for number in range(count):
        density, turn = "bcda"[number % 4], number % 4 + number // 4
        seed += 1
        while draw_breasts(stream(7, seed))["l"].density != density:
            seed += 1
        view = ("lcc", "lmlo")[turn % 2]
        frames = simulate(PRESETS["standard"], draw_breasts(stream(7, seed))["l"], view, None, [7, seed])
        volumes[f"{density} {view[1:]} {seed}"] = window(frames / 1023)
    return volumes


def window(frames: Picture) -> Picture:
    """Show as a viewer does: the window of the files."""
    centre, width = WINDOW
    return np.asarray(((frames * 1023 - centre) / width + 0.5).clip(0, 1))


def show(name: str, numbers: dict[str, float]) -> None:
    """Print a row."""
    typer.echo(f"{name:28}" + "".join(f"{numbers.get(k, np.nan):9.3f}" for k in RANGES))


def save(folder: Path, volumes: dict[str, Picture], real: dict[str, Picture]) -> None:
    """Write pictures of up to four slices in a row, real ones first."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = list(real.values()) + [v[k] for v in volumes.values() for k in (SLICES[1], 20)]
    left = [np.fliplr(t) if t[:, 0].mean() < t[:, -1].mean() else t for t in tiles]
    left += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
    for start in range(0, len(left), 8):
        both = np.vstack([np.hstack(left[i : i + 4]) for i in (start, start + 4)])
        picture = Image.fromarray((both * 255).astype(np.uint8))
        picture.resize((both.shape[1] * 3 // 2, both.shape[0] * 3 // 2)).save(
            folder / f"look{start // 8}.png"
        )


def main() -> int:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=12)
    parser.add_argument("--real", type=Path, help="folder of real slices")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the slices")
    chosen = parser.parse_args()
    paths = sorted(chosen.real.glob("*slice*.jpg")) if chosen.real else []
    real = {p.stem: read_picture(p) for p in paths}
    typer.echo(f"{'':28}" + "".join(f"{k:>9}" for k in RANGES))
    for name, picture in real.items():
        show(name[-28:], measure_slice(picture))
    for first, second in pairwise(real):
        numbers = [int(re.findall(r"slice(\d+)", n)[0]) for n in (first, second)]
        if re.sub(r"slice\d+", "", first) == re.sub(r"slice\d+", "", second) and np.ptp(numbers) >= 8:
            typer.echo(f"fine bands of {first} and {second[-7:]}: {correlate(real[first], real[second]):.2f}")
    began = time.process_time()
    volumes = make_volumes(chosen.volumes)
    seconds = (time.process_time() - began) / max(1, len(volumes))
    typer.echo(f"CPU seconds a volume (without compression and writing): {seconds:.2f}")
    rows = []
    for name, volume in volumes.items():
        rows.append(measure_volume(volume))
        show(name, rows[-1])
    if chosen.pictures:
        save(chosen.pictures, volumes, real)
    failed = False
    for key, (low, high) in RANGES.items():
        if rows:
            values = np.array([r[key] for r in rows])
            share = float(((values >= low) & (values <= high)).mean())
            good = low <= values.mean() <= high and share > 0.5
            failed |= not good
            typer.echo(
                f"{key:9} mean {values.mean():6.3f} of [{low}, {high}], {share:.0%} of volumes within"
                + ("" if good else "  <- outside")
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
