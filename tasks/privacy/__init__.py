"""Copies of training volumes and lesions among an arm's volumes, and membership inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import laterality
from dbtbench.metrics.copies import Descriptor, Lesion, LesionGallery, VolumeGallery, describe_volume
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import progress
from dbtbench.task import Arm, Evaluation, Task

from .audit import Audit, Items, describe, describe_wide_lesions, iterate_pairs, subsample
from .membership import infer_membership
from .metrics import METRICS
from .planting import KINDS, LESION_KINDS, plant_lesion


class PrivacyRecipe(Recipe):
    """Settings of the audit.

    Attributes:
        volumes: how many of the arm's volumes are audited, and how many of the test split give the threshold,
            at most.
        copies: how many copies of each kind are planted, and how many lesions, at most.
        members: how many training volumes, and as many of the test split, a generator scores for membership
            inference; 0 to leave it out.
        pairs: how many pairs of an audited volume and its nearest training volume are drawn.
    """

    volumes: int = Field(default=256, ge=1)
    copies: int = Field(default=64, ge=1)
    members: int = Field(default=256, ge=0)
    pairs: int = Field(default=8, ge=1, le=32)


class Privacy(Task[PrivacyRecipe]):
    """Audits an arm's volumes for copies of training volumes, with a test of the audit next to every verdict.

    Copies of training volumes are planted: exact, mirrored, shifted, rotated, shaded, and more. A volume is
    flagged when it is more like a training volume than 99 of 100 real test volumes are. Where too few planted
    copies are found, the verdict is "cannot tell". For an augmentation its synthetic volumes are audited, for
    `real` the validation split, which no generator saw. A generator that can score volumes is also asked
    whether it knows those that it was trained on. Passing is no proof of privacy; see docs/privacy.md.
    """

    recipe_class = PrivacyRecipe
    metrics = METRICS
    seeds = 1

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Audit one arm; also writes its tables, and pictures of the nearest pairs.

        Files of the run: recall.csv and nearest.csv, lesion_recall.csv and lesions.csv, membership.csv where
        the generator can score volumes, and pairs.png, which shows training volumes.

        Raises:
            UsageError: when the real data have no training or test volumes, the grids differ, or the arm has
                several synthetic data sets.
        """
        from dbtbench.figures.pairs import Pair, draw_pairs

        result = self._audit(arm, seed)
        for name, table in result.tables.items():
            write_text(run.path / f"{name}.csv", csv_text(table))
        train = arm.real.select("train")
        pairs = []
        for case, other, similarity, flagged in iterate_pairs(result.tables["nearest"], self.recipe.pairs):
            upper, lower = result.own.volumes([case])[0, 0], train.volumes([other])[0, 0]
            if _side(result.own, case) != _side(train, other):
                lower = lower[:, :, ::-1]
            words = f"{similarity:.3f}{', flagged' if flagged else ''}"
            pairs.append(Pair(upper, lower, (words, f"{case} / {other}"), flagged))
        draw_pairs(pairs, ("audited", "training"), run.path / "pairs.png")
        return result.evaluation

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Audit the arm's data set again.

        Raises:
            UsageError: as `evaluate`.
        """
        return self._audit(arm, seed).evaluation

    def _audit(self, arm: Arm, seed: int) -> _Result:
        own, train, test = self._choose(arm, seed)
        planted = max(1, min(self.recipe.copies, len(train)))
        with progress(f"privacy of {arm.name}: read", len(own) + len(train) + len(test)) as advance:
            own_items, train_items, test_items = (describe(part, advance) for part in (own, train, test))
        with progress(f"privacy of {arm.name}: plant", planted) as advance:
            copies = _plant_volumes(subsample(train, planted, seed), train, seed, advance)
        lesions = _plant_lesions(train, self.recipe.copies, seed)
        total = len(test) + len(own) + sum(map(len, copies.values()))
        with progress(f"privacy of {arm.name}: compare", total) as advance:
            whole = Audit(
                train_items[0],
                VolumeGallery(train_items[0].found),
                test_items[0],
                own_items[0],
                copies,
                advance,
            )
            scores = whole.scores("copies") | {"copies_at_5": whole.flag_more()}
            scores |= {f"recall_{kind}": share for kind, share in _shares(whole.recall)}
            tables = {"recall": whole.recall, "nearest": whole.table()}
        scores |= dict.fromkeys((m.name for m in METRICS if m.name.startswith("lesion_")), math.nan)
        if train_items[1].found:
            local = _audit_lesions(train_items[1], test_items[1], own_items[1], lesions)
            scores |= local.scores("lesion_copies")
            scores |= {f"lesion_recall_{kind}": share for kind, share in _shares(local.recall)}
            tables |= {"lesion_recall": local.recall, "lesions": local.table()}
        known, membership = infer_membership(arm, self.recipe.members, seed)
        if membership is not None:
            tables["membership"] = membership
        counts = {
            "volumes": len(own),
            "reference_volumes": len(test),
            "training_volumes": len(train),
            "lesions": len(own_items[1].found),
        }
        return _Result(Evaluation(scores | known, counts), own, tables)

    def _choose(self, arm: Arm, seed: int) -> tuple[DBTDataset, DBTDataset, DBTDataset]:
        """Choose what is audited, all training volumes, and test volumes.

        Raises:
            UsageError: as `evaluate`.
        """
        train, test = arm.real.select("train"), arm.real.select("test")
        own = arm.find_measured() if arm.synthetic else arm.real.select("validation")
        for part, what in ((train, "training"), (test, "test")):
            if not len(part):
                raise UsageError(f"{part.name} has no {what} volumes", "import it with a split that has some")
        return subsample(own, self.recipe.volumes, seed), train, subsample(test, self.recipe.volumes, seed)


@dataclass(frozen=True)
class _Result:
    """Results of an audit: scores, what was audited, and tables by the name of their file."""

    evaluation: Evaluation
    own: DBTDataset
    tables: dict[str, pd.DataFrame]


def _shares(recall: pd.DataFrame) -> list[tuple[str, float]]:
    return list(zip(recall["kind"].tolist(), recall["recall"].tolist(), strict=True))


def _side(dataset: DBTDataset, case: int) -> str:
    return laterality(str(dataset.cases.loc[dataset.cases["case"] == case, "View"].iloc[0]))


def _plant_volumes(
    chosen: DBTDataset, train: DBTDataset, seed: int, advance: Any
) -> dict[str, list[Descriptor]]:
    """Plant copies of every kind of some training volumes."""
    cases = train.cases["case"].tolist()
    planted: dict[str, list[Descriptor]] = {kind: [] for kind in KINDS}
    for case in chosen.cases["case"].tolist():
        rng = np.random.default_rng([seed, case])
        volume = train.volumes([case])[0, 0]
        other = train.volumes([cases[int(rng.integers(len(cases)))]])[0, 0]
        for kind, change in KINDS.items():
            planted[kind].append(describe_volume(change(volume, other, rng)))
        advance()
    return planted


def _plant_lesions(train: DBTDataset, copies: int, seed: int) -> dict[str, list[Lesion]]:
    """Plant training lesions in training volumes of other patients and of the same side."""
    planted: dict[str, list[Lesion]] = {kind: [] for kind in LESION_KINDS}
    rng = np.random.default_rng([seed, 1])
    sides = train.cases["View"].map(laterality)
    for number in rng.permutation(len(train.boxes)):
        case = int(train.boxes["case"].iloc[number])
        row = train.cases[train.cases["case"] == case].iloc[0]
        fits = (train.cases["PatientID"] != row["PatientID"]) & (sides == laterality(row["View"]))
        hosts: Sequence[int] = train.cases.loc[fits, "case"].tolist()
        box = train.boxes_of(case)[int((train.boxes["case"].iloc[:number] == case).sum())]
        donor = train.volumes([case])[0, 0]
        if not hosts or not describe_wide_lesions(donor, box[None]):
            continue
        host = train.volumes([hosts[int(rng.integers(len(hosts)))]])[0, 0]
        made = {
            kind: describe_wide_lesions(volume, boxes)
            for kind, (volume, boxes) in plant_lesion(host, donor, box, rng).items()
        }
        for kind, found in made.items():
            planted[kind].extend(found)
        if len(planted[LESION_KINDS[0]]) >= copies:
            break
    return planted


def _audit_lesions(
    train: Items[Lesion], test: Items[Lesion], own: Items[Lesion], planted: dict[str, list[Lesion]]
) -> Audit[Lesion]:
    return Audit(train, LesionGallery(train.found), test, own, planted, lambda n=1, note="": None)
