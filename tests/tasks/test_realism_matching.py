"""Rows of one board have the same number of volumes, and the same mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.runs import Run
from dbtbench.task import Arm
from dbtbench.tasks.realism import Realism, RealismRecipe
from dbtbench.tasks.realism.matching import describe_request
from dbtbench.workspace import Workspace

GRID = (4, 24, 24)


@pytest.fixture
def few(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> DBTDataset:
    """Real data whose training split has lesions in one patient of twelve, as `--few-lesions` leaves."""
    data = make_toy(tmp_path / "few", patients=24, grid=GRID)
    known = data.cases["PatientID"].isin(["P000"])
    hidden = data.positive & ~known & (data.cases["split"] == "train").to_numpy()
    return data.take(~hidden)


def measure(arm: Arm, folder: Path, volumes: int = 256) -> tuple[int, dict[tuple[str, str], int]]:
    """How many volumes of an arm are measured, and their mix."""
    run = Run(folder / arm.name, {})
    run.path.mkdir(parents=True)
    evaluation = Realism(RealismRecipe(volumes=volumes, draws=0)).evaluate(arm, 0, run)
    table = pd.read_csv(run.path / "volumes.csv").query("side == 'arm'")
    assert len(table) == evaluation.counts["volumes"]
    return len(table), table.groupby(["projection", "lesion"]).size().to_dict()


@pytest.mark.parametrize(("n", "volumes"), [(None, 256), (20, 20)])
def test_real_and_synthetic_rows_have_the_same_number_and_mix(
    few: DBTDataset, tmp_path: Path, n: int | None, volumes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    train = few.select("train")
    drawn = GenerationRequest("classic", few, n=n).run(Workspace(tmp_path / "work"))
    assert len(drawn) == (n or len(train))
    assert drawn.positive.mean() > 0.35 > 0.2 > train.positive.mean()
    real = measure(Arm("real", few, train), tmp_path, volumes)
    assert measure(Arm("classic", few, train, (drawn,)), tmp_path, volumes) == real
    assert 8 < real[0] < volumes
    assert "other rows" not in capsys.readouterr().err


def test_a_row_with_fewer_volumes_is_said_with_what_makes_all_equal(
    few: DBTDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = few.select("train")
    drawn = GenerationRequest("classic", few, n=16).run(Workspace(tmp_path / "work"))
    arm = Arm("classic", few, train, (drawn,))
    fewer, _ = measure(arm, tmp_path)
    said = capsys.readouterr().err
    real, _ = measure(Arm("real", few, train), tmp_path)
    assert fewer < real
    assert f"classic has {fewer} volumes of the mix that is compared, other rows {real}" in said
    assert "--set volumes=16" in said
    assert measure(arm, tmp_path / "all", 16) == measure(Arm("real", few, train), tmp_path / "all", 16)


def test_a_training_split_without_lesions_is_not_matched_with_a_request(few: DBTDataset) -> None:
    train = few.select("train")
    assert len(describe_request(train, 7)) == 7
    normal = train.take(~train.positive)
    assert not len(describe_request(normal, 7))
    assert not len(describe_request(replace(train, cases=train.cases[np.zeros(len(train), bool)]), 7))
