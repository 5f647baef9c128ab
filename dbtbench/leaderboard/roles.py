"""Roles of a board's arms: what is compared with what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbtbench.records import Record
from dbtbench.runtime.files import digest
from dbtbench.task import BASELINE, CEILING, NORMALS, PLACEBO, SHUFFLED

CONTROLS = (SHUFFLED, NORMALS)
"""Arms that ask whether a gain could be something else; they are no claims of their own."""


@dataclass(frozen=True)
class Roles:
    """Roles of arms, by the labels that they have on their board.

    Attributes:
        baseline: arms that are one sample of the baseline together; `real` is among them.
        ceiling: the arm with all real data; None where there is none.
        augmentations: arms whose gain is a claim: they have synthetic volumes and are no control. Holm's
            procedure corrects for their number.
        controls: for each augmentation, by the control's word: the arm with the boxes of its volumes
            shuffled, and the one with its lesion-free volumes alone.
        unlearned: augmentations whose generators all declare that they learn nothing; the last thing to be
            better than.
        trainings: arms that several trainings of one generator are together: the arms of these, each with the
            number of its training.
        references: arms that train on neither real nor synthetic data, such as a detector without training;
            they are shown, and not tested.
        volumes: for each arm of real data, how many real volumes it trains on.
        sizes: for each arm of real data, how many `patients` and `lesions` it trains on, by unit.
    """

    baseline: tuple[str, ...] = (BASELINE,)
    ceiling: str | None = CEILING
    augmentations: tuple[str, ...] = ()
    controls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unlearned: tuple[str, ...] = ()
    trainings: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    volumes: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Mapping[str, Record]) -> Roles:
        """Find the roles from one record of each arm, by its label."""
        same = [label for label, record in records.items() if record.arm in (BASELINE, PLACEBO)]
        real = {
            label: record
            for label, record in records.items()
            if record.arm.split(":")[0] in (BASELINE, CEILING)
        }
        trainings = _trainings(records)
        members = {member for group in trainings.values() for member, _ in group}
        synthetic = {label: record for label, record in records.items() if record.augmentation}
        # Several trainings together stand for each of them.
        last = synthetic | {label: records[group[-1][0]] for label, group in trainings.items()}
        claims = {
            label: record
            for label, record in last.items()
            if label not in members and record.arm.split(":")[-1] not in CONTROLS
        }
        sizes: dict[str, dict[str, int]] = {}
        for unit in ("patients", "lesions"):
            counted = {label: record.counts.get(f"training_{unit}") for label, record in real.items()}
            sizes[unit] = {label: count for label, count in counted.items() if count}
        return cls(
            baseline=tuple(same),
            ceiling=next((label for label, record in records.items() if record.arm == CEILING), None),
            augmentations=tuple(claims),
            controls={
                label: _pooled_controls(label, trainings) if label in trainings else _controls(label, records)
                for label in claims
            },
            unlearned=tuple(label for label, record in claims.items() if record.learned is False),
            trainings=trainings,
            references=tuple(label for label in records if label not in {*same, *real, *synthetic}),
            volumes={
                label: record.counts["training_real"]
                for label, record in real.items()
                if "training_real" in record.counts
            },
            sizes=sizes,
        )


def _trainings(records: Mapping[str, Record]) -> dict[str, list[tuple[str, int]]]:
    """Find arms that differ by the seed of their generator's training alone, and by what that one chose."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for label, record in sorted(records.items()):
        if sources := record.augmentations:
            own = {"seed", *(record.chosen or ())}
            settings = [
                [
                    made.generator,
                    made.version,
                    {key: value for key, value in made.recipe.items() if key not in own},
                    made.keep,
                ]
                for made in sources
            ]
            arm = ":".join(record.arm.split(":")[1:])
            runs = "+".join(made.run for made in sources)
            groups.setdefault((arm, digest(settings)), []).append((label, runs))
    several = {key: group for key, group in groups.items() if len({run for _, run in group}) > 1}
    names = {key: _name_together([records[label] for label, _ in group]) for key, group in several.items()}
    found = {}
    for key, group in several.items():
        trained = sorted({run for _, run in group})
        alone = list(names.values()).count(names[key]) == 1
        which = "" if alone else f", recipe {key[1][:6]}"
        found[f"{names[key]} ({len(trained)} trainings{which})"] = [
            (label, trained.index(run)) for label, run in group
        ]
    return found


def _name_together(records: Sequence[Record]) -> str:
    """Name several trainings: `inpaint` for `inpaint-0` and `inpaint-1`, else by their generator."""
    control = records[0].arm.split(":")[1:]
    numberless = {re.sub(r"[-_.]?\d+$", "", record.arm.split(":")[0]) for record in records}
    generators = "+".join(made.generator for made in records[0].augmentations)
    return ":".join([numberless.pop() if len(numberless) == 1 else generators, *control])


def _controls(label: str, records: Mapping[str, Record]) -> dict[str, str]:
    """Find an arm's controls: of two with the same name, the one with the same synthetic data."""
    own = records[label]
    found: dict[str, str] = {}
    for control in CONTROLS:
        named = [other for other, record in records.items() if record.arm == f"{own.arm}:{control}"]
        named.sort(key=lambda other: records[other].synthetic != own.synthetic)
        if named:
            found[control] = named[0]
    return found


def _pooled_controls(label: str, trainings: Mapping[str, Any]) -> dict[str, str]:
    """Find the controls of several trainings together: those of the same trainings, together."""
    arm, bracket, rest = label.partition(" (")
    found = {control: f"{arm}:{control}{bracket}{rest}" for control in CONTROLS}
    return {control: other for control, other in found.items() if other in trainings}
