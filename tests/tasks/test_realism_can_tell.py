"""The table of what the metrics of realism can tell, and what is said of it; small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from realism_can_tell import HALVES, Place, check, main, write_table

from dbtbench.data.dataset import DBTDataset
from dbtbench.metric import Standing


def place(value: float, percentile: float) -> Place:
    return Place(value, Standing(0, 1, 0.5, 0.4, 0.6, percentile))


def test_what_is_required_is_said_to_be_met_or_not() -> None:
    inside, outside = place(0.5, 50), place(0.9, 100)
    names = ("c2st_auc", "roughness", "power_fine", "kid")
    halves = dict.fromkeys(HALVES, dict.fromkeys(names, inside))
    rows = halves | {
        "texture": dict.fromkeys(names, outside),
        "ddpm 0 steps": dict.fromkeys(names, inside) | dict.fromkeys(names[:2], outside),
        "ddpm 9 steps": dict.fromkeys(names, inside) | {"power_fine": outside},
    }
    lines = check(rows, [9, 0])
    assert lines[0] == "real half A: 0 of 4 outside of the floor's 95 % "
    assert lines[2:] == [
        "texture: 4 of 4 outside, 3 are required: met",
        "ddpm 0 steps: 2 of 4 outside, 3 are required: NOT MET",
        "ddpm 9 steps is worse than ddpm 0 steps by 1 of 3 (power_fine)",
    ]
    table = write_table(rows).splitlines()
    assert table[0] == "| metric | real half A | real half B | texture | ddpm 0 steps | ddpm 9 steps |"
    assert "| `roughness` | +0 P50 | +0 P50 | **+0.4 P100** | **+0.4 P100** | +0 P50 |" in table


@pytest.mark.slow
def test_the_table_is_made_by_one_command_that_finds_again_what_was_finished(
    make_toy: Callable[..., DBTDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_toy(tmp_path / "work" / "datasets" / "toy", patients=16)
    words = [str(data.path), "--steps", "0", "1", "--recipe", "smoke", "--n", "40"]
    words += ["--set", "volumes=40", "--set", "draws=4"]
    tables, times = [], []
    for _ in range(2):
        main(words)
        tables.append(capsys.readouterr().out)
        files = sorted((tmp_path / "work").rglob("*.json"))
        times.append({file: file.stat().st_mtime_ns for file in files})
    assert tables[0] == tables[1]
    assert times[0] == times[1]
    header = next(line for line in tables[0].splitlines() if line.startswith("| metric"))
    names = "real half A | real half B | classic | paste | texture | ddpm 0 steps | ddpm 1 steps"
    assert header == f"| metric | {names} |"
    assert "| `c2st_auc` |" in tables[0] or "| `kid` |" in tables[0]
    assert "ddpm 1 steps is worse than ddpm 0 steps by" in tables[0]
