"""Results of earlier versions are carried over: new names, the same scores and outcomes."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.errors import UsageError
from dbtbench.runtime.files import digest, read_json, write_json

SCRIPT = Path(__file__).parents[2] / "results" / "carry_over.py"


@pytest.fixture
def carry_over() -> Callable[[Path], dict[str, str]]:
    found: Callable[[Path], dict[str, str]] = runpy.run_path(str(SCRIPT))["carry_over"]
    return found


@pytest.fixture
def old(tmp_path: Path, make_record: Callable[..., Any], make_outcomes: Callable[..., pd.DataFrame]) -> Path:
    """Results as an earlier version left them: five seeds of `none` and of `ddpm:only`."""
    settings = {"steps": 9, "drop": 0.1, "start": "leak", "dim": 32, "mults": [1, 2], "times": 300}
    for seed in range(5):
        for arm, found in (("none", 4), ("ddpm:only", 6)):
            record = make_record("real" if arm == "none" else "ddpm", seed)
            record = record | {"arm": arm, "scores": {"mean_sensitivity_positive": found / 10}}
            if arm == "ddpm:only":
                record["counts"] = record["counts"] | {"training_real": 0}
            del record["metrics"]
            if record["augmentation"]:
                record["augmentation"] = record["augmentation"] | {"recipe": settings}
            results = {"scores", "counts", "seconds", "dbtbench", "commit", "versions", "device", "created"}
            name = digest({key: value for key, value in record.items() if key not in results})[:12]
            write_json(tmp_path / "runs" / "detection" / f"{name}.json", record)
            outcomes = make_outcomes(found)
            outcomes.to_csv(tmp_path / "runs" / "detection" / f"{name}.outcomes.csv", index=False)
    return tmp_path


def test_records_get_their_new_names_and_keep_their_scores(
    old: Path, carry_over: Callable[[Path], dict[str, str]]
) -> None:
    with pytest.raises(UsageError, match="is not a run's record"):
        leaderboard.build(old)
    outcomes = sorted(file.read_bytes() for file in old.rglob("*.outcomes.csv"))
    scores = sorted(repr(read_json(file)["scores"]) for file in old.rglob("*.json"))
    assert len(carry_over(old)) == 10
    assert sorted(file.read_bytes() for file in old.rglob("*.outcomes.csv")) == outcomes
    assert sorted(repr(read_json(file)["scores"]) for file in old.rglob("*.json")) == scores
    board = leaderboard.build(old).set_index("arm")
    assert board.index.tolist() == ["real", "ddpm:synthetic-only"]
    assert set(board["verified"]) == {"outcomes"}
    assert board["learned"].to_dict() == {"real": "", "ddpm:synthetic-only": 1}
    assert board.loc["ddpm:synthetic-only", "difference"] == pytest.approx(0.2)
    recipe = next(
        record["augmentation"]["recipe"]
        for record in map(read_json, old.rglob("*.json"))
        if record["augmentation"]
    )
    assert recipe == {
        **{"steps": 9, "conditioning_dropout": 0.1, "init": "signal_leak"},
        **{"base_channels": 32, "channel_mults": [1, 2], "num_timesteps": 300},
    }


def test_what_is_carried_over_stays_as_it_is(old: Path, carry_over: Callable[[Path], dict[str, str]]) -> None:
    carry_over(old)
    files = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    assert carry_over(old) == {}
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == files
    assert carry_over(SCRIPT.parent) == {}, "results/ itself"


@pytest.mark.parametrize(
    ("generators", "learned"),
    [(["classic"], False), (["classic", "paste"], False), (["classic", "ddpm"], True), (["gan"], None)],
)
def test_old_records_say_whether_their_generators_learn_where_that_is_known(
    generators: list[str], learned: bool | None, make_record: Callable[..., Any]
) -> None:
    made = [make_record(name)["augmentation"] for name in generators]
    record = make_record("ddpm") | {"augmentation": made if len(made) > 1 else made[0]}
    assert runpy.run_path(str(SCRIPT))["renew"](record).get("learned") is learned
