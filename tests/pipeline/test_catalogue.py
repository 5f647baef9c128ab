"""Names of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbtbench.errors import UsageError
from dbtbench.pipeline.catalogue import check_synthetic_name

NAMES = ["ddpm", "classic", "real", "none", "more-real"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="already means something"):
        check_synthetic_name(tmp_path / name)


def test_an_import_is_refused_before_anything_is_read(tmp_path: Path, start_command: Any) -> None:
    words = ["data", "import", "volumes", tmp_path / "absent", "--name", "ddpm", "--data", "toy"]
    done = start_command(*words, "--workspace", tmp_path).wait()
    assert done.returncode == 2
    assert "'ddpm' already means something" in done.stderr
