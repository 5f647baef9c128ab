"""Scores of realism: functions of rows of tables of measured volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dbtbench.metrics import contrast, histogram
from dbtbench.metrics.fidelity import fidelity_and_coverage
from dbtbench.metrics.spectrum import BANDS
from dbtbench.metrics.two_sample import c2st_auc, frechet_distance, kid, standardise

from .table import Table

Scores = dict[str, float]
SMALLEST = 8
"""Volumes of either side that a comparison of sets needs: fewer have no neighbours."""
ENOUGH = 16
"""Volumes of either side that a place on the floor needs: half of them are enough for a comparison."""
PLAIN = ("rms_contrast", "rms_contrast_breast", "percentile_range", "michelson_breast")
CROPS = ("precision", "recall", "coverage", "kid", "frechet")
TEXTURE = ("roughness", "beta", "anisotropy", "coherence")


@dataclass(frozen=True)
class Sides:
    """The tables of one comparison.

    Attributes:
        own: the volumes that are judged.
        reference: real volumes.
        fitted: real volumes whose lesions the judged ones are compared with.
    """

    own: Table
    reference: Table
    fitted: Table

    def take(self, own: ArrayLike, reference: ArrayLike, fitted: ArrayLike | None = None) -> Sides:
        """Take rows of each; all of `fitted` when None."""
        lesions = self.fitted if fitted is None else self.fitted.take(fitted)
        return Sides(self.own.take(own), self.reference.take(reference), lesions)


def score(sides: Sides) -> Scores:
    """Compute every metric that is placed on the floor."""
    return (
        score_intensities(sides)
        | score_texture(sides)
        | score_sets(sides)
        | score_planes(sides)
        | score_properties(sides)
        | score_lesions(sides)
    )


def score_simple(sides: Sides) -> Scores:
    """Compute what few volumes can give: distances of intensities, and texture."""
    return score_intensities(sides) | score_texture(sides)


def score_intensities(sides: Sides) -> Scores:
    """Compute Wasserstein distances of intensities to the reference."""
    pairs = {
        name: [side.counts[name].sum(axis=0) for side in (sides.own, sides.reference)]
        for name in ("whole", "breast")
    }
    return {
        "w1_intensity": histogram.wasserstein(*pairs["whole"]),
        "w1_breast": histogram.wasserstein(*pairs["breast"]),
    }


def score_texture(sides: Sides) -> Scores:
    """Compute mean texture, and power by band as a ratio of geometric means."""
    own, real = _mean(sides.own.texture), _mean(sides.reference.texture)
    return {
        "roughness": own["roughness"],
        **{f"power_{name}": float(np.exp(own[f"power_{name}"] - real[f"power_{name}"])) for name in BANDS},
        **{name: own[name] for name in TEXTURE[1:]},
    }


def score_sets(sides: Sides) -> Scores:
    """Compare the sets by their features, and volumes with each other; NaN with fewer than 8 on a side."""
    own, real = sides.own, sides.reference
    if min(len(own), len(real)) < SMALLEST:
        x, y = np.empty((0, 1)), np.empty((0, 1))
    else:
        x, y = standardise(own.features, real.features)
    alike = own.pairs[:, 2]
    return {
        "ms_ssim": float(alike.mean()) if len(own) >= SMALLEST and len(alike) else float("nan"),
        "c2st_auc": c2st_auc(x, y, own.patients[: len(x)], real.patients[: len(y)]),
        **fidelity_and_coverage(x, y),
        "kid": kid(x, y),
        "frechet": frechet_distance(x, y),
    }


def score_planes(sides: Sides) -> Scores:
    """Compare the sets by features of planes; NaN where they are not measured, or of fewer than 8 volumes."""
    own, real = sides.own.planes, sides.reference.planes
    if not min(own.shape[1], real.shape[1]) or min(len(own), len(real)) < SMALLEST:
        return {"kid_imagenet": float("nan"), "frechet_imagenet": float("nan")}
    x, y = standardise(own, real)
    return {"kid_imagenet": kid(x, y), "frechet_imagenet": frechet_distance(x, y)}


def score_properties(sides: Sides) -> Scores:
    """Compute properties of the judged volumes alone."""
    own = sides.own
    whole, breast = own.counts["whole"].sum(axis=0), own.counts["breast"].sum(axis=0)
    means = _mean(own.texture)
    return {
        "air_mode_mass": histogram.air_mode_mass(whole),
        "volume_mean_sd": float(own.texture["mean"].std(ddof=0)),
        "bimodality_coefficient_whole": histogram.bimodality_coefficient(whole),
        "valley_depth_whole": histogram.valley_depth(whole),
        "bimodality_coefficient_breast": histogram.bimodality_coefficient(breast),
        "valley_depth_breast": histogram.valley_depth(breast),
        "main_mode_breast": float(next(iter(histogram.modes(breast)), np.nan)),
        **{name: means[name] for name in PLAIN},
    }


def score_slow(sides: Sides) -> Scores:
    """Compute what takes too long for two hundred draws."""
    scores: Scores = {}
    for place, counts in sides.own.counts.items():
        total = counts.sum(axis=0)
        scores |= {f"dip_{place}": histogram.dip(total), f"ashman_d_{place}": histogram.ashman_d(total)}
    return scores


def score_lesions(sides: Sides) -> Scores:
    """Compute contrast of the judged lesions, and its distance to that of the fitted ones."""
    own, fitted = sides.own.lesions, sides.fitted.lesions
    depth, radius = (
        contrast.profile_distance(
            own.filter(regex=f"^{name}").to_numpy(), fitted.filter(regex=f"^{name}").to_numpy()
        )
        for name in ("depth", "radius")
    )
    return {
        "lesion_cnr": float(own["cnr"].mean()),
        "lesion_contrast": float(own["depth0"].mean()),
        "lesion_depth_distance": depth,
        "lesion_radius_distance": radius,
        **score_crops(own, fitted),
    }


def score_crops(own: pd.DataFrame, fitted: pd.DataFrame) -> Scores:
    """Compare sets of lesions by the features of their crops; NaN with fewer than 8 on a side."""
    x, y = (table.filter(like="crop_").to_numpy(np.float64) for table in (own, fitted))
    if min(len(x), len(y)) < SMALLEST:
        x, y = np.empty((0, 1)), np.empty((0, 1))
    else:
        x, y = standardise(x, y)
    found = fidelity_and_coverage(x, y) | {"kid": kid(x, y), "frechet": frechet_distance(x, y)}
    return {f"lesion_{name}": found[name] for name in CROPS}


def _mean(table: pd.DataFrame) -> dict[str, float]:
    """Average columns; pandas leaves NaN out of a mean, and the mean of nothing is NaN."""
    return {str(name): float(value) for name, value in table.mean().items()}
