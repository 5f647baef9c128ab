"""`dbtbench generate` on several processes: the same bytes, and what makes no sense is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbtbench.data.dataset import DBTDataset

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WORDS = ["generate", "ddpm", "--recipe", "smoke", "--set", "steps=4", "--data", "toy", "--n", "14"]


@pytest.fixture
def run(start_command: Any) -> Run:
    """`run(folder, *more)`: generate there, with more options."""
    return lambda folder, *more: start_command(*WORDS, "--workspace", folder, *more).wait()


@pytest.fixture
def workspace(toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(toy.path, tmp_path / "work" / "datasets" / "toy")
    return tmp_path / "work"


def test_gpus_and_processes_together_are_refused(workspace: Path, run: Run) -> None:
    done = run(workspace, "--gpus", "2", "--processes", "2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --gpus and --processes are both given\nhint: ")


def test_processes_that_cannot_divide_the_batch_are_not_started(workspace: Path, run: Run) -> None:
    done = run(workspace, "--processes", "3")
    assert done.returncode == 2
    expected = (
        "error: a batch of 4 cannot be divided among 3 processes\nhint: --set batch=3, or another number"
    )
    assert done.stderr == f"{expected} of processes\n"
    assert not (workspace / "generators").exists()


def test_processes_of_a_generator_that_trains_on_one_are_not_started(
    workspace: Path, start_command: Any
) -> None:
    done = start_command("generate", "classic", "--processes", "2", "--workspace", workspace).wait()
    assert done.returncode == 2
    assert done.stderr.startswith("error: classic does not train on several processes\n")


def test_a_wrong_setting_is_reported_before_a_data_set_is_made(tmp_path: Path, start_command: Any) -> None:
    words = ["generate", "ddpm", "--set", "guidance_weight=2", "--workspace", tmp_path]
    done = start_command(*words).wait()
    assert done.returncode == 2
    assert done.stderr.endswith("hint: did you mean 'guidance_scale'?\n")
    assert not list(tmp_path.iterdir())


def test_a_sweep_may_complete_a_setting_that_is_wrong_alone(workspace: Path, run: Run) -> None:
    """The noise cannot be predicted at zero terminal SNR, which the sweep turns off."""
    done = run(workspace, "--set", "target=noise", "--sweep", "zero_terminal_snr=false,true")
    assert done.returncode == 2
    assert "setting target = 'noise'" in done.stderr  # of the second combination
    done = run(workspace, "--set", "target=noise", "--sweep", "zero_terminal_snr=false", "--n", "0")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: cannot draw 0 volumes with a share of 0.5 positives",
    )


WRONG = """
import numpy as np
from dbtbench.generator import Generator, Sample
from dbtbench.recipe import Recipe

class Wrong(Generator[Recipe]):
    parallel = True

    def fit(self, train, run):
        self.grid = train.grid

    def sample(self, layouts):
        for layout in layouts:
            yield Sample(np.full(self.grid, np.nan if layout.index == 33 else 0.5), layout.boxes)
"""


@pytest.mark.slow
def test_a_wrong_sample_of_another_process_is_named_and_nothing_is_kept(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layout 33 is in the second block, which the second process draws."""
    site = tmp_path / "site"
    (site / "wrong-1.dist-info").mkdir(parents=True)
    (site / "wrong.py").write_text(WRONG, encoding="utf-8")
    (site / "wrong-1.dist-info" / "METADATA").write_text("Name: wrong\nVersion: 1\n", encoding="utf-8")
    entry = "[dbtbench.generators]\nwrong = wrong:Wrong\n"
    (site / "wrong-1.dist-info" / "entry_points.txt").write_text(entry, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(site))
    words = ["generate", "wrong", "--n", "40", "--processes", "2", "--workspace", str(workspace)]
    command = [sys.executable, "-m", "dbtbench", *words]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "generator wrong, layout 33: 8192 of the volume's 8192 values are NaN" in done.stderr
    assert [path.name for path in (workspace / "datasets").iterdir() if path.is_dir()] == ["toy"]
