"""Metrics of realism: how they are called, which way is better, and which ones are placed on the floor."""

from __future__ import annotations

import math

from dbtbench.metric import Metric
from dbtbench.metrics.spectrum import BANDS

INTENSITY = "intensity"
"""Unit of grey values: 1 is the whole window."""

DISTANCES = (
    Metric(
        "w1_intensity",
        "W1 of intensities",
        "lower",
        INTENSITY,
        2,
        headline=True,
        distance=True,
        criterion="congruence",
    ),
    Metric("w1_breast", "W1 in the breast", "lower", INTENSITY, 2, distance=True, criterion="congruence"),
)

TEXTURE = (
    Metric(
        "roughness", "slice-to-slice roughness", "target", INTENSITY, headline=True, criterion="congruence"
    ),
    *(
        Metric(f"power_{name}", f"power, {name}", "target", "of the reference", headline=name == "finest")
        for name in BANDS
    ),
    Metric("beta", "spectral slope β", "target", criterion="congruence"),
    Metric("anisotropy", "anisotropy", "target"),
    Metric("coherence", "coherence", "target"),
)

SETS = (
    Metric("ms_ssim", "MS-SSIM between volumes", "target", criterion="coverage"),
    Metric("c2st_auc", "C2ST AUC", "lower", headline=True, distance=True, criterion="congruence"),
    Metric("precision", "precision", "higher", criterion="congruence"),
    Metric("recall", "recall", "higher", criterion="coverage"),
    Metric("density", "density", "higher", criterion="congruence"),
    Metric("coverage", "coverage", "higher", criterion="coverage"),
    Metric("clipped_density", "clipped density", "higher", criterion="congruence"),
    Metric("clipped_coverage", "clipped coverage", "higher", criterion="coverage"),
    Metric("kid", "KID of texture features", "lower", distance=True, criterion="congruence"),
    Metric("frechet", "Fréchet distance of texture features", "lower", distance=True),
)
"""Fréchet's is shown and ranks nothing: it is biased by the number of volumes."""

PROPERTIES = (
    Metric("air_mode_mass", "mass of the air mode", "target", "of voxels", 2),
    Metric("volume_mean_sd", "sd of the volume mean", "target", INTENSITY, 2),
    Metric("bimodality_coefficient_whole", "bimodality coefficient", "target", version=2),
    Metric("valley_depth_whole", "valley depth", "target", version=2),
    Metric("bimodality_coefficient_breast", "bimodality coefficient in the breast", "target", version=2),
    Metric("valley_depth_breast", "valley depth in the breast", "target", version=2),
    Metric("main_mode_breast", "main mode in the breast", "target", INTENSITY, 2),
    Metric("rms_contrast", "RMS contrast", "target", INTENSITY, 2),
    Metric("rms_contrast_breast", "RMS contrast in the breast", "target", INTENSITY, 2),
    Metric("percentile_range", "range of percentiles", "target", INTENSITY, 2),
    Metric("michelson_breast", "Michelson contrast in the breast", "target", version=2),
)

LESIONS = (
    Metric("lesion_cnr", "lesion CNR", "target", version=3, headline=True, criterion="congruence"),
    Metric("lesion_contrast", "contrast of lesions in the plane", "target", INTENSITY, 2),
    Metric("lesion_depth_distance", "distance of lesions in depth", "lower", INTENSITY, 3, distance=True),
    Metric("lesion_radius_distance", "distance of lesions in radius", "lower", INTENSITY, 3, distance=True),
    Metric("lesion_precision", "precision of lesion crops", "higher", criterion="congruence"),
    Metric("lesion_recall", "recall of lesion crops", "higher", criterion="coverage"),
    Metric("lesion_coverage", "coverage of lesion crops", "higher", criterion="coverage"),
    Metric("lesion_kid", "KID of lesion crops", "lower", distance=True, criterion="congruence"),
    Metric("lesion_frechet", "Fréchet distance of lesion crops", "lower", distance=True),
)
CROP_METRICS = LESIONS[-5:]
"""Of sets of lesions: both sides need as many as a comparison of sets of volumes."""

SLOW = (
    Metric("dip_whole", "dip", "target", version=2),
    Metric("ashman_d_whole", "Ashman's D", "target", version=2),
    Metric("dip_breast", "dip in the breast", "target", version=2),
    Metric("ashman_d_breast", "Ashman's D in the breast", "target", version=2),
)
"""Not placed on the floor: 400 fits of a mixture take minutes."""

TRAINED = (Metric("c2st_cnn", "C2ST AUC of a CNN", "lower", distance=True, criterion="congruence"),)
"""Trains networks: computed where the recipe asks for it, else NaN; its floor is of few draws."""

PLANES = (
    Metric("kid_imagenet", "KID of ImageNet features", "lower", distance=True, criterion="congruence"),
    Metric("frechet_imagenet", "Fréchet distance of ImageNet features", "lower", distance=True),
)
"""Of features of a network of the extra `features`: computed where the recipe asks for them, else NaN."""

OPTIONAL = (*TRAINED, *PLANES)

METRICS = (*DISTANCES, *TEXTURE, *SETS, *PROPERTIES, *LESIONS, *SLOW, *OPTIONAL)

SHARES = {
    *("precision", "recall", "coverage", "clipped_density", "clipped_coverage", "c2st_auc", "c2st_cnn"),
    *("lesion_precision", "lesion_recall", "lesion_coverage"),
}
UNBOUNDED = {"kid", "kid_imagenet", "beta", "anisotropy", "lesion_cnr", "lesion_contrast", "lesion_kid"}


def find_bounds(name: str) -> tuple[float, float]:
    """Find the smallest and the largest value that a metric can have, where its interval ends."""
    low = -math.inf if name in UNBOUNDED else 0.0
    return low, 1.0 if name in SHARES else math.inf
