"""The finished trainings of a generator in a workspace: their size and cost."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from dbtbench.runtime.files import read_json
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace


def describe_fits(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Describe the finished trainings of a generator in a workspace, in the order of their names.

    Returns:
        For each `run`, `data`, `recipe`, `parameters` (numbers in its weights; None where it kept none),
        `hours` and `device`.
    """
    return list(_describe_fits(workspace.generators / name))


def _describe_fits(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*/run.json")):
        try:
            said = read_json(file)
            yield {
                "run": file.parent.name,
                "data": str(said["data"]["name"]),
                "recipe": dict(said["recipe"]),
                "parameters": _count_parameters(file.parent),
                "hours": round(float(said["seconds"]) / 3600, 3),
                "device": str(said["device"]),
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info(f"left out: {file} cannot be read: {error!r}")


def _count_parameters(run: Path) -> int | None:
    """Count the numbers in a run's weights from their headers; None where there are no weights."""
    from safetensors import SafetensorError, safe_open

    files, count = sorted(run.glob("*.safetensors")), 0
    for file in files:
        try:
            with safe_open(file, "np") as weights:
                count += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file.name}: {error}") from error
    return count if files else None
