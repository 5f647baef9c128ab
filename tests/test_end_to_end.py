"""The whole path at its smallest size, from DICOM files to a row on the board, through the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbtbench.data.dataset import DBTDataset

pytestmark = pytest.mark.slow

PATH = [
    ["data", "phantom", "--preset", "tiny", "--patients", "10", "--out", "phantom"],
    ["data", "import", "bcs-dbt", "phantom", "--name", "toy", "--reserve", "0.4"],
    ["generate", "classic", "--n", "6"],
    ["generate", "ddpm", "--recipe", "smoke", "--n", "6"],
    ["evaluate", "--task", "detection", "--recipe", "smoke", "--seeds", "2", "--aug=ddpm", "--aug=classic",
     "--arms=ddpm+classic", "--arms=ddpm:shuffled-boxes", "--arms=more-real", "--arms=blob"],
    ["evaluate", "--task", "realism", "--aug", "ddpm"],
    ["leaderboard"],
    ["leaderboard", "--check"],
]  # fmt: skip

ONE_PROCESS = """
import json, sys
from dbtbench.cli import main

for words in [json.loads(words) for words in sys.argv[1:]]:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, start_command: Any) -> Path:
    """The path, walked by a fork of its own for each command."""
    folder = tmp_path_factory.mktemp("first")
    for words in PATH:
        done = start_command(*words, folder=folder).wait()
        assert done.returncode == 0, done.stderr
    return folder


def results_of(folder: Path) -> dict[str, bytes]:
    """Every file whose bytes the seeds decide."""
    work = folder / "dbtbench-work"
    kept = ("*.dcm", "*.csv", "*.safetensors", "c/*/0/0/0")
    files = {
        p for pattern in kept for p in (*folder.glob(f"phantom/**/{pattern}"), *work.glob(f"*/**/{pattern}"))
    }
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(files) if p.name != "leaderboard.csv"
    }


def test_the_board_has_a_row_for_each_arm_and_metric(walked: Path) -> None:
    board = pd.read_csv(walked / "dbtbench-work" / "results" / "leaderboard.csv")
    detection = board[board["task"] == "detection"]
    assert set(detection["arm"]) == {
        "real", "blob", "classic", "ddpm", "ddpm+classic", "ddpm:shuffled-boxes", "more-real"
    }  # fmt: skip
    assert detection.groupby("arm")["seeds"].first()[["real", "blob", "ddpm"]].tolist() == [4, 1, 2]
    assert detection["metric"].nunique() == 9
    decides = detection[detection["primary"] == 1].set_index("arm")
    assert set(decides["verified"]) == {"outcomes"}
    assert decides.loc["ddpm", "verdict"].endswith("2 seeds against 4: too few seeds to tell")
    assert set(board.loc[board["task"] == "realism", "arm"]) == {"real", "ddpm", "ddpm:shuffled-boxes"}


def test_the_same_seeds_give_the_same_files_scores_and_samples(walked: Path, tmp_path: Path) -> None:
    """In a process for each command, or in one."""
    subprocess.run([sys.executable, "-c", ONE_PROCESS, *map(json.dumps, PATH)], cwd=tmp_path, check=True)
    first, second = results_of(walked), results_of(tmp_path)
    assert len(first) > 70
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_a_second_call_finds_everything_done(walked: Path, start_command: Any) -> None:
    for words in PATH[1:6]:
        done = start_command(*words, folder=walked).wait()
        assert "already" in done.stderr
        assert "/s" not in done.stderr  # no progress: nothing was trained


def test_an_interrupted_command_ends_with_130_and_leaves_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a worker for each core."""
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT")
    command = [sys.executable, "-m", "dbtbench", "data", "phantom", "--patients", "200", "--out", "phantom"]
    # A job in the background of a shell ignores SIGINT, and so do its children by default.
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list(tmp_path.rglob("*.dcm")):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("interrupted: the same command continues\n")
    assert "Traceback" not in err
    assert list(tmp_path.rglob("*.dcm"))


def test_generate_killed_at_any_moment_continues_to_the_same_bytes(walked: Path, start_command: Any) -> None:
    """While it trains, while it draws its first volumes, and later ones."""
    words = ["generate", "ddpm", "--recipe", "smoke", "--n", "24"]
    killed = walked / "killed"
    shutil.copytree(walked / "dbtbench-work" / "datasets" / "toy", killed / "datasets" / "toy")
    for file, lines in (("metrics.jsonl", 5), ("journal.jsonl", 3), ("journal.jsonl", 9)):
        command = start_command(*words, "--workspace", killed, folder=walked)
        while command.process.is_alive() and count_lines(killed, file) < lines:
            time.sleep(0.002)
        command.process.kill()
        assert command.wait().returncode == -signal.SIGKILL
    for more in (["--workspace", killed], []):
        done = start_command(*words, *more, folder=walked).wait()
        assert done.returncode == 0, done.stderr
    (again,) = (killed / "datasets").glob("ddpm-toy-*")
    undisturbed = DBTDataset.open(walked / "dbtbench-work" / "datasets" / again.name)
    assert DBTDataset.open(again).fingerprint == undisturbed.fingerprint


def count_lines(folder: Path, name: str) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob(name))
