"""Membership inference reaches the weights that drew a data set, and only those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generators.classic import Classic
from dbtbench.generators.ddpm import DDPM
from dbtbench.pipeline import generate
from dbtbench.pipeline.fitted import find_fitted
from dbtbench.task import Arm
from dbtbench.tasks.privacy.membership import infer_membership
from dbtbench.workspace import Workspace


@pytest.fixture(scope="module")
def work(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which a small DDPM and `classic` have drawn."""
    work = Workspace(tmp_path_factory.mktemp("work"))
    for name, recipe, settings in (("ddpm", "smoke", {"steps": "2"}), ("classic", "default", {})):
        generate.draw(work, generate.fit(work, name, toy, recipe, settings), 4, name=f"by-{name}")
    return work


def arm(work: Workspace, name: str, toy: DBTDataset) -> Arm:
    return Arm(name, toy, toy.select("train"), (DBTDataset.open(work.datasets / f"by-{name}"),))


def test_the_ddpm_scores_volumes_by_their_losses(work: Workspace, toy: DBTDataset) -> None:
    scores, table = infer_membership(arm(work, "ddpm", toy), 8, 0)
    assert table is not None
    assert table["positive"].tolist() == [1] * 8 + [0] * 8
    assert table.filter(like="loss_").shape == (16, 5)
    assert 0 <= scores["membership_auc_low"] <= scores["membership_auc"] <= scores["membership_auc_high"] <= 1


def test_a_loss_depends_on_the_volume_alone(work: Workspace, toy: DBTDataset) -> None:
    generator = find_fitted(arm(work, "ddpm", toy).added[0], toy)
    assert isinstance(generator, DDPM)
    test = toy.select("test")
    together, alone = generator.score_volumes(test), generator.score_volumes(test[5:6])
    assert together[5] == pytest.approx(alone[0], rel=1e-4)
    assert (generator.score_volumes(test) == together).all()
    assert (np.diff(together, axis=0) != 0).any()


def test_a_model_that_knows_its_volumes_is_caught(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = set(toy.select("train").cases["sha256"])

    def know(self: DDPM, volumes: DBTDataset) -> NDArray[np.float64]:
        noise = np.random.default_rng(0).random((len(volumes), 3))
        known = np.asarray(volumes.cases["sha256"].isin(train), bool)
        return np.asarray(noise + ~known[:, None])

    monkeypatch.setattr(DDPM, "score_volumes", know)
    scores, _ = infer_membership(arm(work, "ddpm", toy), 16, 0)
    assert scores["membership_auc"] == 1
    assert scores["membership_tpr_low"] == 1


def test_a_model_that_knows_lesions_knows_no_members(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = toy.cases["split"].eq("train") & toy.positive
    kept = toy.take(~train.to_numpy() | (train.cumsum().to_numpy() <= 2))

    def see(self: DDPM, volumes: DBTDataset) -> NDArray[np.float64]:
        noise = np.random.default_rng(len(volumes)).random((len(volumes), 3))
        return np.asarray(0.1 * noise + volumes.positive[:, None])

    monkeypatch.setattr(DDPM, "score_volumes", see)
    monkeypatch.setattr("dbtbench.pipeline.fitted.find_fitted", lambda *_: object.__new__(DDPM))
    scores, table = infer_membership(arm(work, "ddpm", kept), 16, 0)
    assert table is not None
    assert table.groupby("positive")["loss_0"].apply(lambda losses: (losses > 0.5).sum()).nunique() == 1
    assert scores["membership_auc_low"] < 0.5 < scores["membership_auc_high"]


def test_without_scores_there_is_no_inference(work: Workspace, toy: DBTDataset) -> None:
    for one, volumes in ((arm(work, "classic", toy), 8), (arm(work, "ddpm", toy), 0)):
        scores, table = infer_membership(one, volumes, 0)
        assert table is None
        assert np.isnan(list(scores.values())).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "0" * 12}, "fitted to other data"),
        ({"version": 1}, "its version is"),
        ({"generator": "gone"}, "no generator named 'gone'"),
        ({"recipe": {"steps": "many"}}, "steps"),
    ],
)
def test_another_generator_than_the_one_that_drew_is_not_found(
    work: Workspace, toy: DBTDataset, change: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = arm(work, "ddpm", toy).added[0]
    changed = replace(drawn, meta={**drawn.meta, "source": {**drawn.meta["source"], **change}})
    with caplog.at_level("INFO"):
        assert find_fitted(changed, toy) is None
    assert said in caplog.text


def test_weights_that_are_gone_are_not_trained_again(
    work: Workspace, toy: DBTDataset, tmp_path: Path
) -> None:
    drawn = arm(work, "ddpm", toy).added[0]
    moved = replace(drawn, path=tmp_path / "datasets" / "by-ddpm")
    assert find_fitted(moved, toy) is None
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("wrong", [np.ones(4), np.full((8, 2), np.nan), np.ones((3, 2))])
def test_wrong_losses_are_refused(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch, wrong: NDArray[np.float64]
) -> None:
    monkeypatch.setattr(Classic, "score_volumes", lambda self, volumes: wrong)
    with pytest.raises(UsageError, match=r"generator classic: score_volumes gave"):
        infer_membership(arm(work, "classic", toy), 8, 0)
