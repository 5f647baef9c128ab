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


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the benchmark printed and wrote."""
    out = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--batch", "1", "--out", str(out)]
    # With PYTHONSAFEPATH a script does not find the modules next to it. Workers would cost seconds each.
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "LOKY_MAX_CPU_COUNT": "1"}
    command += ["--train", "0.2", "--patients", "8"]
    done = subprocess.run(command, check=True, text=True, capture_output=True, env=environment)
    return done.stdout, json.loads((out / "gpu.json").read_text())


def test_every_network_is_measured_as_it_is_and_compiled(measured: tuple[str, dict[str, Any]]) -> None:
    text, result = measured
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
        assert row["share"] == pytest.approx(row["trained"] * row["gflop"] / 1e3 / result["tflops"])
        assert f"| {row['network']} | {row['compiled']} | {row['parameters']} | 1 |" in text


def test_realism_is_reported_by_the_number_of_steps(measured: tuple[str, dict[str, Any]]) -> None:
    rows = measured[1]["realism"]["rows"]
    assert rows[0]["arm"] == "real"
    steps = [row["steps"] for row in rows[1:]]
    assert steps == sorted(set(steps))
    assert all(row["w1_intensity"] > 0 for row in rows[1:])
