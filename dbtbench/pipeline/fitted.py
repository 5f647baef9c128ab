"""The generator that drew a data set, with the weights that it drew with."""

from __future__ import annotations

from typing import Any

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.generator import Generator
from dbtbench.pipeline.generate import identify_fit
from dbtbench.runs import Run
from dbtbench.runtime.files import short_digest
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
