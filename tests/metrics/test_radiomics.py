"""Radiomic features against those of an independent implementation, and against IBSI's published values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dbtbench.metrics.radiomics import Features, first_order, glcm, glrlm, radiomics

ANSWERS = Path(__file__).parents[1] / "oracles" / "radiomics" / "answers.json"
"""What MIRP 2.7.0 answered; `ask_mirp.py` beside it asks."""
MIRP = {
    "firstorder": {
        **{"mean": "mean", "variance": "var", "skewness": "skew", "excess_kurtosis": "kurt"},
        **{"median": "median", "p10": "p10", "p90": "p90", "iqr": "iqr", "mad": "mad"},
        **{"robust_mad": "rmad", "rms": "rms"},
    },
    "glcm": {
        **{"joint_maximum": "joint_max", "joint_average": "joint_avg", "joint_variance": "joint_var"},
        **{"joint_entropy": "joint_entr", "difference_average": "diff_avg"},
        **{"difference_variance": "diff_var", "difference_entropy": "diff_entr", "sum_average": "sum_avg"},
        **{"sum_variance": "sum_var", "sum_entropy": "sum_entr", "angular_second_moment": "energy"},
        **{"contrast": "contrast", "dissimilarity": "dissimilarity", "inverse_difference": "inv_diff"},
        **{"normalised_inverse_difference": "inv_diff_norm", "inverse_difference_moment": "inv_diff_mom"},
        **{"normalised_inverse_difference_moment": "inv_diff_mom_norm", "inverse_variance": "inv_var"},
        **{"correlation": "corr", "autocorrelation": "auto_corr", "cluster_tendency": "clust_tend"},
        **{"cluster_shade": "clust_shade", "cluster_prominence": "clust_prom"},
        **{"information_correlation_1": "info_corr1", "information_correlation_2": "info_corr2"},
    },
    "glrlm": {
        **{"short_runs_emphasis": "sre", "long_runs_emphasis": "lre", "low_grey_level_emphasis": "lgre"},
        **{"high_grey_level_emphasis": "hgre", "short_low_emphasis": "srlge", "short_high_emphasis": "srhge"},
        **{"long_low_emphasis": "lrlge", "long_high_emphasis": "lrhge"},
        **{"grey_level_non_uniformity": "glnu", "normalised_grey_level_non_uniformity": "glnu_norm"},
        **{"run_length_non_uniformity": "rlnu", "normalised_run_length_non_uniformity": "rlnu_norm"},
        **{"run_percentage": "r_perc", "grey_level_variance": "gl_var", "run_length_variance": "rl_var"},
        **{"run_entropy": "rl_entr"},
    },
}
PATTERNS = {"firstorder": "stat_{}", "glcm": "cm_{}_d1_2.5d_v_mrg", "glrlm": "rlm_{}_2.5d_v_mrg"}


def measure(levels: list[list[list[int]]]) -> Features:
    array = np.array(levels)
    inside = array[array > 0]
    return first_order(inside.astype(float), inside) | glcm(array, int(array.max())) | glrlm(array)


@pytest.mark.parametrize("image", ["phantom", "noise"])
def test_every_feature_is_that_of_mirp(image: str) -> None:
    asked = json.loads(ANSWERS.read_text(encoding="utf-8"))[image]
    found = measure(asked["levels"])
    for family, names in MIRP.items():
        for name, theirs in names.items():
            answer = asked["features"][PATTERNS[family].format(theirs)]
            assert found[f"{family}_{name}"] == pytest.approx(answer, rel=1e-9), name
    compared = {f"{family}_{name}" for family, names in MIRP.items() for name in names}
    assert found.keys() - compared == {"firstorder_entropy", "firstorder_uniformity"}


def test_the_digital_phantom_has_the_published_values() -> None:
    found = measure(json.loads(ANSWERS.read_text(encoding="utf-8"))["phantom"]["levels"])
    published = {
        **{"firstorder_mean": 2.15, "firstorder_variance": 3.05, "firstorder_skewness": 1.08},
        **{"firstorder_excess_kurtosis": -0.355, "firstorder_mad": 1.55, "firstorder_rms": 2.77},
        **{"firstorder_entropy": 1.27, "firstorder_uniformity": 0.512},
    }
    for name, value in published.items():
        assert found[name] == pytest.approx(value, rel=0.005), name


def test_an_empty_or_flat_breast_has_no_texture_and_does_not_fail() -> None:
    volumes = np.full((2, 1, 3, 8, 8), 0.5, np.float32)
    inside = np.zeros(volumes.shape, bool)
    inside[1] = True
    found = radiomics(volumes, inside)
    assert all(np.isnan(values[0]) for values in found.values())
    assert found["firstorder_mean"][1] == 0.5
    assert found["glcm_contrast"][1] == 0
    assert np.isnan(found["glcm_correlation"][1])
    assert np.isfinite(found["glrlm_long_runs_emphasis"][1])
