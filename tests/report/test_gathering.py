"""Gathering: a published board that says what the runs say is taken, any other is built again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dbtbench import leaderboard
from dbtbench.errors import MissingError
from dbtbench.report import gather
from dbtbench.workspace import Workspace


def test_a_published_board_is_taken_as_it_is(published: Path) -> None:
    material = gather(results=published)
    assert material.source == "leaderboard.csv as published"
    built = leaderboard.build(published)
    same = ["board", "arm", "metric", "seeds", "verdict"]
    pd.testing.assert_frame_equal(material.table[same], built[same].fillna(""), check_dtype=False)


@pytest.mark.parametrize("change", ["value", "arm", "columns"])
def test_a_board_that_says_something_else_is_built_again(published: Path, change: str) -> None:
    file = published / "leaderboard.csv"
    table = pd.read_csv(file)
    if change == "value":
        table.loc[table["metric"] == "mean_sensitivity_positive", "value"] += 0.1
    elif change == "arm":
        table = table[table["arm"] != "ddpm"]
    else:
        table = table.drop(columns="verdict")
    table.to_csv(file, index=False)
    material = gather(results=published)
    assert material.source == "built from the runs"
    assert set(material.table["arm"]) >= {"real", "ddpm"}


def test_no_runs_are_an_error_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished evaluation") as error:
        gather(Workspace(tmp_path))
    assert "dbtbench evaluate" in error.value.hint


def test_runs_of_a_workspace_know_their_folders_and_their_data(work: Workspace) -> None:
    material = gather(work)
    board = material.boards[0]
    assert list(board.runs) == ["real", "gan0", "gan1"]
    folder = material.folder_of(board.first)
    assert folder is not None
    assert (folder / "run.json").is_file()
    dataset = material.dataset_of(board.first)
    assert dataset is not None
    assert dataset.name == "toy"
    assert material.read_kept(board.first, "predictions.csv", ["Score"]) is not None
    assert material.read_kept(board.first, "predictions.csv", ["other"]) is None
