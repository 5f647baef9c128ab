"""Fitted generators: the one that drew a data set, and what all fits of one took."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.generator import Generator
from dbtbench.pipeline.generate import identify_fit
from dbtbench.runs import Run
from dbtbench.runtime.files import read_json, short_digest
from dbtbench.runtime.progress import log
from dbtbench.workspace import Workspace


def find_fitted(drawn: DBTDataset, real: DBTDataset) -> Generator[Any] | None:
    """Load the generator that drew a data set, from the workspace that the data set lies in.

    Nothing is trained: what is not there any more, or is of another version, is not found.

    Args:
        drawn: the synthetic data set.
        real: the real data set.

    Returns:
        The fitted generator; None, and a line in the log, where it cannot be had.
    """
    source = drawn.meta["source"]
    name = str(source["generator"])
    try:
        return _load(source, name, Workspace(drawn.path.parent.parent), real)
    except (DBTBenchError, ValueError) as error:
        log.info(f"{drawn.name}: {name} cannot be loaded: {error}")
        return None


def _load(source: dict[str, Any], name: str, workspace: Workspace, real: DBTDataset) -> Generator[Any]:
    """Load a generator by what a data set says of its maker.

    Raises:
        DBTBenchError: when its plug-in or its run is not there.
        ValueError: when it is not the one that the data set names.
    """
    cls: type[Generator[Any]] = plugins.load(plugins.get("generators", name))
    if cls.version != source["version"]:
        raise ValueError(f"its version is {cls.version}, version {source['version']} drew these volumes")
    generator = cls(cls.recipe_class.model_validate(source["recipe"]))
    identity = identify_fit(name, generator, real)
    if short_digest(identity) != source["run"]:
        raise ValueError(f"it was fitted to other data than {real.name}, or under another name of these")
    run = Run.of(workspace.generators / name, identity)
    if not run.finished:
        raise ValueError(f"run {source['run']} is not in {workspace.generators}")
    run.check()
    with plugins.blame("generators", name):
        generator.check(real.grid)
        generator.fit(real.select("train"), run)
    return generator


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
