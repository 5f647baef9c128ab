"""A generator is fitted to a training split and draws a synthetic data set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from dbtbench import plugins, recipe
from dbtbench.data.dataset import GRID_BOX, SPACING, DBTDataset
from dbtbench.data.writer import DatasetWriter, Entry, entry_of, find_finished, store_volume
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.layouts import Places, draw_layouts
from dbtbench.pipeline.catalogue import check_synthetic_name
from dbtbench.pipeline.oddities import find_oddities
from dbtbench.pipeline.samples import SampleError, draw_samples
from dbtbench.recipe import Recipe
from dbtbench.runs import Run, open_run
from dbtbench.runtime import distributed
from dbtbench.runtime.files import digest, short_digest
from dbtbench.runtime.progress import log
from dbtbench.training.recipe import TrainingRecipe
from dbtbench.workspace import Workspace

BLOCK = 32
"""Layouts that a process draws in one go, unless the recipe has a `sample_batch`."""


@dataclass(frozen=True)
class Fitted:
    """A generator that is ready to draw.

    Attributes:
        generator: the generator.
        data: the real data set whose training split it saw.
        identity: generator, version, recipe and data: what names its run.
        chosen: names of the settings whose values the generator chose itself while it was fitted.
    """

    generator: Generator[Any]
    data: DBTDataset
    identity: dict[str, Any]
    chosen: tuple[str, ...] = ()


def configure(
    name: str, recipe_name: str = "default", overrides: Mapping[str, str] | None = None
) -> Generator[Any]:
    """A generator with its recipe, not yet fitted.

    Raises:
        DBTBenchError: when the generator's own code fails.
        MissingError: for an unknown generator, or one that cannot be loaded.
        UsageError: for a wrong recipe or setting.
    """
    cls: type[Generator[Any]] = plugins.load(plugins.get("generators", name))
    with plugins.blame("generators", name):
        return cls(recipe.resolve(cls.recipe_class, recipe.folder_of(cls), recipe_name, overrides))


def check_processes(generator: Generator[Any], name: str, processes: int) -> None:
    """Check that a generator can be trained on a number of processes.

    Raises:
        UsageError: when it trains on one process only, or its batch cannot be divided among them.
    """
    if processes > 1 and not generator.parallel:
        raise UsageError(f"{name} does not train on several processes", "leave --gpus and --processes out")
    if isinstance(generator.recipe, TrainingRecipe):
        generator.recipe.divide_batch(processes)


def fit(
    workspace: Workspace,
    name: str,
    data: DBTDataset,
    recipe_name: str = "default",
    overrides: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Fitted:
    """Fit a generator to the training split, or load it when that was done.

    Under torchrun every process calls this.

    Args:
        workspace: where runs are kept.
        name: the generator.
        data: the real data set.
        recipe_name: which of the generator's recipes.
        overrides: `key: text` settings over the recipe.
        fresh: train again even when it was done; not when torchrun starts a failed process again.

    Raises:
        DBTBenchError: when the generator's own code fails.
        MissingError: for an unknown generator, or one that cannot be loaded.
        StaleError: when weights, or another file of a finished training, are not those that it left.
        UsageError: for a wrong recipe or setting, or one that does not go with the data set's grid.
    """
    return fit_configured(workspace, name, configure(name, recipe_name, overrides), data, fresh)


def fit_configured(
    workspace: Workspace, name: str, generator: Generator[Any], data: DBTDataset, fresh: bool = False
) -> Fitted:
    """Fit a generator that has its recipe already, installed or not; see `fit`."""
    with plugins.blame("generators", name):
        generator.check(data.grid)
    check_processes(generator, name, distributed.size())
    identity = identify_fit(name, generator, data)
    asked = generator.recipe.model_dump()
    with _shared_run(workspace, name, identity, fresh) as run:
        if distributed.rank() == 0 and run.finished:
            run.check()
        with plugins.blame("generators", name):
            generator.fit(data.select("train"), run)
        if distributed.rank() == 0 and not run.finished:
            run.finish()
    chosen = (name for name, value in generator.recipe.model_dump().items() if value != asked[name])
    return Fitted(generator, data, identity, tuple(chosen))


def identify_fit(name: str, generator: Generator[Any], data: DBTDataset) -> dict[str, Any]:
    """Describe everything that a generator's weights depend on: the identity of its run."""
    return {
        "generator": name,
        "version": generator.version,
        "recipe": generator.recipe.fit_settings(),
        "data": data.identity,
    }


def _shared_run(
    workspace: Workspace, name: str, identity: dict[str, Any], fresh: bool
) -> AbstractContextManager[Run]:
    """The run's folder: process 0 opens and locks it for all."""
    folder = workspace.generators / name
    if distributed.rank() > 0:
        return nullcontext(Run.of(folder, identity))
    return open_run(folder, identity, fresh and not distributed.is_restart())


def plan(
    generator: Generator[Any],
    data: DBTDataset,
    n: int | None = None,
    seed: int = 0,
    positives: float = 0.5,
    places: Places = "known",
) -> list[Layout]:
    """Draw the layouts that a generator will be asked for; it need not be trained yet.

    Args:
        generator: the generator, fitted or not.
        data: the real data set.
        n: how many volumes; as many as the training split has when None.
        seed: seed of the layouts.
        positives: share of volumes with lesions, in [0, 1]; 0 for a generator that cannot follow boxes.
        places: see `draw_layouts`.

    Raises:
        UsageError: for unknown places, a number or share out of range, or lesions that the training split
            does not have.
    """
    train = data.select("train")
    n = len(train) if n is None else n
    if n < 1 or not 0 <= positives <= 1:
        raise UsageError(
            f"cannot draw {n} volumes with a share of {positives} positives", "n ≥ 1, 0 ≤ positives ≤ 1"
        )
    positives = positives if generator.follows_boxes else 0.0
    return draw_layouts(train, n, seed, positives, places=places)


def draw(
    workspace: Workspace,
    fitted: Fitted,
    n: int | None = None,
    seed: int = 0,
    positives: float = 0.5,
    fresh: bool = False,
    name: str | None = None,
    places: Places = "known",
) -> DBTDataset:
    """Draw a synthetic data set; what an earlier, killed call drew is kept.

    When a sample breaks the contract, nothing is kept: what the same code drew before is not trusted either.

    Under torchrun every process calls this, and draws its share.

    Args:
        workspace: where data sets are kept.
        fitted: the generator.
        n: see `plan`.
        seed: seed of the layouts and of what is drawn.
        positives: see `plan`.
        fresh: draw again even when it was done.
        name: of the data set; made of the generator's, the real data set's and a hash when None.
        places: see `plan`.

    Raises:
        DBTBenchError: when the generator's own code fails.
        SampleError: when a sample breaks the contract (`dbtbench.pipeline.samples`).
        UsageError: see `plan`, or for a name that another data set has.
    """
    layouts = plan(fitted.generator, fitted.data, n, seed, positives, places)
    positives = positives if fitted.generator.follows_boxes else 0.0
    settings = fitted.generator.recipe.model_dump(mode="json")
    request = {**fitted.identity, "recipe": settings, "seed": seed, "positives": positives, "n": len(layouts)}
    request |= {} if places == "known" else {"places": places}  # earlier records do not name it
    path = workspace.datasets / (name or f"{request['generator']}-{fitted.data.name}-{digest(request)[:8]}")
    if name is not None:
        check_synthetic_name(path)
    fresh = fresh and not distributed.is_restart()
    if distributed.from_leader(_is_finished(path, request, fresh)):
        return DBTDataset.open(path)
    meta = {
        "intensity": fitted.data.meta["intensity"],
        "source": {
            "kind": "synthetic",
            "derived": fitted.generator.derived,
            "learned": fitted.generator.learned,
            **({"chosen": list(fitted.chosen)} if fitted.chosen else {}),
            "run": short_digest(fitted.identity),
            **request,
        },
        "split": {"kind": "all for training"},
    }
    if distributed.rank() > 0:
        _draw_all(fitted, layouts, None)
    else:
        with DatasetWriter(path, fitted.data.grid, len(layouts), request, fresh) as writer:
            _draw_all(fitted, layouts, writer)
            made = writer.finish(meta, fitted.data.split_hash)
        for oddity in find_oddities(made, fitted.data.select("train")):
            log.warning(f"warning: {made.name}: {oddity}")
    distributed.from_leader(None)  # the others wait until it has its name
    return DBTDataset.open(path)


def _is_finished(path: Path, request: Mapping[str, Any], fresh: bool) -> bool:
    """Whether the data set is there, as process 0 sees it."""
    if distributed.rank() > 0 or find_finished(path, request, fresh) is None:
        return False
    log.info(f"{path.name}: already drawn")
    return True


def _draw_all(fitted: Fitted, layouts: Sequence[Layout], writer: DatasetWriter | None) -> None:
    """Draw what is not held yet: each process stores its volumes, process 0, with the writer, records them.

    In every round each process draws one block, in the last one perhaps an empty one. A block is what the
    generator draws together, so a kill costs nothing that a batch of the network would not cost anyway.
    """
    state = (str(writer.folder), list(writer.entries)) if writer else None
    place, stored = distributed.from_leader(state)
    folder, done = Path(place), set(stored)
    name, total = str(fitted.identity["generator"]), len(layouts)
    blocks = _blocks([layout for layout in layouts if layout.index not in done], fitted.generator.recipe)
    sources = _sources(fitted.data)
    while not blocks or len(blocks) % distributed.size():
        blocks.append([])
    try:
        with distributed.leader_progress(f"{name}: draw", total, done=len(done)) as advance:
            for block in distributed.share(blocks):
                for entry in _gather(_draw_block(fitted, block, folder, sources)):
                    assert writer
                    writer.record(entry)
                    advance()
    except SampleError:
        if writer:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _blocks(layouts: Sequence[Layout], recipe: Recipe) -> list[list[Layout]]:
    """Layouts that are drawn together: those of one block of consecutive indices.

    Blocks follow from the index alone, so that a generator that puts layout i into row i of a batch always
    finds them in the same rows.
    """
    size = getattr(recipe, "sample_batch", BLOCK)
    return [list(block) for _, block in groupby(layouts, lambda layout: layout.index // size)]


def _draw_block(
    fitted: Fitted, layouts: Sequence[Layout], folder: Path, sources: Mapping[int, dict[str, Any]]
) -> Iterator[Entry]:
    """Draw and store volumes; gives what is to be recorded of them."""
    if not layouts:
        return
    name, grid = str(fitted.identity["generator"]), fitted.data.grid
    samples = draw_samples(fitted.generator, name, layouts, grid)
    for layout, sample in zip(layouts, samples, strict=True):
        size = sources[layout.source]
        stored = {"sha256": store_volume(folder, layout.index, sample.volume)}
        boxes = [_box(box, sample, size, grid) for box in sample.boxes.tolist()]
        yield entry_of(layout.index, {**_case(name, layout, sample, size), **stored}, boxes)


def _gather(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries of all processes, on process 0: one by one when it is alone, else when all are ready.

    Raises:
        SampleError: on every process, when a sample of any breaks the contract: none is still storing then.
    """
    if distributed.size() == 1:
        yield from entries
        return
    mine: list[Entry] = []
    failure: tuple[str, str] | None = None
    try:
        mine = list(entries)
    except SampleError as error:
        failure = str(error), error.hint
    parts = distributed.to_leader((mine, failure))
    failure = distributed.from_leader(next((error for _, error in parts if error), None))
    if failure:
        raise SampleError(*failure)
    yield from chain.from_iterable(part for part, _ in parts)


def _sources(data: DBTDataset) -> dict[int, dict[str, Any]]:
    """Sizes by case: a volume that is drawn from a case's layout stands for one of its size."""
    table = data.cases.set_index("case").reindex(columns=["slices", "rows", "columns", "pixel_mm", *SPACING])
    table = table.astype(object).where(table.notna(), None)
    return {int(case): row for case, row in table.to_dict("index").items()}


def _case(name: str, layout: Layout, sample: Sample, size: Mapping[str, Any]) -> dict[str, Any]:
    """A synthetic volume's row: it is its own patient, and of its source's native size."""
    patient = f"{name}-{layout.index:06d}"
    return {
        **{"PatientID": patient, "StudyUID": patient, "View": layout.view, "label": sample.label},
        **{"split": "train", **size, "flipped": False, "file": "", "source": layout.source},
    }


def _box(box: list[float], sample: Sample, size: Mapping[str, Any], grid: Sequence[int]) -> dict[str, Any]:
    """A lesion's row: its box in the grid, and in the native coordinates of the volume's size."""
    native = (size["slices"], size["rows"], size["columns"])
    z0, y0, x0, z1, y1, x1 = (b * n / m for b, n, m in zip(box, native * 2, [*grid] * 2, strict=True))
    place = {"Slice": int((z0 + z1) / 2), "X": x0, "Y": y0, "Width": x1 - x0, "Height": y1 - y0}
    row = {"Subject": 0, **place, "Class": sample.label, "AD": 0, "VolumeSlices": native[0]}
    return dict(zip(GRID_BOX, box, strict=True)) | row


def find_augmentation(workspace: Workspace, name: str, data: DBTDataset) -> DBTDataset:
    """The synthetic data set that `--aug NAME` means: its own name, or the generator's latest for these data.

    Raises:
        MissingError: when there is none.
        StaleError: when its generator saw another split than the one to be tested on.
    """
    sources = {
        path: meta["source"]
        for path in (workspace.datasets / other for other in workspace.dataset_names())
        for meta in [DBTDataset.description(path)]
        if meta["source"]["kind"] == "synthetic"
    }
    named = [path for path in sources if path.name == name]
    drawn = [path for path, source in sources.items() if source["generator"] == name]
    fitting = [path for path in drawn if sources[path]["data"]["fingerprint"] == data.fingerprint]
    candidates = named or fitting
    if not candidates:
        other = f" (there is one for {sources[drawn[0]]['data']['name']})" if drawn else ""
        raise MissingError(
            f"nothing drawn by {name!r} for {data.name}{other}",
            f"run `dbtbench generate {name} --data {data.name}`",
        )
    chosen = DBTDataset.open(max(candidates, key=lambda path: (path / "dataset.json").stat().st_mtime))
    if chosen.split_hash != data.split_hash:
        source = chosen.meta["source"]
        raise StaleError(
            f"{chosen.name} was made from another split than {data.name}'s: test patients may have been seen",
            f"make it again from {data.name}"
            if source["generator"] == chosen.name
            else f"run `dbtbench generate {source['generator']} --data {data.name}`",
        )
    return chosen
