"""Answers of MIRP, an independent implementation of IBSI's features: `python ask_mirp.py > answers.json`.

MIRP (Zwanenburg and Löck, Journal of Open Source Software 9(99):6413, 2024) is installed for this alone, in
an environment of its own: `pip install mirp==2.7.0`.
"""

import json
import logging
import sys

import mirp
import numpy as np

PHANTOM = """
14411 14611 41641 44641
14411 11611 01311 44611
14400 11111 11011 11611
14400 11111 11111 11611
"""
"""IBSI's digital phantom: slices of 4 rows and 5 columns; 0 is outside."""


def phantom() -> np.ndarray:
    """(4, 4, 5) grey levels."""
    rows = [[int(digit) for digit in row] for row in PHANTOM.split()]
    levels: np.ndarray = np.array(rows).reshape(4, 4, 5)
    return levels


def noise() -> np.ndarray:
    """(5, 17, 12) grey levels from 1 to 32, smooth in the rows, with a hole and a blank slice."""
    rng = np.random.default_rng(7)
    field = np.cumsum(rng.normal(size=(5, 17, 12)), axis=2)
    levels: np.ndarray = 1 + np.floor(31.99 * (field - field.min()) / np.ptp(field)).astype(int)
    levels[1:3, 5:9, 3:8] = 0
    levels[:, :2] = 0
    levels[3] = 0
    return levels


def ask(levels: np.ndarray) -> dict[str, float]:
    """Ask for the features in the plane, all slices and directions merged."""
    found = mirp.extract_features(
        image=levels.astype(float),
        mask=(levels > 0).astype(int),
        image_modality="mr",
        base_feature_families=["stat", "cm", "rlm"],
        base_discretisation_method="none",
        by_slice=False,
        glcm_spatial_method="2.5d_volume_merge",
        glrlm_spatial_method="2.5d_volume_merge",
    )[0]
    kept = [name for name in found if name.startswith(("stat_", "cm_", "rlm_"))]
    return {name: float(found[name].iloc[0]) for name in kept}


if __name__ == "__main__":
    logging.disable()  # it logs to stdout
    made = {"phantom": phantom(), "noise": noise()}
    json.dump({k: {"levels": v.tolist(), "features": ask(v)} for k, v in made.items()}, sys.stdout)
    sys.stdout.write("\n")
