from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.task import Arm
from dbtbench.training.batches import Batches

MakeToy = Callable[..., DBTDataset]
GRID = (8, 32, 32)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("real") / "real", patients=16, seed=1)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory, make_toy: MakeToy) -> DBTDataset:
    return make_toy(tmp_path_factory.mktemp("synthetic") / "synthetic", patients=12, seed=7)


def arm_of(real: DBTDataset, added: DBTDataset | None = None) -> Arm:
    return Arm(
        "real" if added is None else "toy", real, real.select("train"), () if added is None else (added,)
    )


def without_boxes(dataset: DBTDataset) -> DBTDataset:
    return replace(dataset, boxes=dataset.boxes.iloc[:0])


def cases_of(arm: Arm, steps: int, **shares: float) -> list[list[int]]:
    """The cases that each pool gave over the first steps."""
    settings: dict[str, Any] = {"batch": 4, "positive_share": 0.5, "added_share": 0.5} | shares
    batches = Batches(arm, **settings, seed=3, steps=steps)
    drawn: list[list[int]] = [[] for _ in batches.pools]
    for step in range(steps):
        for pool, (_, cases) in enumerate(batches.cases(step)):
            drawn[pool] += cases
    return drawn


def test_half_the_batch_has_lesions_and_half_of_each_kind_is_synthetic(
    real: DBTDataset, synthetic: DBTDataset
) -> None:
    volumes, boxes = Batches(arm_of(real, synthetic), 4, 0.5, 0.5, 0, 9).read(
        0, slice(None), torch.Generator()
    )
    assert volumes.shape == (4, 1, *GRID)
    assert [len(box) for box in boxes] == [1, 0, 1, 0]
    assert [len(cases) for cases in cases_of(arm_of(real, synthetic), 10)] == [10] * 4
    assert [len(cases) for cases in cases_of(arm_of(real), 10)] == [20] * 2


def test_every_arm_goes_through_the_real_cases_in_the_same_order(
    real: DBTDataset, synthetic: DBTDataset
) -> None:
    alone = cases_of(arm_of(real), 6)
    augmented = cases_of(arm_of(real, synthetic), 12)
    assert alone == augmented[:2]


def test_all_cases_are_used_once_before_any_is_used_again(real: DBTDataset) -> None:
    train = real.select("train")
    lesions, normal = cases_of(arm_of(real), 16)
    n = len(train.boxes["case"].unique())
    assert set(lesions[:n]) == set(lesions[n : 2 * n]) == set(train.boxes["case"])
    assert lesions[:n] != lesions[n : 2 * n]
    assert not set(normal) & set(train.boxes["case"])
    assert set(normal) <= set(train.cases["case"])


def test_lesion_free_synthetic_volumes_replace_lesion_free_real_ones_only(
    real: DBTDataset, synthetic: DBTDataset
) -> None:
    arm = arm_of(real, without_boxes(synthetic))
    assert [len(cases) for cases in cases_of(arm, 10)] == [20, 10, 0, 10]


def test_two_synthetic_data_sets_share_what_is_added(
    real: DBTDataset, synthetic: DBTDataset, make_toy: MakeToy, tmp_path: Path
) -> None:
    other = make_toy(tmp_path / "other", patients=4, seed=9)
    both = Arm("both", real, real.select("train"), (synthetic, other))
    assert [len(cases) for cases in cases_of(both, 10)] == [10, 10, 5, 5, 5, 5]
    only_one_has_lesions = replace(both, added=(without_boxes(synthetic), other))
    assert [len(cases) for cases in cases_of(only_one_has_lesions, 10)] == [10, 10, 0, 5, 10, 5]


def test_synthetic_data_sets_without_real_ones_share_every_batch_equally(
    real: DBTDataset, synthetic: DBTDataset
) -> None:
    one, two, three = (
        replace(synthetic, meta=synthetic.meta | {"source": {"kind": "synthetic"}}) for _ in range(3)
    )
    assert [len(cases) for cases in cases_of(Arm("a", real, one), 12)] == [24, 24]
    arm = Arm("a+b+c", real, one, (two, three))
    assert [len(cases) for cases in cases_of(arm, 12)] == [8] * 6
    assert [len(cases) for cases in cases_of(arm, 12, added_share=0.1)] == [8] * 6
    arm = Arm("a+b+c", real, without_boxes(one), (two, three))
    assert [len(cases) for cases in cases_of(arm, 12)] == [0, 8, 12, 8, 12, 8]
    with pytest.raises(MissingError, match="no training volume of synthetic or synthetic has a lesion"):
        cases_of(Arm("a+b", real, without_boxes(one), (without_boxes(two),)), 1)


def test_fine_tuning_is_synthetic_first_and_real_in_the_last_third(
    real: DBTDataset, synthetic: DBTDataset
) -> None:
    arm = replace(arm_of(real, synthetic), finetune=True)
    batches = Batches(arm, 4, 0.5, 0.5, 3, steps=9)
    sizes = [[len(cases) for _, cases in batches.cases(step)] for step in range(9)]
    assert sizes == [[0, 0, 2, 2]] * 6 + [[2, 2, 0, 0]] * 3
    assert [batches.cases(6 + step)[0][1] for step in range(3)] == [
        Batches(arm_of(real), 4, 0.5, 0.5, 3, 9).cases(step)[0][1] for step in range(3)
    ]


def test_a_split_with_lesions_everywhere_gives_only_such_volumes(real: DBTDataset) -> None:
    arm = arm_of(real.take(real.cases["case"].isin(real.boxes["case"])))
    assert [len(cases) for cases in cases_of(arm, 5)] == [20, 0]


@given(
    batch=st.integers(1, 7),
    positive_share=st.floats(0.01, 1),
    synthetic_share=st.floats(0.01, 1),
    steps=st.integers(1, 20),
)
@settings(max_examples=50, deadline=None)
def test_shares_hold_over_the_steps(
    real: DBTDataset,
    synthetic: DBTDataset,
    batch: int,
    positive_share: float,
    synthetic_share: float,
    steps: int,
) -> None:
    batches = Batches(arm_of(real, synthetic), batch, positive_share, synthetic_share, 0, steps)
    sizes = np.array([[len(cases) for _, cases in batches.cases(step)] for step in range(steps)])
    assert (sizes.sum(axis=1) == batch).all()
    positives = sizes[:, [0, 2]].sum()
    assert abs(positives - steps * batch * positive_share) <= 1
    assert abs(sizes[:, 2].sum() - positives * synthetic_share) <= 1


def test_an_arm_may_train_on_synthetic_volumes_alone(real: DBTDataset, synthetic: DBTDataset) -> None:
    batches = Batches(Arm("toy:only", real, synthetic), 4, 0.5, 0.5, 0, 9)
    assert {dataset.path for dataset, _ in batches.cases(0)} == {synthetic.path}


def test_training_without_any_lesion_is_refused(real: DBTDataset, synthetic: DBTDataset) -> None:
    with pytest.raises(MissingError, match="no training volume of synthetic has a lesion"):
        Batches(Arm("toy:only", real, without_boxes(synthetic)), 4, 0.5, 0.5, 0, 9)


def test_another_grid_is_refused(real: DBTDataset, make_toy: MakeToy, tmp_path: Path) -> None:
    other = make_toy(tmp_path / "other", patients=2, grid=(8, 16, 32))
    with pytest.raises(UsageError, match="other has the grid"):
        Batches(arm_of(real, other), 4, 0.5, 0.5, 0, 9)
