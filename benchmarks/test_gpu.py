"""Tests of the GPU benchmark on the CPU, with small networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers import Settings, build_own

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("gpu.py")


def run(out: Path, *more: str) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--batch", "2", "--out", str(out)]
    # With PYTHONSAFEPATH a script does not find the modules next to it.
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run([*command, *more], check=True, text=True, capture_output=True, env=environment)
    result: dict[str, Any] = json.loads((out / "gpu.json").read_text())
    return done.stdout, result


def test_every_network_is_measured_as_it_is_and_compiled(tmp_path: Path) -> None:
    text, result = run(tmp_path)
    rows = result["networks"]
    assert [(row["network"], row["compiled"]) for row in rows] == [
        ("ours, 8 wide", False),
        ("MONAI, 8 wide", False),
        ("ours, 8 wide", True),
        ("MONAI, 8 wide", True),
    ]
    assert rows[0]["parameters"] == build_own(Settings("unet", 4, 8, (1, 2), 1)).parameters
    assert rows[0]["gflop"] == rows[2]["gflop"]
    for row in rows:
        assert not row["failed"]
        assert min(row["trained"], row["drawn"], row["gflop"]) > 0
        assert 0 < row["share"] < 1
        assert f"| {row['network']} | {row['compiled']} | {row['parameters']} | 2 |" in text


def test_realism_is_reported_by_the_number_of_steps(tmp_path: Path) -> None:
    _, result = run(tmp_path, "--train", "0.2", "--patients", "8")
    rows = result["realism"]["rows"]
    assert rows[0]["arm"] == "real"
    steps = [row["steps"] for row in rows[1:]]
    assert steps == sorted(set(steps))
    assert all(row["w1_intensity"] > 0 for row in rows[1:])
