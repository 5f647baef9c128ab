"""The reference board's commands, on a cohort so small that they take a minute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "reference.sh"
SMALL = {
    "PATIENTS": "30",
    "RECIPE": "--recipe smoke",
    "DDPM": "--recipe smoke",
    "ZOO": "--recipe smoke",
    "SEEDS": "1",
    "CURVE": "0.6",
    "MEASURED": "smoke",
}


@pytest.mark.slow
def test_the_reference_board_is_made_by_one_command_that_continues(tmp_path: Path) -> None:
    environment = os.environ | SMALL | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for _ in range(2):
        done = subprocess.run(
            ["sh", SCRIPT, tmp_path / "work"], env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr[-2000:]
        for arm in (
            "real",
            "chance",
            "blob",
            "untrained",
            "classic",
            "texture",
            "paste",
            "vae (2 trainings)",
            "flow (2 trainings)",
            "gan (2 trainings)",
            "inpaint-0+paste",
        ):
            assert f"\n{arm} ×" in done.stdout
        assert "test lesions found always, sometimes and never" in done.stdout
    assert "train (" not in done.stderr
