"""Rows of the board: values, differences with their intervals, and verdicts, from records and outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.runtime.files import digest, read_json, write_json
from dbtbench.workspace import Workspace

PRIMARY = "mean_sensitivity_positive"
Make = Callable[..., Any]


def board_of(evaluated: Workspace) -> pd.DataFrame:
    """The primary metric's rows, by arm."""
    board = leaderboard.rank(run.parent for run in evaluated.evaluations.glob("*/*/run.json"))
    return board[board["primary"] == 1].set_index("arm")


def test_values_are_means_over_seeds_and_differences_are_those_of_the_means(
    tmp_path: Path, make_record: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    for arm, values in (("real", (0.25, 0.5, 0.75)), ("ddpm", (0.5, 0.75)), ("oversample", (0.25,))):
        for seed, value in enumerate(values):
            write_run(work.evaluations, make_record(arm, seed, scores={PRIMARY: value}))
    board = board_of(work)
    assert board.loc["real", ["value", "seeds"]].tolist() == [0.5, 3]
    # oversample is a second draw of real, so that the baseline is the mean over both
    columns = ["value", "seeds", "baseline", "baseline_seeds", "difference"]
    assert board.loc["ddpm", columns].tolist() == [0.625, 2, 0.4375, 4, 0.1875]
    assert board.loc[["real", "oversample"], "difference"].isna().all()


def test_gains_have_intervals_p_values_and_a_verdict_from_the_outcomes(evaluated: Workspace) -> None:
    board = board_of(evaluated)
    ddpm = board.loc["ddpm"]
    assert ddpm["difference"] == pytest.approx(0.2)
    assert ddpm["baseline_seeds"] == 10
    assert ddpm["difference_low"] < 0.2 < ddpm["difference_high"]
    assert ddpm["p"] <= ddpm["p_holm"] <= 1
    assert ddpm["recovered"] == pytest.approx(2 / 3)
    assert ddpm["recovered_low"] < 2 / 3 < ddpm["recovered_high"]
    assert ddpm["verdict"].startswith("ddpm: +0.20 mean sensitivity over real [")
    assert board.loc["oversample", "verdict"].endswith("the same distribution as real, and pooled with it")
    assert math.isnan(board.loc["more-real", "p_holm"])
    assert board.loc["real", "verdict"] == ""
    assert board.loc[["ddpm", "more-real"], "method"].str.startswith("Satterthwaite t").all()


def test_contrasts_and_equivalents_stand_on_the_board(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    found = {"ddpm:shuffled-boxes": 3, "classic": 5, "more-real:0.25": 4, "more-real:0.5": 5}
    found |= {"more-real:0.75": 6}
    for arm, number in found.items():
        share = float(arm.split(":")[1]) if arm.startswith("more") else 0
        for seed in range(5):
            record = make_record(arm, seed) | ({"learned": False} if arm == "classic" else {})
            patients = {"training_patients": 10 + int(40 * share), "training_lesions": 20 + int(80 * share)}
            record["counts"] |= patients if share else {}
            write_run(evaluated.evaluations, record, make_outcomes(number + seed % 3))
    for file in evaluated.evaluations.glob("*/*/run.json"):
        record = read_json(file)
        if record["arm"] in ("real", "more-real"):
            n = 10 if record["arm"] == "real" else 50
            record["counts"] |= {"training_patients": n, "training_lesions": 2 * n}
            write_json(file, record)
    ddpm = board_of(evaluated).loc["ddpm"]
    assert ddpm["over_shuffled"] == pytest.approx(0.3)
    assert ddpm["over_shuffled_low"] < 0.3 < ddpm["over_shuffled_high"]
    assert ddpm["over_shuffled_p"] >= ddpm["p_holm"]
    assert (ddpm["over_unlearned"], ddpm["unlearned"]) == (pytest.approx(0.1), "classic")
    assert math.isnan(ddpm["over_normals"])
    assert 20 < ddpm["patients_equivalent"] < 35
    assert ddpm["lesions_equivalent"] == pytest.approx(2 * ddpm["patients_equivalent"], rel=0.01)
    assert ddpm["patients_equivalent_low"] < 20
    assert "ddpm:shuffled-boxes" in ddpm["verdict"]
    assert "classic" in ddpm["verdict"]


def test_two_trainings_of_a_generator_are_one_row_more(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    for seed in range(5):
        record = make_record("ddpm-1", seed)
        again = {"generator": "ddpm", "run": "f" * 12, "recipe": {"steps": 9, "seed": 1}}
        record["augmentation"] |= again
        write_run(evaluated.evaluations, record, make_outcomes(5 + seed % 3))
    board = board_of(evaluated)
    row = board.loc["ddpm (2 trainings)"]
    assert row[["value", "seeds", "synthetic_fingerprint"]].tolist() == [pytest.approx(0.63), 10, ""]
    assert row["difference"] == pytest.approx(0.15)
    assert row["difference_high"] - row["difference_low"] > 0.2
    assert math.isnan(board.loc["ddpm", "p_holm"])
    assert row["p_holm"] == row["p"]
    assert "ddpm (2 trainings) ×10" in leaderboard.summary(
        leaderboard.rank(run.parent for run in evaluated.evaluations.glob("*/*/run.json"))
    )


def test_only_the_primary_metric_has_statistics(evaluated: Workspace) -> None:
    rows = leaderboard.rank(run.parent for run in evaluated.evaluations.glob("*/*/run.json")).query(
        "primary == 0"
    )
    assert set(rows["metric"]) == {"other"}
    assert rows.loc[rows["arm"].isin(["ddpm", "more-real"]), "difference"].notna().all()
    empty = ["difference_low", "p", "p_holm", "recovered", "patients_equivalent", "verdict"]
    assert rows[empty].isna().all(axis=None)
    assert set(rows["verified"]) == {"no"}


def test_what_was_run_stands_beside_the_numbers(evaluated: Workspace, make_record: Make) -> None:
    row = board_of(evaluated).loc["ddpm"]
    assert row[["generator", "generator_version", "generator_run"]].tolist() == ["ddpm", 1, "0123456789ab"]
    assert row["generator_recipe"] == digest({"steps": 9})[:12]
    assert row[["synthetic_volumes", "real_volumes", "ratio", "steps"]].tolist() == [24, 12, 2.0, 250]
    assert row[["patients", "volumes", "boxes", "seconds"]].tolist() == [10, 40, 10, 7.5]


def test_a_reference_stands_on_the_board_and_is_compared_with_nothing(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    before = board_of(evaluated)
    nothing = {"augmentation": None, "counts": {"training_real": 0, "training_synthetic": 0}}
    for seed in range(5):
        write_run(evaluated.evaluations, make_record("chance", seed, **nothing), make_outcomes(1 + seed % 2))
    after = board_of(evaluated)
    row = after.loc["chance"]
    assert row["value"] == pytest.approx(0.14)
    assert row["verdict"] == "chance: mean sensitivity 0.14; a reference, nothing was trained"
    assert row[["p", "p_holm", "difference_low", "recovered"]].isna().all()
    assert after.loc["real", "verdict"].endswith("it has learned something")
    rest = after.drop("chance").assign(verdict=lambda t: t["verdict"].where(t.index != "real", ""))
    pd.testing.assert_frame_equal(rest, before, check_dtype=False)


def test_a_baseline_that_finds_no_more_than_the_best_reference_has_learned_nothing(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    nothing = {"augmentation": None, "counts": {"training_real": 0, "training_synthetic": 0}}
    for arm, found in (("chance", 1), ("blob", 6)):
        write_run(evaluated.evaluations, make_record(arm, 0, **nothing), make_outcomes(found))
    verdict = board_of(evaluated).loc["real", "verdict"]
    assert verdict == (
        "real: mean sensitivity 0.48 against 0.60 of blob, the best without training: "
        "it has learned nothing that counts"
    )


def test_the_board_says_how_many_lesions_all_some_and_no_seeds_find(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    shares = ["found_by_all", "found_by_some", "found_by_none"]
    board = board_of(evaluated)
    assert board.loc["real", shares].tolist() == pytest.approx([0.4, 0.2, 0.4])
    assert board.loc["more-real", shares].tolist() == pytest.approx([0.7, 0.2, 0.1])
    for seed, found in zip(range(5, 12), (6, 5, 6, 5, 3, 0, 10), strict=True):
        write_run(evaluated.evaluations, make_record("real", seed), make_outcomes(found))
    # The eleventh seed and the twelfth do not count.
    assert board_of(evaluated).loc["real", shares].tolist() == pytest.approx([0.3, 0.3, 0.4])


def test_an_arm_of_two_data_sets_names_both(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    ddpm, classic = (make_record(arm)["augmentation"] for arm in ("ddpm", "classic"))
    both: dict[str, Any] = {"augmentation": [ddpm, classic | {"version": 2}]}
    both |= {"counts": {"training_real": 12, "training_synthetic": 48}}
    write_run(evaluated.evaluations, make_record("ddpm+classic", 0, **both), make_outcomes(7))
    row = board_of(evaluated).loc["ddpm+classic"]
    assert row[["generator", "generator_version"]].tolist() == ["ddpm+classic", "1+2"]
    assert row[["synthetic_volumes", "ratio"]].tolist() == [48, 4.0]
    assert row["synthetic_fingerprint"] == digest([ddpm["fingerprint"], classic["fingerprint"]])


def test_a_score_is_verified_where_there_are_outcomes_that_give_it(evaluated: Workspace) -> None:
    run = next(r for r in evaluated.evaluations.glob("*/*/run.json") if read_json(r)["arm"] == "ddpm")
    assert set(board_of(evaluated)["verified"]) == {"outcomes"}
    (run.parent / "outcomes.csv").unlink()
    board = board_of(evaluated)
    assert board.loc[["real", "ddpm"], "verified"].tolist() == ["outcomes", "no"]
    assert math.isnan(
        board.loc["ddpm", "difference_low"]
    )  # an interval from some of its seeds would be another arm's
    assert "outcomes" in board.loc["ddpm", "verdict"]


def test_outcomes_that_do_not_give_the_score_are_an_error_that_names_the_run(evaluated: Workspace) -> None:
    run = next(r for r in evaluated.evaluations.glob("*/*/run.json") if read_json(r)["arm"] == "ddpm").parent
    file = run / "outcomes.csv"
    file.write_text(file.read_text().replace("P9,S9,lcc,0,\n", "P9,S9,lcc,0,0.95\n"))
    with pytest.raises(StaleError, match=f"{run.name} .ddpm, seed .*its outcomes give {PRIMARY}"):
        leaderboard.publish(evaluated, evaluated.root / "results")


def test_outcomes_of_other_lesions_are_an_error(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    write_run(
        evaluated.evaluations, make_record("classic"), make_outcomes(4, patients=9)
    )  # the hardest patient is left out
    with pytest.raises(StaleError, match="other test volumes or lesions"):
        leaderboard.publish(evaluated, evaluated.root / "results")


def test_runs_that_name_different_primary_metrics_are_an_error(
    evaluated: Workspace, make_record: Make, write_run: Make
) -> None:
    write_run(evaluated.evaluations, make_record("classic", primary="other"))
    with pytest.raises(StaleError, match="primary metric"):
        leaderboard.publish(evaluated, evaluated.root / "results")


def test_fewer_than_five_seeds_are_too_few_to_tell(
    tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    for seed in range(4):
        write_run(work.evaluations, make_record("real", seed), make_outcomes(2))
        write_run(work.evaluations, make_record("ddpm", seed), make_outcomes(9))
    assert board_of(work).loc["ddpm", "verdict"].endswith("4 seeds against 4: too few seeds to tell")


def test_without_a_baseline_there_is_no_gain_and_an_undefined_score_stays_empty(
    tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    write_run(work.evaluations, make_record("ddpm"), make_outcomes(3))
    write_run(work.evaluations, make_record("classic", scores={PRIMARY: None}))
    board = board_of(work)
    assert board["difference"].isna().all()
    assert math.isnan(board.loc["classic", "value"])
    assert board.loc["ddpm", "verdict"] == "ddpm: no run of real to compare with"


def test_an_arm_with_other_seeds_than_the_baseline_is_compared_all_the_same(
    tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    for seed in range(2):
        write_run(work.evaluations, make_record("real", seed), make_outcomes(3))
        write_run(work.evaluations, make_record("ddpm", 5 + seed), make_outcomes(9))
    row = board_of(work).loc["ddpm"]
    assert row["difference"] == pytest.approx(0.6)
    assert row["difference_low"] < 0.6 < row["difference_high"]


def test_two_synthetic_data_sets_of_one_arm_are_two_arms(
    evaluated: Workspace, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    other = make_record("ddpm")["augmentation"] | {"name": "b", "fingerprint": "f" * 64}
    for seed in range(5):
        write_run(evaluated.evaluations, make_record("ddpm", seed, augmentation=other), make_outcomes(3))
    rows = board_of(evaluated).loc["ddpm"]
    assert rows["synthetic_fingerprint"].nunique() == 2
    assert rows["difference"].round(6).tolist() == [0.2, -0.18]
    assert [verdict.split(":")[0] for verdict in rows["verdict"]] == [
        f"ddpm {digest('ddpm')[:6]}",
        "ddpm ffffff",
    ]
    text = leaderboard.summary(leaderboard.rank(r.parent for r in evaluated.evaluations.glob("*/*/run.json")))
    assert "ddpm ffffff ×5" in text


def test_of_two_runs_of_one_arm_and_seed_the_first_stands(
    tmp_path: Path, make_record: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    renamed = {"name": "e", "fingerprint": "a" * 64, "split_hash": "b" * 64}
    write_run(
        work.evaluations,
        make_record(scores={PRIMARY: 0.9}, data=renamed, created="2026-02-01T00:00:00+00:00"),
    )
    write_run(work.evaluations, make_record(scores={PRIMARY: 0.4}))
    assert board_of(work).loc["real", ["value", "seeds"]].tolist() == [0.4, 1]


def test_runs_that_may_not_be_compared_stand_on_different_boards(
    tmp_path: Path, make_record: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    other = {"name": "d", "fingerprint": "a" * 64, "split_hash": "c" * 64}
    changes: list[dict[str, Any]] = [{}, {"version": 2}, {"recipe": {"steps": 2}}, {"data": other}]
    for change in changes:
        write_run(work.evaluations, make_record(**change))
    assert leaderboard.publish(work, tmp_path / "results")["board"].nunique() == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arm": "<b>"}, "arm"),
        ({"arm": "../../x"}, "arm"),
        ({"task": "../x"}, "task"),
        ({"device": "\x1b[2J"}, "device"),
        ({"device": "x" * 201}, "device"),
        ({"scores": {PRIMARY: float("inf")}}, "scores"),
        ({"scores": {PRIMARY: "0.9"}}, "scores"),
        ({"scores": {PRIMARY: 1.0, "a|b": 1.0}}, "scores"),
        ({"scores": {"other": 1.0}}, PRIMARY),
        ({"seed": -1}, "seed"),
        ({"data": {"name": "d", "fingerprint": "short", "split_hash": "b" * 64}}, "fingerprint"),
        ({"recipe": {"lr": float("nan")}}, "recipe"),
        ({"created": "yesterday"}, "created"),
        ({"commit": "$(rm)"}, "commit"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_record_that_is_not_as_it_should_be_is_refused(
    tmp_path: Path, make_record: Make, change: dict[str, Any], said: str
) -> None:
    file = tmp_path / "run.json"
    write_json(file, make_record())

    file.write_text(json.dumps(make_record(**change)))
    with pytest.raises(UsageError, match=said) as caught:
        leaderboard.rank([tmp_path])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "PatientID,StudyUID,View,box\nP,S,lcc,0\n",
        "PatientID,StudyUID,View,box,Score\n",
        "PatientID,StudyUID,View,box,Score\n,S,lcc,0,0.5\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,half,0.5\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,0,high\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,0,inf\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,-2,0.5\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,0,0.5\nP,S,lcc,-1,\n",
        "PatientID,StudyUID,View,box,Score\nP,S,lcc,0,0.5\nQ,S,lcc,-1,0.1\n",
        "PatientID,StudyUID,View,box,Score\n\x1b[2J,S,lcc,0,0.5\n",
        "PatientID,StudyUID,View,positive,Score\nP,S,lcc,1,0.5\n",
    ],
)
def test_outcomes_that_are_not_as_they_should_be_are_refused(
    tmp_path: Path, make_record: Make, write_run: Make, text: str
) -> None:
    run = write_run(tmp_path, make_record())
    (run / "outcomes.csv").write_text(text)
    with pytest.raises(UsageError, match="outcomes cannot be read") as caught:
        leaderboard.rank([run])
    assert str(caught.value).isprintable()


def test_classification_is_resampled_too(tmp_path: Path, make_record: Make) -> None:
    rows = [(f"P{n}", f"S{n}", "lcc", n % 2, 0.5 + 0.1 * (n % 2) - 0.01 * n) for n in range(20)]
    table = pd.DataFrame(rows, columns=["PatientID", "StudyUID", "View", "positive", "Score"])
    truth, scores = table["positive"] == 1, table["Score"]
    wins = [float(p > q) for p in scores[truth] for q in scores[~truth]]
    runs = [tmp_path / f"{arm}{seed}" for arm in ("real", "ddpm") for seed in range(5)]
    for number, run in enumerate(runs):
        write_json(
            run / "run.json",
            make_record(
                "real" if number < 5 else "ddpm",
                number % 5,
                task="classification",
                primary="auroc",
                scores={"auroc": sum(wins) / len(wins)},
            ),
        )
        table.to_csv(run / "outcomes.csv", index=False)
    board = leaderboard.rank(runs).set_index("arm")
    assert board.loc["ddpm", ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    assert set(board["verified"]) == {"outcomes"}


def test_no_runs_at_all_is_an_error_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        leaderboard.publish(Workspace(tmp_path), tmp_path / "results")
    assert "dbtbench evaluate" in caught.value.hint


def test_a_board_says_which_synthetic_volumes_are_derived_and_which_a_model_drew(
    tmp_path: Path, make_record: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    for arm, more in (
        ("real", {}),
        ("classic", {"derived": True, "learned": False}),
        ("ddpm", {"derived": False, "learned": True}),
        ("old", {}),
    ):
        for seed in range(2):
            write_run(work.evaluations, make_record(arm, seed, scores={PRIMARY: 0.5}, **more))
    board = board_of(work)
    assert board["derived"].to_dict() == {"real": "", "classic": 1, "ddpm": 0, "old": ""}
    assert board["learned"].to_dict() == {"real": "", "classic": 0, "ddpm": 1, "old": ""}
