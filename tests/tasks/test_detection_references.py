"""References find what they claim to find, and nothing that training would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.runs import Run
from dbtbench.task import REFERENCES, Arm
from dbtbench.tasks.detection import Detection, DetectionRecipe
from dbtbench.tasks.detection.references import find_blobs, guess

SIDES = np.array([[2, 8, 8], [3, 12, 12]], np.float32)
CENTRES = ((2, 20, 14), (5, 44, 30))


def breast(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tissue with noise beside black air, and two bright lesions in it."""
    inside = np.zeros((8, 64, 64), bool)
    inside[:, 4:60, :44] = True
    volume = np.where(inside, 0.4 + 0.02 * np.random.default_rng(seed).standard_normal(inside.shape), 0)
    z, y, x = np.indices(inside.shape)
    for cz, cy, cx in CENTRES:
        volume += np.where((abs(z - cz) < 2) & (np.hypot(y - cy, x - cx) < 3), 0.2, 0)
    return volume.astype(np.float32), inside


def test_the_brightest_blobs_are_found_first_and_the_skin_is_none() -> None:
    volume, inside = breast()
    boxes, scores = find_blobs(volume, inside, SIDES, 20)
    centres = (boxes[:, :3] + boxes[:, 3:]) / 2
    for centre in CENTRES:
        distance = np.abs(centres[:2] - 0.5 - centre)
        assert (distance.max(axis=1) <= 2).any()
    assert (np.diff(scores) <= 0).all()
    assert scores[2] < scores[1] - 0.2
    flat = np.where(inside, np.float32(0.4), np.float32(0))
    assert find_blobs(flat, inside, SIDES, 20)[1].size == 0


def test_guesses_lie_in_the_breast_and_follow_their_seed() -> None:
    _, inside = breast()
    boxes, scores = guess(inside, SIDES, 500, (3,))
    places = ((boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5).round().astype(int)
    assert inside[tuple(places.T)].all()
    assert len(np.unique(places, axis=0)) == 500
    assert (np.diff(scores) <= 0).all()
    assert np.array_equal(guess(inside, SIDES, 500, (3,))[0], boxes)
    assert not np.array_equal(guess(inside, SIDES, 500, (4,))[0], boxes)
    assert places.mean(axis=0) == pytest.approx([3.5, 31.5, 21.5], abs=2)


def test_without_a_breast_nothing_is_found() -> None:
    empty = np.zeros((8, 64, 64), bool)
    for boxes, scores in (guess(empty, SIDES, 5, (0,)), find_blobs(breast()[0], empty, SIDES, 5)):
        assert (boxes.shape, scores.shape) == ((0, 6), (0,))


def test_no_reference_trains_and_only_the_filter_finds_bright_lesions(
    toy: DBTDataset, tmp_path: Path
) -> None:
    scores = {}
    for name in REFERENCES:
        arm = Arm(name, toy, toy.take(np.zeros(len(toy), bool)), reference=name)
        run = Run(tmp_path / name, {})
        evaluation = Detection(DetectionRecipe(channels=8)).evaluate(arm, 0, run)
        scores[name] = evaluation.scores["mean_sensitivity_low"]
        assert not (run.path / "weights.safetensors").exists()
    assert scores["blob"] > 0.8 > max(scores["chance"], scores["untrained"])
