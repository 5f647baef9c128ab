"""How hard the phantom's lesions are to see: detectability, saturation, and spread in depth.

    python benchmarks/lesion_difficulty.py                    # three grids, 60 lesions each: 2 CPU minutes
    python benchmarks/lesion_difficulty.py tiny --lesions 200 --conspicuity 2

Each lesion is simulated with and without itself, so the difference is its image exactly. Detectability d′ is
that of a difference of Gaussians in the lesion's central slice, the best of four sizes: its answer to the
lesion at the centre of the box, over the standard deviation of its answers to the same breast without the
lesion, within 40 mm. The first line names the conspicuity at which the median would be 3, if d′ were
proportional to it: after a change of anatomy or tone, write it into `simulation.PRESETS`, or change
`lesions.CONTRAST`, and run again.

A lesion is saturated when a fifth of its middle or more lies at the top of the window. The spread in depth is
the in-plane contrast at distances from the central slice, relative to it, beside that which the geometry
alone gives; of masses that are there to be seen (`imaged` above .03).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from dbtbench.geometry.resample import area_mean
from dbtbench.geometry.views import laterality, projection
from dbtbench.phantom.acquisition import Geometry
from dbtbench.phantom.anatomy import Outline
from dbtbench.phantom.cohort import VIEWS, Patient, draw_patients
from dbtbench.phantom.lesions import locate
from dbtbench.phantom.reconstruction import FLOOR, WINDOW, ramp
from dbtbench.phantom.simulation import PRESETS, Preset, box_of, simulate

Image = NDArray[np.float64]

GRIDS = {
    "tiny": ("tiny", (8, 64, 64)),
    "middle": ("small", (8, 128, 128)),
    "small": ("small", (32, 160, 128)),
}
"""The preset, and the grid of the data set that is made of it."""
CHANNELS_MM = (1.5, 3.0, 6.0, 12.0)
"""Standard deviation of the inner Gaussian; the outer one is 1.67 times wider."""
NEAR_MM, SKIN_MM = 40.0, 5.0
"""Radius of the surroundings, and the distance from the skin that they keep."""
SATURATED = 0.2
SHOWN = 0.03
MEDIAN = 3.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DISTANCES_MM = (0.0, 5.0, 10.0, 15.0, 20.0)


def measure(name: str, lesions: int, seed: int, conspicuity: float | None) -> pd.DataFrame:
    """Measure the lesions of a cohort, in one view each.

    Args:
        name: of `GRIDS`.
        lesions: how many.
        seed: of the cohort.
        conspicuity: factor on their density; the preset's own when None.

    Returns:
        One row per lesion: kind, size_mm, contrast, density (of the breast), d, imaged (mean difference in
        the middle half of the box, in shares of the window), saturated, `depth` and `analytic`: the contrast
        at `DISTANCES_MM`, relative to the centre, as imaged (NaN outside the breast) and by the geometry.
    """
    preset, grid = PRESETS[GRIDS[name][0]], GRIDS[name][1]
    if conspicuity is not None:
        preset = replace(preset, conspicuity=conspicuity)
    cohort = draw_patients(lesions, seed, {"benign": 1, "cancer": 1})
    return pd.DataFrame([measure_lesion(patient, preset, grid, seed) for patient in cohort])


def measure_lesion(patient: Patient, preset: Preset, grid: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Simulate one view of a patient with and without her lesion, and measure it: a row of `measure`."""
    lesion = patient.lesion
    assert lesion is not None
    view = next(v for v in VIEWS[patient.number % 2 :: 2] if laterality(v) == patient.side)
    breast, kind = patient.breasts[patient.side], projection(view)
    seeds = [seed, patient.number, VIEWS.index(view) + 1]
    clear, shown = (_display(simulate(preset, breast, view, one, seeds), grid) for one in (None, lesion))
    box, place = box_of(preset, breast, view, lesion), locate(lesion, breast, kind, Outline(breast, kind))
    scale = np.array(grid[1:]) / preset.shape[1:]
    centre = np.array([box.y + box.height / 2, box.x + box.width / 2]) * scale
    half = np.array([box.height, box.width]) / 2 * scale
    thickness = breast.thickness(kind)
    step = thickness / grid[0]
    level = place.centre[0] / step + grid[0] / 2
    middle = min(int(level), grid[0] - 1)
    y, x = np.indices(grid[1:]) + 0.5
    core = np.hypot((y - centre[0]) / half[0], (x - centre[1]) / half[1]) <= 0.5
    core[_voxel(centre, core)] = True
    difference = shown - clear
    profile = difference[:, core].mean(axis=1)
    heights = (np.arange(grid[0]) + 0.5 - level) * step
    return {
        "kind": lesion.kind,
        "size_mm": lesion.size,
        "contrast": lesion.contrast * preset.conspicuity,
        "density": breast.density,
        "d": compute_detectability(difference[middle], clear[middle], centre, np.array(preset.pixel) / scale),
        "imaged": float(profile[middle]),
        "saturated": bool((shown[middle][core] > 0.999).mean() >= SATURATED),
        "depth": _average_sides(np.asarray(heights), profile) / profile[middle],
        "analytic": compute_spread(place.half, thickness, DISTANCES_MM),
    }


def _average_sides(heights: Image, profile: Image) -> Image:
    """Average a profile at `DISTANCES_MM` above and below the centre, where there is breast."""
    sides = [
        np.interp(sign * np.array(DISTANCES_MM), heights, profile, left=np.nan, right=np.nan)
        for sign in (-1, 1)
    ]
    there = np.isfinite(sides)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, sides, 0).sum(axis=0) / there.sum(axis=0))


def compute_detectability(signal: Image, clear: Image, centre: Image, pixel: Image) -> float:
    """Compute d′ of the best of four differences of Gaussians at the lesion's centre.

    Args:
        signal: (rows, columns), the lesion's image.
        clear: the same slice without the lesion; 0 in air.
        centre: row and column of the lesion's centre.
        pixel: mm along rows and columns.

    Returns:
        NaN where the surroundings have fewer than 16 pixels.
    """
    y, x = np.indices(signal.shape) + 0.5
    near = np.hypot((y - centre[0]) * pixel[0], (x - centre[1]) * pixel[1]) <= NEAR_MM
    # The chest wall, at the first or the last column, is no skin.
    padded = np.pad(clear > 0.02, ((0, 0), (1, 1)), mode="edge")
    around = near & (distance_transform_edt(padded, sampling=pixel)[:, 1:-1] > SKIN_MM)
    if around.sum() < 16:
        return float("nan")
    answers = []
    for sigma in CHANNELS_MM:
        lesion, breast = (
            gaussian_filter(image, sigma / pixel) - gaussian_filter(image, 1.67 * sigma / pixel)
            for image in (signal, clear)
        )
        answers.append(lesion[_voxel(centre, signal)] / breast[around].std())
    return float(max(answers))


def compute_spread(half: Sequence[float], thickness: float, distances: Sequence[float]) -> Image:
    """Compute how an ellipsoid's contrast at its centre falls off in depth by the geometry alone.

    Every view shows the ellipsoid's chords along its rays, the ramp filters them along the tube's path, and
    the slice at a distance d averages the views, each shifted by d · tan(angle).

    Args:
        half: half extents z, y, x in mm.
        thickness: of the breast, on which the ramp depends.
        distances: mm from the centre.

    Returns:
        For each distance the contrast relative to the centre's.
    """
    geometry, step = Geometry(), 0.25
    y = (np.arange(4096) - 2048) * step
    chords = np.sqrt(np.clip(1 - (y / half[1]) ** 2, 0, None))
    filtered = ramp(chords[None, :, None], thickness, step, geometry, FLOOR)[0, :, 0]
    angles = np.deg2rad(np.linspace(-geometry.arc / 2, geometry.arc / 2, geometry.views))
    at = [np.interp(d * np.tan(angles), y, filtered).mean() for d in (0.0, *distances)]
    return np.asarray(np.array(at[1:]) / at[0])


def _voxel(centre: Image, image: NDArray[Any]) -> tuple[int, int]:
    row, column = np.minimum(centre.astype(int), np.array(image.shape) - 1)
    return int(row), int(column)


def _display(frames: NDArray[np.uint16], grid: tuple[int, int, int]) -> Image:
    """Apply the window and resample to a grid."""
    shown = ((frames - WINDOW[0]) / WINDOW[1] + 0.5).clip(0, 1).astype(np.float32)
    return area_mean(shown, frames.shape, grid).astype(np.float64)


def describe(name: str, table: pd.DataFrame, conspicuity: float) -> str:
    """Write the measures of a grid as text."""
    wanted = conspicuity * MEDIAN / table["d"].median()
    lines = [f"{name}, conspicuity {conspicuity:g}; {wanted:.2f} would give a median d' of {MEDIAN:g}"]
    lines.append(f"{'':<12}{'n':>4}  d' {QUANTILES}{'':8}imaged (same){'':10}saturated")
    for kind, rows in [("all", table), *table.groupby("kind"), *table.groupby("density")]:
        d, imaged = (" ".join(f"{v:6.2f}" for v in rows[key].quantile(QUANTILES)) for key in ("d", "imaged"))
        lines.append(f"{kind:<12}{len(rows):>4}  {d}   {imaged}   {rows['saturated'].mean():.2f}")
    edges = 2.0 ** np.arange(-2, 5)
    counts = np.histogram(table["d"].clip(edges[0], edges[-1] - 1e-9), edges)[0]
    lines.append("d' from " + ", ".join(f"{e:g}: {n}" for e, n in zip(edges, counts, strict=False)))
    masses = table[(table["kind"] == "mass") & (table["imaged"] > SHOWN)]
    for key in ("depth", "analytic") if len(masses) else ():
        medians = np.nanmedian(np.stack(list(masses[key])), axis=0)
        at = " ".join(f"{d:g}: {m:.2f}" for d, m in zip(DISTANCES_MM, medians, strict=True))
        lines.append(f"{key:<9}by mm from the centre, {len(masses)} masses: {at}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grids", nargs="*", default=[*GRIDS], metavar="|".join(GRIDS))
    parser.add_argument("--lesions", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conspicuity", type=float)
    asked = parser.parse_args()
    for name in asked.grids:
        own = PRESETS[GRIDS[name][0]].conspicuity
        table = measure(name, asked.lesions, asked.seed, asked.conspicuity)
        used = own if asked.conspicuity is None else asked.conspicuity
        sys.stdout.write(describe(name, table, used) + "\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
