"""The filter of what a generator drew: a detector says which lesions are worth training on.

Lesions that a detector never finds may not be there, and those that it finds at once teach it nothing.
FreeTumor (Wu et al., arXiv 2406.01264) filters synthetic tumours by a network for the first reason; the
second is ours. A detector of the task `detection`, trained on the training split alone, looks at all of them.

1. A lesion is found by a detection that hits it by the DBTex rule, with a score at which there are no more
   than `FALSE_POSITIVES` false positives a volume: beyond that, guesses hit lesions by chance.
2. A volume's score is the mean over its lesions of the best such detection; 0 for one that is not found.
3. Volumes of which no lesion is found go first. Then those with the highest scores go.
4. Of the volumes without lesions the first are kept, in the same proportion. They are a random sample, since
   each layout is an independent draw. Choice by the fewest false positives would keep the easy ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench import plugins, recipe
from dbtbench.data.dataset import GRID_BOX, NATIVE_BOX, DBTDataset
from dbtbench.data.writer import DatasetWriter, find_finished
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.metrics import froc
from dbtbench.pipeline.evaluate import identify
from dbtbench.runs import open_run
from dbtbench.runtime.files import digest, short_digest
from dbtbench.runtime.pool import one_thread
from dbtbench.runtime.progress import log, progress
from dbtbench.task import BASELINE, Arm, Task
from dbtbench.workspace import Workspace

DETECTION = "detection"
"""The task whose detector looks at what was drawn."""
FALSE_POSITIVES = froc.FPS_ALL
"""False positives a volume up to which a detection counts: the challenge's operating point on all volumes."""
RULE = "lesions found, by the lowest scores first; volumes without lesions in the same proportion"

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Filter:
    """A filter of what is drawn.

    Attributes:
        share: of the volumes that is kept, between 0 and 1.
        detector: which recipe of the task `detection` the detector is trained by.
    """

    share: float
    detector: str = "default"

    def configure(self) -> Task[Any]:
        """Make the task that detects.

        Raises:
            MissingError: when there is no task `detection`.
            UsageError: for a share out of range, or an unknown recipe.
        """
        if not 0 < self.share < 1:
            raise UsageError(f"cannot keep a share of {self.share} of what is drawn", "0 < --keep < 1")
        cls: type[Task[Any]] = plugins.load(plugins.get("tasks", DETECTION))
        return cls(recipe.resolve(cls.recipe_class, recipe.folder_of(cls), self.detector))

    def count_drawn(self, n: int) -> int:
        """Count the volumes that are drawn so that n are kept."""
        return math.ceil(round(n / self.share, 6))

    def run(
        self,
        workspace: Workspace,
        drawn: DBTDataset,
        data: DBTDataset,
        n: int,
        fresh: bool = False,
        name: str | None = None,
    ) -> DBTDataset:
        """Keep n of the volumes that were drawn, as a data set of its own; a finished one is found again.

        Args:
            workspace: where data sets and detectors are kept, these in `filters`.
            drawn: the synthetic data set.
            data: the real one, whose training split the detector is trained on.
            n: how many are kept; fewer where fewer lesions are found.
            fresh: train, detect and write again even what was done.
            name: of the data set; made as that of `drawn` when None.

        Raises:
            DBTBenchError: when the detector finds no lesion, or its own code fails.
            UsageError: when nothing drawn has lesions, or for a name that another data set has.
        """
        if not drawn.positive.any():
            raise UsageError(f"{drawn.name} has no lesions by which it could be filtered", "leave --keep out")
        task, train, source = self.configure(), data.select("train"), drawn.meta["source"]
        arm = Arm(BASELINE, train, train)
        identity = identify(DETECTION, task, arm, 0)
        rule = {"share": self.share, "rule": RULE, "detector": identity, "wanted": n}
        request = {"drawn": drawn.fingerprint, "keep": rule}
        stem = f"{source['generator']}-{data.name}"
        path = workspace.datasets / (name or f"{stem}-{digest(request)[:8]}")
        if find_finished(path, request, fresh) is not None:
            log.info(f"{path.name}: already filtered")
            return DBTDataset.open(path)
        with open_run(workspace.root / "filters" / DETECTION, identity, fresh) as run, one_thread():
            if run.finished:
                run.check()
            with plugins.blame("tasks", DETECTION):
                detections = task.detect(drawn, arm, 0, run)
            if not run.finished:
                run.finish()
        scores = score_volumes(drawn, detections)
        kept = choose(scores, n)
        counts = _count(scores, kept)
        log.info(f"{path.name}: {_describe(counts)}")
        if kept.sum() < n:
            log.warning(
                f"warning: {path.name}: {kept.sum()} volumes instead of {n}: too few lesions are found; "
                "a smaller --keep draws more, and another --detector may find more"
            )
        described = {
            **source,
            "n": n,
            "keep": {
                **{"share": self.share, "rule": RULE, **counts},
                **{"from": drawn.name, "fingerprint": drawn.fingerprint},
                **{"detector": self.detector, "detector_run": short_digest(identity)},
            },
        }
        with DatasetWriter(path, drawn.grid, int(drawn.cases["case"].max()) + 1, request, fresh) as writer:
            _copy(drawn.take(kept), writer)
            meta = {name: drawn.meta[name] for name in ("intensity", "split")}
            return writer.finish({**meta, "source": described}, drawn.split_hash)


def score_volumes(drawn: DBTDataset, detections: pd.DataFrame) -> NDArray[np.float64]:
    """Score each volume by how surely its lesions are found.

    Args:
        drawn: the volumes, with their boxes.
        detections: one row for each box that was found, in the DBTex columns.

    Returns:
        (n,) mean over the lesions of the best detection that hits each, 0 for one that is not found; NaN for
        a volume without lesions.
    """
    hit = froc.match_boxes(drawn.boxes, detections, froc.match_distances(drawn))
    score = detections["Score"].to_numpy(np.float64)
    false = np.sort(score[hit < 0])[::-1]
    allowed = int(FALSE_POSITIVES * len(drawn))
    counts = (hit >= 0) & (score > (false[allowed] if len(false) > allowed else -np.inf))
    best = np.zeros(len(drawn.boxes))
    np.maximum.at(best, hit[counts], score[counts])
    by_case = pd.Series(best).groupby(drawn.boxes["case"].to_numpy()).mean()
    return np.asarray(by_case.reindex(drawn.cases["case"]), np.float64)


def choose(scores: NDArray[np.float64], n: int) -> Flags:
    """Choose the volumes that are kept.

    Args:
        scores: (m,) of the volumes, see `score_volumes`.
        n: how many are wanted.

    Returns:
        (m,) which are kept. With fewer lesions found than are wanted, fewer volumes, in the same mix.

    Raises:
        DBTBenchError: when no lesion is found at all.
    """
    positive = np.isfinite(scores)
    wanted = max(1, round(n * positive.mean()))
    found = np.flatnonzero(positive & (scores > 0))
    if not len(found):
        raise DBTBenchError(
            f"the detector finds none of the lesions of {positive.sum()} drawn volumes",
            "look at them; name a longer training of the detector: --detector RECIPE",
        )
    kept = np.zeros(len(scores), bool)
    lesions = found[np.argsort(scores[found], kind="stable")][:wanted]
    kept[lesions] = True
    kept[np.flatnonzero(~positive)[: round((n - wanted) * len(lesions) / wanted)]] = True
    return kept


def _count(scores: NDArray[np.float64], kept: Flags) -> dict[str, int]:
    """Count what was drawn, left out and kept."""
    positive, found = np.isfinite(scores), np.nan_to_num(scores) > 0
    counts = {
        **{"drawn": len(scores), "kept": kept.sum()},
        **{"with_lesions_drawn": positive.sum(), "with_lesions_kept": (positive & kept).sum()},
        **{"not_found": (positive & ~found).sum(), "found_easily": (found & ~kept).sum()},
    }
    return {name: int(count) for name, count in counts.items()}


def _describe(counts: dict[str, int]) -> str:
    return (
        f"{counts['kept']} of {counts['drawn']} volumes kept; of {counts['with_lesions_drawn']} with lesions "
        f"{counts['not_found']} are not found, {counts['found_easily']} too easily"
    )


def _copy(kept: DBTDataset, writer: DatasetWriter) -> None:
    """Copy volumes and their boxes; each keeps its number, which is that of its layout."""
    cases = kept.cases.astype(object).where(kept.cases.notna(), None).to_dict("records")
    with progress(f"{writer.path.name}: copy", len(kept), done=len(writer.entries)) as advance:
        for case in cases:
            number = case["case"]
            if number in writer.entries:
                continue
            boxes = kept.boxes.loc[kept.boxes["case"] == number, [*GRID_BOX, *NATIVE_BOX]]
            own = {key: value for key, value in case.items() if key not in ("case", "sha256")}
            writer.add(number, kept.volumes([number])[0, 0], own, boxes.to_dict("records"))
            advance()
