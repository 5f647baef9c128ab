"""C2ST by a CNN: patient-grouped, seeded, and better than chance at what is planted only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from dbtbench.geometry.views import Volume
from dbtbench.metrics.c2st_cnn import cut_windows, separate_by_cnn

N, GRID = 30, (4, 24, 24)


def draw(seed: int, n: int = N) -> Volume:
    noise = np.random.default_rng(seed).normal(size=(n, *GRID))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1, 1))
    return np.asarray(0.4 + 0.1 * smooth / smooth.std(), np.float32)


def separate(own: Volume, real: Volume, patients: int = N, seed: int = 0) -> pd.DataFrame:
    table = separate_by_cnn(own, real, np.arange(len(own)) % patients, np.arange(len(real)) % patients, seed)
    assert table is not None
    return table


def auc(table: pd.DataFrame) -> float:
    return float(roc_auc_score(table["positive"], table["Score"]))


def test_a_checkerboard_is_seen_and_two_sets_of_one_distribution_are_not_separated() -> None:
    real, board = draw(0), np.indices(GRID[1:]).sum(axis=0) % 2 * 2 - 1
    assert auc(separate((draw(1) + 0.03 * board).astype(np.float32), real)) > 0.9
    assert 0.25 < np.mean([auc(separate(draw(seed), real)) for seed in (2, 3)]) < 0.75


def test_the_same_seed_gives_the_same_scores_and_disturbs_no_global_state() -> None:
    import torch

    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = separate(draw(1), draw(0), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert separate(draw(1), draw(0), seed=3).equals(one)
    assert not separate(draw(1), draw(0), seed=4).equals(one)


def test_a_patients_volumes_do_not_give_each_other_away() -> None:
    """Every patient has a pattern of its own, in all volumes; the sets are of one distribution."""
    own, real = (np.repeat(draw(seed, 10), 3, axis=0) for seed in (0, 1))
    who = np.repeat(np.arange(10), 3)
    grouped = separate_by_cnn(own, real, who, who)
    mixed = separate_by_cnn(own, real, np.arange(N), np.arange(N))
    assert grouped is not None
    assert mixed is not None
    assert auc(grouped) < auc(mixed) - 0.1
    assert grouped["PatientID"].nunique() == 20  # a name in both sets is two patients


def test_too_few_patients_give_nothing() -> None:
    assert separate_by_cnn(draw(0, 4), draw(1, 4), [0, 0, 1, 1], [0, 1, 2, 3]) is None


@pytest.mark.parametrize(("grid", "size"), [((6, 80, 72), (6, 64, 64)), ((12, 40, 70), (8, 40, 64))])
def test_windows_are_cut_from_the_middle_of_the_breast(
    grid: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    volumes = np.random.default_rng(0).random((2, 1, *grid), np.float32)
    inside = np.zeros(volumes.shape, bool)
    inside[0, ..., -20:, -4:] = True
    windows = cut_windows(volumes, inside)
    assert windows.shape == (2, *size)
    first = (grid[0] - size[0]) // 2
    expected = volumes[0, 0, first : first + size[0], -size[1] :, -size[2] :]
    assert (windows[0] == expected).all()
