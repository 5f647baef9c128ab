"""`dbtbench doctor`: quick, and it names the devices without asking torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dbtbench.cli import doctor


def test_it_imports_no_torch_of_its_own(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dbtbench import plugins\nfrom dbtbench.cli import app\n"
        "plugins.find = lambda kind: {}\n"
        f"app(args=['doctor', '--workspace', {str(tmp_path)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'monai', 'pandas', 'zarr'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch 2" in done.stdout
    assert "devices: " in done.stdout


@pytest.mark.parametrize(
    ("text", "model"),
    [("Model: \t\t NVIDIA H100\nIRQ: 7\n", "NVIDIA H100"), ("", "NVIDIA GPU"), (None, "NVIDIA GPU")],
)
def test_a_gpu_is_called_as_the_driver_calls_it(tmp_path: Path, text: str | None, model: str) -> None:
    if text is not None:
        (tmp_path / "information").write_text(text, encoding="utf-8")
    assert doctor._gpu_model(tmp_path) == model
