"""Pure functions: arrays or tables in, numbers out.

Those that measure volumes, or compare two sets of them, can be called from here:

>>> from dbtbench import metrics
>>> train, test = dataset.select("train").volumes(), dataset.select("test").volumes()
>>> round(metrics.w1_intensity(train, test), 4) < 0.01
True
"""

from typing import TYPE_CHECKING

from dbtbench.runtime.lazy import offer_lazily

__all__ = [
    "breast_mask",
    "classification_scores",
    "lesion_cnr",
    "lesion_profiles",
    "michelson_contrast",
    "percentile_range",
    "rms_contrast",
    "score_afroc",
    "score_dbtex",
    "w1_breast",
    "w1_intensity",
]

__getattr__, __dir__ = offer_lazily(
    __name__,
    {
        "breast_mask": "dbtbench.metrics.mask:breast_mask",
        "classification_scores": "dbtbench.metrics.classification:classification_scores",
        "lesion_cnr": "dbtbench.metrics.contrast:lesion_cnr",
        "lesion_profiles": "dbtbench.metrics.contrast:lesion_profiles",
        "michelson_contrast": "dbtbench.metrics.contrast:michelson_contrast",
        "percentile_range": "dbtbench.metrics.contrast:percentile_range",
        "rms_contrast": "dbtbench.metrics.contrast:rms_contrast",
        "score_afroc": "dbtbench.metrics.afroc:score_afroc",
        "score_dbtex": "dbtbench.metrics.froc:score_dbtex",
        "w1_breast": "dbtbench.metrics.arrays:w1_breast",
        "w1_intensity": "dbtbench.metrics.arrays:w1_intensity",
    },
)

if TYPE_CHECKING:
    from dbtbench.metrics.afroc import score_afroc
    from dbtbench.metrics.arrays import w1_breast, w1_intensity
    from dbtbench.metrics.classification import classification_scores
    from dbtbench.metrics.contrast import (
        lesion_cnr,
        lesion_profiles,
        michelson_contrast,
        percentile_range,
        rms_contrast,
    )
    from dbtbench.metrics.froc import score_dbtex
    from dbtbench.metrics.mask import breast_mask
