"""A generator is fitted to a training split and draws a synthetic data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from dbtbench import plugins, recipe
from dbtbench.catalogue import datasets
from dbtbench.data.dataset import GRID_BOX, SPACING, DBTDataset
from dbtbench.data.writer import DatasetWriter, find_finished
from dbtbench.errors import MissingError, StaleError, UsageError
from dbtbench.files import digest
from dbtbench.generator import Generator, Layout, Sample, draw_layouts
from dbtbench.progress import progress, say
from dbtbench.runs import Run, open_run
from dbtbench.training import distributed
from dbtbench.workspace import Workspace

LAYOUTS_A_CALL = 32


@dataclass(frozen=True)
class Fitted:
    """A generator that is ready to draw.

    Attributes:
        generator: the generator.
        data: the real data set whose training split it saw.
        identity: generator, version, recipe and data: what names its run.
    """

    generator: Generator[Any]
    data: DBTDataset
    identity: dict[str, Any]


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
        fresh: train again even when it was done.

    Raises:
        MissingError: for an unknown generator.
        UsageError: for a wrong recipe or setting.
    """
    cls: type[Generator[Any]] = plugins.load(plugins.get("generators", name))
    settings = recipe.resolve(cls.recipe_class, recipe.folder_of(cls), recipe_name, overrides)
    if distributed.size() > 1 and not cls.parallel:
        raise UsageError(f"{name} does not train on several processes", "leave --gpus out")
    identity = {
        "generator": name,
        "version": cls.version,
        "recipe": settings.fitting(),
        "data": data.identity,
    }
    generator = cls(settings)
    with _shared_run(workspace, name, identity, fresh) as run:
        generator.fit(data.select("train"), run)
        if distributed.rank() == 0 and not run.finished:
            run.finish()
    return Fitted(generator, data, identity)


def _shared_run(
    workspace: Workspace, name: str, identity: dict[str, Any], fresh: bool
) -> AbstractContextManager[Run]:
    """The run's folder: process 0 opens and locks it for all."""
    folder = workspace.generators / name
    if distributed.rank() > 0:
        return nullcontext(Run(folder / digest(identity)[:12], identity))
    return open_run(folder, identity, fresh)


def plan(
    name: str, data: DBTDataset, n: int | None = None, seed: int = 0, positives: float = 0.5
) -> list[Layout]:
    """What a generator is going to be asked for; whether that can be is known before it is trained.

    Args:
        name: the generator.
        data: the real data set.
        n: how many volumes; as many as the training split has when None.
        seed: seed of the layouts.
        positives: share of volumes with lesions, in [0, 1]; 0 for a generator that cannot follow boxes.

    Raises:
        MissingError: for an unknown generator.
        UsageError: for a number or share out of range, or lesions that the training split does not have.
    """
    cls: type[Generator[Any]] = plugins.load(plugins.get("generators", name))
    train = data.select("train")
    n = len(train) if n is None else n
    if n < 1 or not 0 <= positives <= 1:
        raise UsageError(
            f"cannot draw {n} volumes with a share of {positives} positives", "n ≥ 1, 0 ≤ positives ≤ 1"
        )
    return draw_layouts(train, n, seed, positives if cls.follows_boxes else 0.0)


def draw(
    workspace: Workspace,
    fitted: Fitted,
    n: int | None = None,
    seed: int = 0,
    positives: float = 0.5,
    fresh: bool = False,
) -> DBTDataset:
    """Draw a synthetic data set; what an earlier, killed call drew is kept.

    Args:
        workspace: where data sets are kept.
        fitted: the generator.
        n: see `plan`.
        seed: seed of the layouts and of what is drawn.
        positives: see `plan`.
        fresh: draw again even when it was done.

    Raises:
        UsageError: see `plan`.
    """
    layouts = plan(fitted.identity["generator"], fitted.data, n, seed, positives)
    positives = positives if fitted.generator.follows_boxes else 0.0
    settings = fitted.generator.recipe.model_dump(mode="json")
    request = {**fitted.identity, "recipe": settings, "seed": seed, "positives": positives, "n": len(layouts)}
    name = f"{request['generator']}-{fitted.data.name}-{digest(request)[:8]}"
    finished = find_finished(workspace.datasets / name, request, fresh)
    if finished is not None:
        say(f"{name}: already drawn")
        return finished
    meta = {
        "intensity": fitted.data.meta["intensity"],
        "source": {"kind": "synthetic", "run": digest(fitted.identity)[:12], **request},
        "split": {"kind": "all for training"},
    }
    path = workspace.datasets / name
    with DatasetWriter(path, fitted.data.grid, len(layouts), request, fresh) as writer:
        _draw_all(fitted, layouts, writer)
        return writer.finish(meta, fitted.data.split_hash)


def _draw_all(fitted: Fitted, layouts: Sequence[Layout], writer: DatasetWriter) -> None:
    """Draw what the writer does not hold yet."""
    todo = [layout for layout in layouts if layout.index not in writer.entries]
    name = str(fitted.identity["generator"])
    sources = _sources(fitted.data)
    with progress(f"{name}: draw", len(layouts), done=len(layouts) - len(todo)) as advance:
        for layout, sample in _sampled(fitted.generator, todo):
            size = sources[layout.source]
            boxes = [_box(box, layout, size, fitted.data.grid) for box in sample.boxes.tolist()]
            writer.add(layout.index, sample.volume, _case(name, layout, size), boxes)
            advance()


def _sampled(generator: Generator[Any], layouts: Sequence[Layout]) -> Iterator[tuple[Layout, Sample]]:
    for start in range(0, len(layouts), LAYOUTS_A_CALL):
        batch = layouts[start : start + LAYOUTS_A_CALL]
        yield from zip(batch, generator.sample(batch), strict=True)


def _sources(data: DBTDataset) -> dict[int, dict[str, Any]]:
    """Sizes by case: a volume that is drawn from a case's layout stands for one of its size."""
    table = data.cases.set_index("case").reindex(columns=["slices", "rows", "columns", "pixel_mm", *SPACING])
    table = table.astype(object).where(table.notna(), None)
    return {int(case): row for case, row in table.to_dict("index").items()}


def _case(name: str, layout: Layout, size: Mapping[str, Any]) -> dict[str, Any]:
    """A synthetic volume's row: it is its own patient, and of its source's native size."""
    patient = f"{name}-{layout.index:06d}"
    return {
        **{"PatientID": patient, "StudyUID": patient, "View": layout.view, "label": layout.label},
        **{"split": "train", **size, "flipped": False, "file": "", "source": layout.source},
    }


def _box(box: list[float], layout: Layout, size: Mapping[str, Any], grid: Sequence[int]) -> dict[str, Any]:
    """A lesion's row: its box in the grid, and in the native coordinates of the volume's size."""
    native = (size["slices"], size["rows"], size["columns"])
    z0, y0, x0, z1, y1, x1 = (b * n / m for b, n, m in zip(box, native * 2, [*grid] * 2, strict=True))
    place = {"Slice": int((z0 + z1) / 2), "X": x0, "Y": y0, "Width": x1 - x0, "Height": y1 - y0}
    row = {"Subject": 0, **place, "Class": layout.label, "AD": 0, "VolumeSlices": native[0]}
    return dict(zip(GRID_BOX, box, strict=True)) | row


def find_augmentation(workspace: Workspace, name: str, data: DBTDataset) -> DBTDataset:
    """The synthetic data set that `--aug NAME` means: its own name, or the generator's latest for these data.

    Raises:
        MissingError: when there is none.
        StaleError: when its generator saw another split than the one to be tested on.
    """
    sets = [d for d in datasets(workspace) if d.synthetic]
    named = [d for d in sets if d.name == name]
    drawn = [d for d in sets if d.meta["source"]["generator"] == name]
    fitting = [d for d in drawn if d.meta["source"]["data"]["fingerprint"] == data.fingerprint]
    candidates = named or fitting
    if not candidates:
        other = f" (there is one for {drawn[0].meta['source']['data']['name']})" if drawn else ""
        raise MissingError(
            f"nothing drawn by {name!r} for {data.name}{other}",
            f"run `dbtbench generate {name} --data {data.name}`",
        )
    chosen = max(candidates, key=lambda d: (d.path / "dataset.json").stat().st_mtime)
    if chosen.split_hash != data.split_hash:
        raise StaleError(
            f"{chosen.name} was drawn by a generator that saw another split than {data.name}'s",
            f"run `dbtbench generate {chosen.meta['source']['generator']} --data {data.name}`",
        )
    return chosen
