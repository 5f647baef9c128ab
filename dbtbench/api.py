"""The verbs for a script or a notebook: open a data set, draw samples, evaluate.

They do what the command line does, in the same workspace: what is done is found again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Boxes
from dbtbench.layouts import Places
from dbtbench.leaderboard import rank
from dbtbench.pipeline import evaluate as evaluation
from dbtbench.pipeline.catalogue import choose_dataset
from dbtbench.pipeline.keeping import Filter
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.runtime.pool import Pool
from dbtbench.workspace import Workspace

Data = DBTDataset | str | Path | None
AnyWorkspace = Workspace | str | Path | None


def open_dataset(data: Data = None, workspace: AnyWorkspace = None) -> DBTDataset:
    """Open a data set.

    >>> import dbtbench
    >>> dbtbench.open(folder)
    <DBTDataset toy: 32 volumes of 8×32×32, 16 lesions>

    Args:
        data: its folder, or its name in the workspace. None for the workspace's only real one; where there is
            none, the embedded phantom is made.
        workspace: the folder of all work; as on the command line when None.

    Raises:
        DBTBenchError: when its files cannot be read.
        MissingError: when there is no such data set.
        UsageError: when none is named and there are several.
    """
    if isinstance(data, DBTDataset):
        return data
    if data is not None and (Path(data) / "dataset.json").is_file():
        return DBTDataset.open(data)
    return choose_dataset(_find(workspace), None if data is None else str(data))


def sample(
    generator: str,
    data: Data = None,
    n: int | None = None,
    *,
    recipe: str = "default",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    positives: float = 0.5,
    places: Places = "known",
    keep: float | None = None,
    detector: str = "default",
    workspace: AnyWorkspace = None,
) -> DBTDataset:
    """Train a generator on a data set's training split, or find it trained, and draw volumes.

    >>> drawn = dbtbench.sample("classic", data=dataset, n=4, workspace=work)
    >>> drawn[0]["image"].shape
    torch.Size([1, 8, 32, 32])

    Args:
        generator: its name; see `dbtbench list generators`.
        data: the real data set; see `open_dataset`.
        n: how many volumes; as many as the training split has when None.
        recipe: which of the generator's recipes.
        settings: values over the recipe, such as `{"steps": 1000}`.
        seed: seed of the layouts and of what is drawn.
        positives: share of volumes with lesions, in [0, 1].
        places: lesions where training lesions are (`known`), or `anywhere` in the breast, of like sizes.
        keep: share of what is drawn that is kept, so that there are `n`: lesions that a detector, trained on
            the training split, finds, but not too easily. All when None.
        detector: recipe of the task detection by which that detector is trained.
        workspace: see `open_dataset`.

    Returns:
        The synthetic data set, which lies in the workspace.

    Raises:
        MissingError: for an unknown generator or data set.
        UsageError: for a wrong recipe, setting, number or share.
    """
    work = _find(workspace)
    real, kept = open_dataset(data, work), None if keep is None else Filter(keep, detector)
    request = GenerationRequest(
        generator, real, recipe, _overrides(settings), n, seed, positives, kept, places
    )
    request.check()
    return request.run(work)


def evaluate(
    task: str,
    augmentations: Sequence[str] = (),
    data: Data = None,
    *,
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    recipe: str = "default",
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    workspace: AnyWorkspace = None,
) -> pd.DataFrame:
    """Run a task on real data alone, with each augmentation and with controls.

    >>> drawn = dbtbench.sample("classic", data=dataset, n=4, workspace=work)
    >>> table = dbtbench.evaluate("realism", ["classic"], data=dataset, workspace=work)
    >>> "classic" in set(table["arm"])
    True

    Args:
        task: its name; see `dbtbench list tasks`.
        augmentations: generators, or names of synthetic data sets in the workspace.
        data: the real data set; see `open_dataset`.
        arms: the arms next to the baseline and `augmentations`; the task's own when None.
        seeds: how many seeds, twice as many for `real`; the task's own number when None.
        recipe: which of the task's recipes.
        settings: values over the recipe.
        jobs: how many runs at a time, each in a process of its own. With more than one, a script must call
            this under `if __name__ == "__main__":`.
        workspace: see `open_dataset`.

    Returns:
        The board in long form, one row per arm and metric (`dbtbench.leaderboard.COLUMNS`).

    Raises:
        DBTBenchError: when a run fails.
        MissingError: for an unknown task or data set, or an augmentation that was not drawn.
        StaleError: when an augmentation's generator saw another split.
        UsageError: for a wrong recipe, setting or arm, or several jobs without the line above.
    """
    work = _find(workspace)
    with Pool(jobs) as pool:
        return rank(
            evaluation.evaluate(
                work,
                task,
                open_dataset(data, work),
                augmentations,
                seeds,
                recipe,
                _overrides(settings),
                arms=arms,
                pool=pool,
            )
        )


def measure_realism(
    volumes: ArrayLike,
    reference: ArrayLike,
    boxes: Sequence[Boxes] = (),
    reference_boxes: Sequence[Boxes] = (),
) -> dict[str, float]:
    """Compute every metric of the task `realism` on two arrays of volumes.

    >>> train, test = dataset.select("train"), dataset.select("test")
    >>> scores = dbtbench.measure_realism(train.volumes(), test.volumes())
    >>> scores["w1_intensity"] < 0.01
    True

    Args:
        volumes: (N, D, H, W) or (N, 1, D, H, W) in [0, 1].
        reference: real volumes, likewise.
        boxes: for each of `volumes` (n, 6) boxes in voxels; without them lesions have no contrast (NaN).
        reference_boxes: for each of `reference`, likewise; without them no distance of lesions (NaN). The
            task compares lesions with the training split's: for the same numbers, give training volumes.

    Returns:
        The value of each metric by its name; `dbtbench show realism` says what they mean. Each volume counts
        as a patient of its own.

    Raises:
        UsageError: when an array holds no volumes, or values outside [0, 1].
    """
    realism: Any = plugins.load(plugins.get("tasks", "realism"))
    scores: dict[str, float] = realism.compare(volumes, reference, boxes, reference_boxes)
    return scores


def _find(workspace: AnyWorkspace) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)


def _overrides(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Settings as the text of their TOML values, which for these is that of JSON."""
    return {key: json.dumps(value) for key, value in (settings or {}).items()}
