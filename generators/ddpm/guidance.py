"""Choice of the guidance scale by the training lesions: drawn lesions get the same contrast.

Only training volumes decide. Contrast is that of the realism task in the lesion's centre slice, against its
surroundings in the plane (`dbtbench.metrics.contrast.lesion_profiles`). Most of how it varies is the breast's
own texture. So on both sides the contrast at the same places without a lesion is subtracted: for drawn
lesions, of volumes from the same noise without boxes, or of the host in which they lie; for training lesions,
of lesion-free training volumes.
What is left grows almost linearly with the scale, so that it is interpolated between two measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Layout
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.layouts import Hosts
from dbtbench.metrics.contrast import Values, lesion_profiles
from dbtbench.metrics.mask import breast_mask
from dbtbench.runs import Run
from dbtbench.runtime.files import read_json, write_json
from dbtbench.runtime.progress import log, progress

if TYPE_CHECKING:
    from . import DDPM

FILE = "guidance.json"
SCALES = (1.0, 2.0, 3.0, 5.0)
"""Scales at which lesions are drawn, in this order, until they have the contrast of the training lesions."""
DRAWN = 32
"""Volumes that are drawn at each scale: the same layouts and noise."""
REAL = 256
"""Most training volumes of each kind, with lesions and without, that are measured."""
PLACES = 16
"""Most training lesions at whose places each lesion-free volume is measured."""


@dataclass(frozen=True)
class Choice:
    """A guidance scale, and what it was chosen by.

    Attributes:
        scale: the guidance scale.
        wanted: what the training lesions add to the contrast of their places, on average, in intensity; None
            where none can be measured.
        measured: (scale, the same of lesions drawn with it), by scale; None likewise.
    """

    scale: float
    wanted: float | None
    measured: tuple[tuple[float, float | None], ...] = ()

    def __str__(self) -> str:
        if self.wanted is None:
            return f"guidance scale {self.scale:g}: no training lesion has a contrast that can be measured"
        found = ", ".join(f"{_format(contrast)} at {scale:g}" for scale, contrast in self.measured)
        if self.reached:
            return (
                f"guidance scale {self.scale:g}: lesions get the contrast of the training lesions, "
                f"{self.wanted:.3f} ({found})"
            )
        return (
            f"guidance scale {self.scale:g}, the nearest: none from {SCALES[0]:g} to {SCALES[-1]:g} gives "
            f"lesions the contrast of the training lesions, {self.wanted:.3f} ({found})"
        )

    @property
    def reached(self) -> bool:
        """Whether the wanted contrast lies between those that were measured."""
        contrasts = [contrast for _, contrast in self.measured if contrast is not None]
        return self.wanted is not None and bool(contrasts) and min(contrasts) <= self.wanted <= max(contrasts)

    def describe(self) -> dict[str, Any]:
        """Describe it as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Choice:
        """Read what `describe` gave."""
        measured = tuple((scale, contrast) for scale, contrast in said["measured"])
        return cls(said["scale"], said["wanted"], measured)


def find_scale(generator: DDPM, train: DBTDataset, run: Run) -> float:
    """Find the scale that was chosen with the recipe's settings of sampling, or choose it now.

    Args:
        generator: a generator with its trained model.
        train: the training split; read only if there is something to choose.
        run: keeps the choice in `guidance.json`, unless it is finished.
    """
    recipe, file = generator.recipe, run.path / FILE
    others = {"guidance_scale"} | ({"background"} if recipe.background == "drawn" else set())
    others |= {"start_at"} if recipe.start_at == 1 else set()
    settings = recipe.model_dump(mode="json", include=set(recipe.sampling_only) - others)
    said = read_json(file) if file.is_file() else {}
    if said.get("settings") == settings:
        choice = Choice.read(said["choice"])
    else:
        choice = choose_scale(_Drawn(generator, train).measure, measure_training(train))
        if not run.finished:
            write_json(file, {"settings": settings, "choice": choice.describe()})
    log.info(f"ddpm: {choice}")
    return choice.scale


class _Drawn:
    """Lesions that are drawn where those of training volumes are, always from the same noise.

    Args:
        generator: with its trained model.
        train: the training split.
    """

    def __init__(self, generator: DDPM, train: DBTDataset) -> None:
        self.generator, self.layouts = generator, make_layouts(train, generator.recipe.seed)

    @cached_property
    def without(self) -> Values:
        """Contrast at the places of the layouts' lesions in volumes without any, for each layout."""
        if inpainting := self.generator.inpainting:
            canvases = [inpainting.prepare(layout) for layout in self.layouts]
            return np.array([measure_contrasts(one.background, [one.lesions])[0] for one in canvases])
        empty = np.empty((0, 6), np.float32)
        return self._draw(1.0, [replace(layout, boxes=empty) for layout in self.layouts], "no lesions")

    def measure(self, scale: float) -> float | None:
        """Measure what lesions drawn with a scale add to the contrast of their places, on average."""
        drawn = self._draw(scale, self.layouts, f"lesions at guidance scale {scale:g}")
        return _mean(drawn - self.without)

    def _draw(self, scale: float, layouts: Sequence[Layout], title: str) -> Values:
        recipe = self.generator.recipe.model_copy(update={"guidance_scale": scale})
        guided = type(self.generator)(recipe)
        guided.grid, guided.model = self.generator.grid, self.generator.model
        guided.inpainting = self.generator.inpainting
        contrasts = []
        with progress(f"ddpm: {title}", len(layouts)) as advance:
            for sample, layout in zip(guided.sample(layouts), self.layouts, strict=True):
                places = sample.boxes if guided.inpainting else layout.boxes
                contrasts += measure_contrasts(sample.volume, [places])
                advance()
        return np.array(contrasts)


def choose_scale(measure: Callable[[float], float | None], wanted: float | None) -> Choice:
    """Choose the scale at which lesions have a contrast, by linear interpolation.

    Args:
        measure: the contrast of lesions drawn with a scale; None where none can be measured.
        wanted: the contrast; None for no guidance.

    Returns:
        The choice, its scale rounded to 0.01. Where no scale gives the contrast, the measured one that comes
        nearest to it.
    """
    if wanted is None:
        return Choice(SCALES[0], None)
    measured: list[tuple[float, float | None]] = []
    for scale in SCALES:
        contrast = measure(scale)
        measured.append((scale, contrast))
        if contrast is None or contrast < wanted:
            continue
        low, before = measured[-2] if len(measured) > 1 else (scale, None)
        if before is not None:
            scale = low + (wanted - before) / (contrast - before) * (scale - low)
        return Choice(round(scale, 2), wanted, tuple(measured))
    found = [(abs(contrast - wanted), scale) for scale, contrast in measured if contrast is not None]
    return Choice(min(found, default=(0.0, SCALES[0]))[1], wanted, tuple(measured))


def measure_contrasts(volume: Volume, places: Sequence[Boxes]) -> list[float]:
    """Measure contrast in the centre slices of boxes.

    Args:
        volume: (D, H, W) in [0, 1].
        places: several times (n, 6) boxes, each measured as if the others were not there.

    Returns:
        For each the mean over its boxes; NaN where it is not defined in any.
    """
    batch = volume[None, None]
    inside = breast_mask(batch)
    found = [_mean(lesion_profiles(batch, inside, [boxes])[0][:, 0]) for boxes in places]
    return [float("nan") if contrast is None else contrast for contrast in found]


def measure_training(train: DBTDataset) -> float | None:
    """Measure what training lesions add to the contrast of their places, on average.

    Lesion-free volumes are measured at the places of lesions in others of the same view. Without any of the
    same view nothing is subtracted.
    """
    cases, positive = train.cases, train.positive
    lesions: dict[str, list[Boxes]] = {}
    there: list[float] = []
    for case, view in cases.loc[positive, ["case", "View"]].to_numpy().tolist()[:REAL]:
        boxes = train.boxes_of(case)
        lesions.setdefault(view, []).append(boxes)
        there += measure_contrasts(train.volumes([case])[0, 0], [boxes])
    free: list[float] = []
    for number, (case, view) in enumerate(cases.loc[~positive, ["case", "View"]].to_numpy().tolist()[:REAL]):
        places = lesions.get(view, [])
        chosen = [places[(number + turn) % len(places)] for turn in range(min(PLACES, len(places)))]
        free += measure_contrasts(train.volumes([case])[0, 0], chosen) if chosen else []
    with_lesion, without = _mean(np.array(there)), _mean(np.array(free))
    return None if with_lesion is None else with_lesion - (without or 0.0)


def make_layouts(train: DBTDataset, seed: int) -> list[Layout]:
    """Make `DRAWN` layouts of training cases with lesions, each as often as the others or once more."""
    rng, hosts = np.random.default_rng(seed), Hosts(train)
    cases = train.cases[train.positive]
    rows = [row for _, row in cases.iloc[rng.permutation(len(cases))].iterrows()]
    return [
        Layout(
            index=index,
            seed=int(rng.integers(2**32)),
            label=str(row["label"]),
            view=str(row["View"]),
            boxes=train.boxes_of(row["case"]),
            source=int(row["case"]),
            host=hosts.draw(str(row["View"]), str(row["PatientID"]), np.random.default_rng([seed, index])),
        )
        for index in range(DRAWN if rows else 0)
        for row in [rows[index % len(rows)]]
    ]


def _mean(contrasts: Values) -> float | None:
    """Average what is defined; None where nothing is."""
    defined = contrasts[np.isfinite(contrasts)]
    return float(defined.mean()) if defined.size else None


def _format(contrast: float | None) -> str:
    return "none" if contrast is None else f"{contrast:.3f}"
