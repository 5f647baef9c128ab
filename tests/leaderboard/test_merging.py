"""Somebody else's runs: all that are right and comparable are added, or none of them is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench import leaderboard
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.runtime.files import read_json, write_json
from dbtbench.workspace import Workspace

Make = Callable[..., Any]


@pytest.fixture
def theirs(tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make) -> list[Path]:
    """Five seeds of an arm that the board does not have, as run folders."""
    runs = [(make_record("gan:2", seed, device="GPU"), make_outcomes(6)) for seed in range(5)]
    return [write_run(tmp_path / "theirs", *run) for run in runs]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def changed(run: Path, **changes: Any) -> None:
    write_json(run / "run.json", read_json(run / "run.json") | changes)


def test_runs_of_a_new_arm_are_compared_with_the_baseline_that_stands(
    evaluated: Workspace, published: Path, theirs: list[Path]
) -> None:
    board = leaderboard.add(published, theirs).query("primary == 1").set_index("arm")
    assert board.loc["gan:2", ["seeds", "value", "verified"]].tolist() == [5, 0.6, "outcomes"]
    assert "mean sensitivity over real" in board.loc["gan:2", "verdict"]
    assert board.loc["gan:2", "device"] == "GPU"
    leaderboard.check(evaluated, published)


@pytest.mark.parametrize(
    "form", ["folders", "files", "folder of folders", "published files", "published folder"]
)
def test_folders_record_files_and_published_runs_all_come_to_the_same(
    published: Path, theirs: list[Path], tmp_path: Path, form: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(theirs[0].parent.parent, tmp_path / "their-work" / "evaluations")
    leaderboard.publish(Workspace(tmp_path / "their-work"), other)
    paths = {
        "folders": theirs,
        "files": [run / "run.json" for run in theirs],
        "folder of folders": [tmp_path / "theirs"],
        "published files": sorted(other.glob("runs/*/*.json")),
        "published folder": [other / "runs"],
    }[form]
    leaderboard.add(published, paths)
    assert {run.name for run in theirs} <= {p.stem for p in published.glob("runs/detection/*.json")}
    assert len(list(published.glob("runs/*/*.outcomes.csv"))) == 25


def test_adding_the_same_again_changes_nothing(published: Path, theirs: list[Path]) -> None:
    leaderboard.add(published, theirs)
    before = contents(published)
    leaderboard.add(published, theirs)
    assert contents(published) == before


def test_a_killed_addition_is_completed_by_the_same_command(
    evaluated: Workspace, published: Path, theirs: list[Path]
) -> None:
    target = published / "runs" / "detection"
    shutil.copyfile(theirs[0] / "run.json", target / f"{theirs[0].name}.json")
    shutil.copyfile(theirs[0] / "outcomes.csv", target / f"{theirs[0].name}.outcomes.csv")
    shutil.copyfile(theirs[1] / "outcomes.csv", target / f"{theirs[1].name}.outcomes.csv")
    leaderboard.add(published, theirs)
    leaderboard.check(evaluated, published)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "d", "fingerprint": "e" * 64, "split_hash": "b" * 64}},
         "its data fingerprint is eeeeeeeeeeee, not aaaaaaaaaaaa"),
        ({"data": {"name": "d", "fingerprint": "a" * 64, "split_hash": "e" * 64}},
         "its split hash is eeeeeeeeeeee, not bbbbbbbbbbbb"),
        ({"data": {"name": "d", "fingerprint": "e" * 64, "split_hash": "b" * 64, "phantom": 2}},
         "its phantom version is 2, not none or 1"),
        ({"version": 3}, "its task version is 3, not 1"),
        ({"recipe": {"steps": 2}}, "its recipe hash is"),
        ({"task": "segmentation"}, "its task is segmentation, not detection"),
    ],
)  # fmt: skip
def test_a_run_that_may_not_be_compared_is_refused_and_the_hash_that_differs_named(
    published: Path, theirs: list[Path], changes: dict[str, Any], said: str
) -> None:
    before = contents(published)
    changed(theirs[4], **changes)
    with pytest.raises(StaleError, match=said):
        leaderboard.add(published, theirs)
    assert contents(published) == before


def test_without_a_board_nothing_is_comparable(tmp_path: Path, theirs: list[Path]) -> None:
    with pytest.raises(StaleError, match="no board stands"):
        leaderboard.add(tmp_path / "nowhere", theirs)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arm", "../../../escape"), ("arm", "=cmd()"), ("arm", "<img src=x>"), ("task", "/etc"),
        ("device", "a\nb"), ("device", "\x1b]0;title\x07"), ("dbtbench", "x" * 300), ("seed", 1.5),
        ("scores", {"mean_sensitivity_positive": "high"}), ("counts", {"boxes": -1}), ("\x1b[2J", 1),
    ],
)  # fmt: skip
def test_hostile_records_are_refused_whole(
    published: Path, theirs: list[Path], name: str, value: Any
) -> None:
    before = contents(published)
    changed(theirs[4], **{name: value})
    with pytest.raises(UsageError, match="is not a run's record") as caught:
        leaderboard.add(published, theirs)
    assert str(caught.value).isprintable()
    assert contents(published) == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"task": NaN}', "\xff", "[" * 100_000])
def test_what_is_no_record_at_all_is_refused(published: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="is not a run's record"):
        leaderboard.add(published, [tmp_path / "run.json"])


def test_a_file_that_is_too_large_is_not_read(published: Path, tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UsageError, match="too large"):
        leaderboard.add(published, [tmp_path / "run.json"])


def test_tampered_outcomes_are_refused(published: Path, theirs: list[Path]) -> None:
    before = contents(published)
    file = theirs[4] / "outcomes.csv"
    file.write_text(file.read_text().replace("P9,S9,lcc,0,\n", "P9,S9,lcc,0,0.95\n"))
    with pytest.raises(StaleError, match=f"{theirs[4].name}.*its outcomes give"):
        leaderboard.add(published, theirs)
    assert contents(published) == before


def test_the_same_hash_with_other_content_is_refused(published: Path, tmp_path: Path) -> None:
    before = contents(published)
    standing = next(published.glob("runs/detection/*.json"))
    copy = tmp_path / standing.name
    record = json.loads(standing.read_text())
    write_json(copy, record | {"scores": record["scores"] | {"other": 2.0}})
    with pytest.raises(StaleError, match="another run of the same hash"):
        leaderboard.add(published, [copy])
    write_json(tmp_path / "ffffffffffff.json", record)
    with pytest.raises(StaleError, match="another hash than its content"):
        leaderboard.add(published, [tmp_path / "ffffffffffff.json"])
    assert contents(published) == before


def test_two_files_of_one_hash_must_be_the_same(published: Path, theirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(theirs[0], tmp_path / "copy")
    leaderboard.add(published, [theirs[0], tmp_path / "copy"])
    shutil.copytree(theirs[1], tmp_path / "other")
    changed(tmp_path / "other", seconds=9.0)
    with pytest.raises(StaleError, match="another run of the same hash"):
        leaderboard.add(published, [theirs[1], tmp_path / "other"])


def test_nobody_adds_a_second_try_of_an_arm_and_seed(
    published: Path, tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    renamed = {"name": "e", "fingerprint": "a" * 64, "split_hash": "b" * 64}
    again = write_run(tmp_path / "again", make_record("real", 0, data=renamed), make_outcomes(1))
    with pytest.raises(StaleError, match="same arm and seed as detection"):
        leaderboard.add(published, [again])


def test_a_board_keeps_its_name_when_somebody_calls_the_data_otherwise(
    published: Path, tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    renamed = {"name": "another", "fingerprint": "a" * 64, "split_hash": "b" * 64}
    run = write_run(tmp_path / "theirs", make_record("gan", 0, data=renamed), make_outcomes(5))
    assert leaderboard.add(published, [run])["board"].unique().tolist() == ["detection-d-4a28756b"]


def test_a_path_that_is_not_there_or_holds_nothing_is_an_error(published: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "absent"):
        with pytest.raises(MissingError):
            leaderboard.add(published, [path])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"created": "0001-01-01T00:00:00Z"}, "created"),
        ({"created": "2026-99-99T99:99:99Z"}, "created"),
        ({"created": "9999-12-31T23:59:59Z"}, "created"),
        ({"seed": 10**300}, "seed"),
        ({"seconds": 1e308}, "seconds"),
        ({"counts": {"boxes": 10**400}}, "counts.boxes"),
        ({"scores": {"mean_sensitivity_positive": 1e308}}, "scores.mean_sensitivity_positive"),
        ({"arm": "more-real"}, "augmentation"),
        ({"arm": "oversample"}, "augmentation"),
        ({"arm": "gan+classic"}, "augmentation"),
        ({"arm": "chance"}, "augmentation"),
        ({"arm": "chance", "augmentation": None}, "counts.training_synthetic"),
        ({"augmentation": None}, "augmentation"),
        ({"counts": {"training_synthetic": 25}}, "counts.training_synthetic"),
        ({"arm": "gan:synthetic-only"}, "counts.training_real"),
        ({"data": {"name": "../d", "fingerprint": "a" * 64, "split_hash": "b" * 64}}, "data.name"),
        ({"versions": {"torch": "2/../3"}}, "versions.torch"),
        ({"files": {"../outcomes.csv": "a" * 64}}, "files"),
    ],
)
def test_a_record_that_cannot_be_is_refused_by_its_field(
    published: Path, theirs: list[Path], change: dict[str, Any], said: str
) -> None:
    before = contents(published)
    changed(theirs[4], **change)
    with pytest.raises(UsageError, match=f"is not a run's record: .*{said}"):
        leaderboard.add(published, theirs)
    assert contents(published) == before


def test_a_run_that_found_what_another_arm_found_is_a_copy(
    tmp_path: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    table = make_outcomes(6)
    table["Score"] = [0.9 - 0.01 * n if score > 0 else score for n, score in enumerate(table["Score"])]
    write_run(tmp_path / "work" / "evaluations", make_record("real"), table)
    leaderboard.publish(Workspace(tmp_path / "work"), tmp_path / "results")
    before = contents(tmp_path / "results")
    copy = write_run(tmp_path / "theirs", make_record("gan"), table.iloc[::-1])
    with pytest.raises(StaleError, match="the same outcomes"):
        leaderboard.add(tmp_path / "results", [copy])
    assert contents(tmp_path / "results") == before
