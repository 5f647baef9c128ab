"""The folder of results: copies of the runs, and what is made from them, always the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.errors import StaleError, UsageError
from dbtbench.leaderboard import staging
from dbtbench.runtime import files
from dbtbench.runtime.files import atomic_path, read_json, write_json
from dbtbench.workspace import Workspace

Make = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_records_and_outcomes_are_copied(evaluated: Workspace, published: Path) -> None:
    for run in evaluated.evaluations.glob("*/*/run.json"):
        copy = published / "runs" / "detection" / f"{run.parent.name}.json"
        assert copy.read_bytes() == run.read_bytes()
        assert copy.with_suffix(".outcomes.csv").read_bytes() == (run.parent / "outcomes.csv").read_bytes()


def test_everything_is_the_same_bytes_whenever_it_is_built(
    evaluated: Workspace, published: Path, board_readme: bytes
) -> None:
    first = contents(published)
    (published / "leaderboard.csv").unlink()
    (published / "README.md").write_bytes(board_readme)
    leaderboard.publish(evaluated, published)
    assert contents(published) == first
    assert pd.read_csv(published / "leaderboard.csv").columns.tolist() == list(leaderboard.COLUMNS)


def test_the_order_of_the_runs_files_does_not_matter(
    evaluated: Workspace, published: Path, tmp_path: Path
) -> None:
    again = Workspace(tmp_path / "again")
    for run in sorted(evaluated.evaluations.glob("*/*"), reverse=True):
        shutil.copytree(run, again.evaluations / run.parent.name / run.name)
    leaderboard.publish(again, tmp_path / "other")
    assert contents(tmp_path / "other")["leaderboard.csv"] == contents(published)["leaderboard.csv"]


def test_between_its_markers_a_readme_has_the_board_and_elsewhere_it_stays(published: Path) -> None:
    text = (published / "README.md").read_bytes().decode()
    assert text.startswith("# Title\r\n\n<!-- board -->\n\n**detection-d-")
    assert text.endswith("\n\n<!-- /columns -->\nend\n")
    assert "<!-- /board -->\ntext\n\n<!-- columns -->" in text
    assert "\nold\n" not in text
    assert all(f"| {column} |" in text for column in leaderboard.COLUMNS)


def test_the_readme_of_the_folder_above_gets_the_board_where_it_has_markers(
    evaluated: Workspace, published: Path
) -> None:
    above = published.parent / "README.md"
    above.write_bytes(b"\xff no markers, and no UTF-8")
    leaderboard.publish(evaluated, published)
    assert above.read_bytes() == b"\xff no markers, and no UTF-8"
    above.write_bytes(b"\xff <!-- board --><!-- /board -->")
    with pytest.raises(StaleError, match=r"README\.md is not what its runs give"):
        leaderboard.check(evaluated, published)
    leaderboard.publish(evaluated, published)
    leaderboard.check(evaluated, published)
    assert above.read_bytes().startswith(b"\xff <!-- board -->\n\n**detection")


@pytest.mark.parametrize(
    "text", ["<!-- board -->", "<!-- /board --><!-- board -->", "<!-- board -->" * 2 + "<!-- /board -->"]
)
def test_broken_markers_are_an_error(evaluated: Workspace, published: Path, text: str) -> None:
    (published / "README.md").write_text(text)
    with pytest.raises(UsageError, match="once each"):
        leaderboard.publish(evaluated, published)


def test_check_passes_when_up_to_date_and_needs_no_workspace(
    evaluated: Workspace, published: Path, tmp_path: Path
) -> None:
    leaderboard.check(evaluated, published)
    leaderboard.check(Workspace(tmp_path / "elsewhere"), published)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("leaderboard.csv", "0.480000", "0.980000"),
        ("README.md", "0.480", "0.980"),
        ("README.md", "| arm |", "| arm|"),
    ],
)
def test_check_sees_an_edit(evaluated: Workspace, published: Path, name: str, old: str, new: str) -> None:
    file = published / name
    assert old in file.read_text()
    file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))
    before = contents(published)
    with pytest.raises(StaleError, match=f"{name} is not what its runs give"):
        leaderboard.check(evaluated, published)
    assert contents(published) == before


def test_check_sees_a_run_that_was_not_published(
    evaluated: Workspace, published: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    run = write_run(evaluated.evaluations, make_record("ddpm", 7), make_outcomes(5))
    with pytest.raises(StaleError, match=f"{run.name} is not on the board"):
        leaderboard.check(evaluated, published)
    leaderboard.publish(evaluated, published)
    leaderboard.check(evaluated, published)
    (run / "outcomes.csv").unlink()
    with pytest.raises(StaleError, match=f"{run.name} is not on the board"):
        leaderboard.check(evaluated, published)
    leaderboard.publish(evaluated, published)
    leaderboard.check(evaluated, published)


def test_check_sees_a_published_record_of_which_the_identity_was_changed(
    evaluated: Workspace, published: Path
) -> None:
    file = next((published / "runs").glob("*/*.json"))
    file.write_text(file.read_text().replace('"seed": ', '"seed": 1'))
    with pytest.raises(StaleError, match="another hash than its content"):
        leaderboard.check(evaluated, published)


def test_check_sees_changed_outcomes(evaluated: Workspace, published: Path) -> None:
    file = next((published / "runs").glob("*/*.outcomes.csv"))
    file.write_text(file.read_text().replace("P9,S9,lcc,0,\n", "P9,S9,lcc,0,0.95\n"))
    with pytest.raises(StaleError, match="its outcomes give"):
        leaderboard.check(Workspace(evaluated.root / "none"), published)


def test_a_cell_that_a_spreadsheet_would_execute_is_disarmed(
    tmp_path: Path, make_record: Make, write_run: Make
) -> None:
    work = Workspace(tmp_path)
    write_run(work.evaluations, make_record(device="=cmd()", scores={"mean_sensitivity_positive": -0.5}))
    leaderboard.publish(work, tmp_path / "results")
    text = (tmp_path / "results" / "leaderboard.csv").read_text()
    assert ",'=cmd()," in text
    assert ",-0.500000," in text


def test_the_published_board_is_what_its_records_give(tmp_path: Path) -> None:
    board = leaderboard.check(Workspace(tmp_path), Path(__file__).parents[2] / "results")
    assert {"detection", "realism"} <= set(board["task"])
    assert {"real", "classic", "texture", "paste", "ddpm-0"} <= set(board["arm"])


def test_a_run_that_is_wrong_is_not_published_and_nothing_else_is(
    evaluated: Workspace, published: Path, make_record: Make, make_outcomes: Make, write_run: Make
) -> None:
    before = contents(published)
    write_run(evaluated.evaluations, make_record("aaa"), make_outcomes(5))
    wrong = write_run(evaluated.evaluations, make_record("gan"), make_outcomes(5))
    shutil.copyfile(next(iter(published.glob("runs/*/*.outcomes.csv"))), wrong / "outcomes.csv")
    record = read_json(wrong / "run.json")
    write_json(wrong / "run.json", record | {"scores": record["scores"] | {record["primary"]: 0.99}})
    with pytest.raises(StaleError, match=wrong.name):
        leaderboard.publish(evaluated, published)
    assert contents(published) == before
    leaderboard.check(Workspace(evaluated.root / "none"), published)


def test_a_kill_at_any_write_leaves_all_old_or_all_new(
    evaluated: Workspace,
    published: Path,
    make_record: Make,
    make_outcomes: Make,
    write_run: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(published, tmp_path / "copy")
    write_run(evaluated.evaluations, make_record("gan"), make_outcomes(5))
    old = contents(published)
    leaderboard.publish(evaluated, published)
    new = contents(published)
    left = set()
    for last in (0, 1, 3):
        results = tmp_path / str(last)
        shutil.copytree(tmp_path / "copy", results)
        calls = 0

        @contextmanager
        def killed(path: Path, last: int = last) -> Iterator[Path]:
            nonlocal calls
            calls += 1
            if calls > last:
                raise KeyboardInterrupt
            with atomic_path(path) as temporary:
                yield temporary

        with monkeypatch.context() as patched:
            patched.setattr(staging, "atomic_path", killed)
            patched.setattr(files, "atomic_path", killed)
            with pytest.raises(KeyboardInterrupt):
                leaderboard.publish(evaluated, results)
        pending = staging.is_pending(results)
        if pending:
            with pytest.raises(StaleError, match="half written"):
                leaderboard.check(evaluated, results)
        with staging.open_results(results):
            assert contents(results) == (new if pending else old)
        left.add(pending)
    assert left == {False, True}


def test_a_list_of_staged_files_leads_nowhere_else(evaluated: Workspace, published: Path) -> None:
    (published / staging.STAGE).mkdir()
    (published / staging.STAGE / "0").write_text("x")
    write_json(published / staging.STAGE / staging.LIST, {"../../escape": "0"})
    with pytest.raises(StaleError, match="names a file that is not published"):
        leaderboard.publish(evaluated, published)
    assert not (published.parent.parent / "escape").exists()
