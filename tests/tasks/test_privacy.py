"""The audit must find planted copies, must not flag new patients, and must say when it cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from textured import draw_breast, make_textured_dataset

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Volume
from dbtbench.leaderboard import rank, summary
from dbtbench.pipeline import generate
from dbtbench.pipeline.evaluate import evaluate, identify
from dbtbench.pipeline.outputs import check_evaluation
from dbtbench.runs import Run
from dbtbench.task import Arm, Evaluation
from dbtbench.tasks.privacy import Privacy, PrivacyRecipe
from dbtbench.tasks.privacy.metrics import judge, needed_recall
from dbtbench.tasks.privacy.planting import KINDS, LESION_KINDS, paste_lesion
from dbtbench.workspace import Workspace

Audit = Callable[..., tuple[Evaluation, Path]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    return make_textured_dataset(tmp_path_factory.mktemp("textured") / "textured")


@pytest.fixture
def audit(real: DBTDataset, tmp_path: Path, write_synthetic: Callable[..., DBTDataset]) -> Audit:
    """Audit `real`, or synthetic volumes: the evaluation, and the run's folder."""

    def run(drawn: list[Volume] | None = None, data: DBTDataset = real, **settings: Any) -> Any:
        added = () if drawn is None else (write_synthetic(tmp_path / "gan", data, drawn),)
        arm = Arm("real" if drawn is None else "gan", data, data.select("train"), added)
        task = Privacy(PrivacyRecipe(**{"copies": 2, **settings}))
        run = Run(tmp_path, identify("privacy", task, arm, 0))
        evaluation = task.evaluate(arm, 0, run)
        check_evaluation(task, evaluation, arm, run)
        return evaluation, tmp_path

    return run


def draw_fresh(n: int) -> list[Volume]:
    return [draw_breast(np.random.default_rng([77, number]), bool(number % 2)) for number in range(n)]


def test_is_found_by_its_name() -> None:
    assert plugins.load(plugins.get("tasks", "privacy")) is Privacy


@pytest.fixture(scope="module")
def recall(real: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The table of docs/privacy.md, small: the share found of each kind."""
    folder = tmp_path_factory.mktemp("recall")
    Privacy(PrivacyRecipe(copies=24)).evaluate(Arm("real", real, real.select("train")), 0, Run(folder, {}))
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("recall", "lesion_recall")]
    table = pd.concat(tables).set_index("kind")
    assert (table["planted"] >= 20).all()
    return {str(kind): float(share) for kind, share in table["recall"].items()}


@pytest.mark.parametrize("kind", [*KINDS, *LESION_KINDS])
def test_planted_copies_are_found(recall: dict[str, float], kind: str) -> None:
    assert recall[kind] >= needed_recall(kind)


def test_real_volumes_that_nobody_saw_are_rarely_flagged(audit: Audit) -> None:
    evaluation, _ = audit()
    scores = evaluation.scores
    assert evaluation.counts["volumes"] == 48
    assert scores["copies"] <= 0.05
    assert scores["copies_at_5"] <= 0.15
    assert scores["copies_p"] > 0.05
    assert scores["lesion_copies_p"] > 0.05
    assert np.isnan(scores["membership_auc"])
    assert "no more than of real ones" in judge(scores, None)


def test_new_breasts_are_rarely_flagged(audit: Audit) -> None:
    scores = audit(draw_fresh(48))[0].scores
    assert scores["copies"] <= 0.05
    assert scores["copies_at_5"] <= 0.15
    assert scores["nn_ratio"] > 0.8
    assert np.isnan(scores["lesion_copies"])


def test_a_set_of_which_half_are_copies_reads_one_half(audit: Audit, real: DBTDataset) -> None:
    train = real.select("train").volumes()[:24, 0]
    copies = [np.roll(volume, 2, axis=1)[::-1] ** 1.1 for volume in train]
    evaluation, folder = audit([*copies, *draw_fresh(24)])
    scores = evaluation.scores
    assert scores["copies"] == pytest.approx(0.5, abs=0.05)
    assert scores["copies_low"] < 0.5 < scores["copies_high"]
    assert scores["copies_p"] < 0.001
    assert scores["authenticity"] == pytest.approx(0.5, abs=0.25)
    assert "more than of real ones (p < 0.001)" in judge(scores, False)
    table = pd.read_csv(folder / "nearest.csv")
    assert table["training_case"].head(24).tolist() == real.select("train").cases["case"].head(24).tolist()
    assert table["distance_ratio"].head(24).max() < 0.8 < table["distance_ratio"].tail(24).median()
    assert (folder / "pairs.png").stat().st_size > 10_000


def test_pasted_lesions_are_flagged_in_new_breasts(
    audit: Audit, real: DBTDataset, tmp_path: Path, write_synthetic: Callable[..., DBTDataset]
) -> None:
    train = real.select("train")
    train = train.take(train.positive)
    hosts = [
        draw_breast(np.random.default_rng([78, n]), view[0] == "r")
        for n, view in enumerate(train.cases["View"])
    ]
    pasted = []
    for host, case in zip(hosts, train.cases["case"], strict=True):
        box = train.boxes_of(case)[0]
        volume, moved = paste_lesion(
            host, train.volumes([case])[0, 0], box, (4, 32, int(box[2] + box[5]) // 2)
        )
        pasted.append((volume, moved))
    drawn = write_synthetic(tmp_path / "paste", train, [volume for volume, _ in pasted])
    rows = train.boxes.assign(case=range(len(pasted)))
    rows[["z0", "y0", "x0", "z1", "y1", "x1"]] = np.stack([box for _, box in pasted])
    arm = Arm("paste", real, real.select("train"), (replace(drawn, boxes=rows),))
    scores = Privacy(PrivacyRecipe(copies=2)).evaluate(arm, 0, Run(tmp_path, {})).scores
    assert scores["lesion_copies"] > 0.9
    assert scores["lesion_copies_p"] < 0.001
    assert scores["lesion_nn_ratio"] < 0.3
    assert scores["copies_p"] > 0.05  # the breasts are new


def test_it_cannot_tell_where_test_patients_are_as_near_as_copies(audit: Audit, tmp_path: Path) -> None:
    scores = audit(data=make_textured_dataset(tmp_path / "twins", 12, twins=True))[0].scores
    assert scores["recall_blur"] < needed_recall("blur")
    said = judge(scores, None)
    assert said.startswith("copies: cannot tell (planted copies found: exact ")
    assert "lesions: cannot tell (planted lesions found: pasted " in said
    assert "flagged [" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_decides_by_its_own_bar(kind: str) -> None:
    scores = {f"recall_{other}": 1.0 for other in KINDS} | {"copies": 0.0, "copies_low": 0.0}
    scores |= {"copies_high": 0.02, "copies_p": 1.0, "membership_auc": float("nan")}
    assert "cannot tell" not in judge(scores | {f"recall_{kind}": needed_recall(kind)}, None)
    assert "cannot tell" in judge(scores | {f"recall_{kind}": needed_recall(kind) - 0.01}, None)
    assert "cannot tell" in judge(scores | {f"recall_{kind}": float("nan")}, None)


def test_derived_volumes_are_called_so_and_flagged(real: DBTDataset, tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    generate.draw(work, generate.fit(work, "classic", real), 24)
    runs = evaluate(work, "privacy", real, ["classic"], overrides={"copies": "4"})
    table = rank(runs)
    row = table[(table["arm"] == "classic") & (table["primary"] == 1)].iloc[0]
    assert row["value"] > 0.8
    assert row["verdict"].startswith("classic: derived from training volumes by construction; copies: ")
    shown = summary(table)
    assert "planted copies found: exact 100 %" in shown
    assert "real: copies: " in shown


def test_the_same_audit_has_the_same_bytes(audit: Audit) -> None:
    volumes = draw_fresh(6)
    folder = audit(volumes, volumes=4, copies=2)[1]
    names = ("recall.csv", "nearest.csv", "lesion_recall.csv", "pairs.png")
    first = [(folder / name).read_bytes() for name in names]
    audit(volumes, volumes=4, copies=2)
    assert first == [(folder / name).read_bytes() for name in names]


def test_other_grids_and_missing_splits_are_errors(audit: Audit, real: DBTDataset) -> None:
    with pytest.raises(UsageError, match="has no test volumes"):
        audit(data=real.take(real.cases["split"] != "test"))
    arm = Arm("gan", real, real.select("train"), ())
    small = replace(real, meta={**real.meta, "grid": [8, 32, 32], "source": {"kind": "synthetic"}})
    with pytest.raises(UsageError, match="has the grid"):
        Privacy(PrivacyRecipe()).score(replace(arm, added=(small,)), 0, None)
