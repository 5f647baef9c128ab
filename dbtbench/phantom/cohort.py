"""A cohort of phantom patients as DICOM files and the three tables of BCS-DBT.

ROOT/phantom.json                              the settings
ROOT/DBT-P00001/DBT-S00001/lcc/1-1.dcm         one file per volume, four per patient
ROOT/BCS-DBT-file-paths-train-v2.csv           PatientID, StudyUID, View, descriptive_path, classic_path
ROOT/BCS-DBT-labels-train-v2.csv               PatientID, StudyUID, View, Normal, Actionable, Benign, Cancer
ROOT/BCS-DBT-boxes-train-v2.csv                one row per box of a benign or malignant lesion
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import cpu_count

from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.geometry.views import laterality, projection
from dbtbench.phantom.anatomy import Breast, draw_breasts
from dbtbench.phantom.lesions import Lesion, draw_lesion
from dbtbench.phantom.numbers import stream
from dbtbench.phantom.reconstruction import WINDOW
from dbtbench.phantom.simulation import PRESETS, Box, Preset, box_of, simulate
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import claim_folder, read_json, write_text
from dbtbench.runtime.pool import Pool, one_thread
from dbtbench.runtime.progress import progress

VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
SCREENING = {"normal": 4581 / 5060, "actionable": 278 / 5060, "benign": 112 / 5060, "cancer": 89 / 5060}
"""Shares of patients by their worst label in BCS-DBT (Buda 2021)."""
ENRICHED = {"normal": 0.4, "actionable": 0.1, "benign": 0.25, "cancer": 0.25}
"""Half of the patients have a lesion with a box."""
MIXES = {"screening": SCREENING, "enriched": ENRICHED}
ROTATED = 0.15
"""Share of files that are stored rotated by 180°, as in BCS-DBT."""
VERSION = 2
"""Raise it when the same settings give other bytes than before."""


@dataclass(frozen=True)
class Patient:
    """One patient with one study.

    Attributes:
        number: from 1.
        label: normal, actionable, benign or cancer.
        breasts: by `l` and `r`.
        side: of the breast with the lesion; `""` for a normal patient.
        lesion: hers; None for a normal patient.
        rotated: views whose files are stored rotated by 180°.
    """

    number: int
    label: str
    breasts: dict[str, Breast]
    side: str
    lesion: Lesion | None
    rotated: frozenset[str]

    @property
    def patient_id(self) -> str:
        """PatientID, such as DBT-P00001."""
        return f"DBT-P{self.number:05d}"

    @property
    def study_id(self) -> str:
        """StudyUID, such as DBT-S00001."""
        return f"DBT-S{self.number:05d}"

    def path(self, view: str) -> str:
        """Name the file of a view, relative to the collection's folder."""
        return f"{self.patient_id}/{self.study_id}/{view}/1-1.dcm"

    def lesion_in(self, view: str) -> Lesion | None:
        """Get the lesion that a view shows; None where it shows none."""
        return self.lesion if laterality(view) == self.side else None

    def label_of(self, view: str) -> str:
        """Get the label of a view: a recall is of the whole study, a biopsied lesion is in one breast."""
        return self.label if self.label == "actionable" or self.lesion_in(view) else "normal"


@dataclass(frozen=True)
class CollectionSummary:
    """The counts of a collection.

    Attributes:
        root: its folder.
        patients: number of patients by label.
        volumes: number of volumes by label.
        boxes: number of boxes.
    """

    root: Path
    patients: dict[str, int]
    volumes: dict[str, int]
    boxes: int


def quotas(patients: int, mix: Mapping[str, float]) -> dict[str, int]:
    """Count the patients of each label: shares by the largest remainder (Hamilton's method).

    Raises:
        UsageError: for an unknown label or shares that are no frequencies.
    """
    unknown = [label for label in mix if label not in LABELS]
    if unknown:
        raise UsageError(f"no label named {unknown[0]!r}", f"known: {', '.join(LABELS)}")
    shares = np.array([mix.get(label, 0.0) for label in LABELS], float)
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise UsageError(
            f"the mix {dict(mix)} is not a set of frequencies", "give numbers from 0 up, not all 0"
        )
    exact = patients * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    # The small offset settles ties by the order of the labels, whatever the last bits of the remainders.
    order = np.argsort(-(exact - counts).round(9), kind="stable")
    counts[order[: patients - counts.sum()]] += 1
    return {label: int(count) for label, count in zip(LABELS, counts, strict=True)}


def draw_patients(patients: int, seed: int, mix: Mapping[str, float]) -> list[Patient]:
    """Draw a cohort: labels by quota, everything else of a patient from (seed, her number) only."""
    labels = np.repeat(list(LABELS), list(quotas(patients, mix).values()))
    stream(seed, "labels").shuffle(labels)
    return [_draw_patient(number, str(label), seed) for number, label in enumerate(labels, 1)]


def _draw_patient(number: int, label: str, seed: int) -> Patient:
    rng = stream(seed, number, "patient")
    breasts = draw_breasts(rng)
    side = str(rng.choice(["l", "r"]))
    rotated = frozenset(view for view in VIEWS if rng.random() < ROTATED)
    if label == "normal":
        return Patient(number, label, breasts, "", None, rotated)
    return Patient(number, label, breasts, side, draw_lesion(label, breasts[side], rng), rotated)


def write_collection(
    root: Path,
    preset: str,
    patients: int,
    seed: int = 0,
    mix: Mapping[str, float] = ENRICHED,
    jobs: int | None = None,
    conspicuity: float | None = None,
) -> CollectionSummary:
    """Write a collection in the layout of BCS-DBT; files that an earlier call finished are kept.

    Args:
        root: its folder; made if need be.
        preset: `tiny`, `small` or `standard`.
        patients: number of patients; each has four views.
        seed: of everything; the same seed gives the same bytes everywhere.
        mix: frequencies of the patients' labels, on any scale.
        jobs: processes; by default one per core.
        conspicuity: factor by which lesions are denser than physical ones; the preset's own when None.

    Raises:
        UsageError: for settings that make no sense, or a folder that holds something else or another version.
        DBTBenchError: when the process that made a volume died.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset named {preset!r}", f"known: {', '.join(PRESETS)}")
    if patients < 1 or seed < 0:
        raise UsageError(f"patients {patients}, seed {seed} cannot be", "patients start at 1, seeds at 0")
    if conspicuity is not None and not 0 <= conspicuity < np.inf:
        raise UsageError(f"lesions cannot be {conspicuity} times denser", "--conspicuity is 0 or more")
    pool = Pool(cpu_count() if jobs is None else jobs)
    cohort = draw_patients(patients, seed, mix)
    settings = {
        "version": VERSION,
        "preset": preset,
        "patients": patients,
        "seed": seed,
        "mix": dict(mix),
        **({} if conspicuity is None else {"conspicuity": conspicuity}),
    }
    made = PRESETS[preset]
    if conspicuity is not None:
        made = replace(made, conspicuity=conspicuity)
    uids = "dbtbench phantom " + " ".join(
        str(s) for s in (VERSION, preset, seed, conspicuity) if s is not None
    )
    _refuse_other_version(root / "phantom.json")
    claim_folder(root, "phantom.json", settings, "phantom")
    todo = [(p, view) for p in cohort for view in VIEWS if not (root / p.path(view)).is_file()]
    write = partial(_write_volume, root=root, preset=made, seed=seed, uid_seed=uids)
    total = 4 * len(cohort)
    with pool, progress(f"phantom ({preset})", total, "volumes", total - len(todo)) as advance:
        for (patient, view), file in pool.run(write, todo):
            if file is None:
                raise DBTBenchError(
                    f"the process that made {patient.path(view)} died", "is there enough memory?"
                )
            advance()
    return _write_tables(root, made, cohort)


def _refuse_other_version(path: Path) -> None:
    """Refuse to go on with a collection of another version: its files would be of two kinds."""
    if not path.is_file():
        return
    try:
        version = read_json(path)["version"]
    except (ValueError, TypeError, KeyError):
        return  # `claim_folder` says that it is no phantom's
    if version != VERSION:
        raise UsageError(
            f"{path.parent} was written by version {version} of the phantom, this is version {VERSION}",
            "choose a folder that is not there yet; the old one can still be imported",
        )


def _write_volume(wanted: tuple[Patient, str], root: Path, preset: Preset, seed: int, uid_seed: str) -> str:
    """Simulate one view and write its file; the bytes depend on the arguments only."""
    patient, view = wanted
    file = patient.path(view)
    breast = patient.breasts[laterality(view)]
    seeds = [seed, patient.number, VIEWS.index(view) + 1]
    with one_thread():  # the other cores have other views
        frames = simulate(preset, breast, view, patient.lesion_in(view), seeds)
    write_tomosynthesis(
        root / file,
        frames,
        view=view,
        patient_id=patient.patient_id,
        study_id=patient.study_id,
        pixel_mm=preset.pixel,
        slice_mm=breast.thickness(projection(view)) / len(frames),
        window=WINDOW,
        uid_seed=uid_seed,
        rotated=view in patient.rotated,
        model=f"phantom version {VERSION}",
        series_description=f"{view} phantom",
    )
    return file


def _write_tables(root: Path, preset: Preset, cohort: list[Patient]) -> CollectionSummary:
    paths, labels, boxes = [], [], []
    for patient in cohort:
        for view in VIEWS:
            key = dict(zip(KEY, (patient.patient_id, patient.study_id, view), strict=True))
            label, file = patient.label_of(view), patient.path(view)
            paths.append({**key, "descriptive_path": file, "classic_path": file})
            labels.append({**key, **{name.capitalize(): int(name == label) for name in LABELS}})
            lesion = patient.lesion_in(view)
            if lesion and label in ("benign", "cancer"):
                box = box_of(preset, patient.breasts[patient.side], view, lesion)
                boxes.append({**key, **_make_box_row(box, label, lesion, preset.shape[0])})
    for name, rows, columns in (
        ("file-paths", paths, [*KEY, "descriptive_path", "classic_path"]),
        ("labels", labels, [*KEY, *map(str.capitalize, LABELS)]),
        ("boxes", boxes, [*KEY, *NATIVE_BOX]),
    ):
        table = pd.DataFrame(rows, columns=columns)
        write_text(root / f"BCS-DBT-{name}-train-v2.csv", csv_text(table))
    of_views = [patient.label_of(view) for patient in cohort for view in VIEWS]
    of_patients = [patient.label for patient in cohort]
    return CollectionSummary(
        root,
        {label: of_patients.count(label) for label in LABELS},
        {label: of_views.count(label) for label in LABELS},
        len(boxes),
    )


def _make_box_row(box: Box, label: str, lesion: Lesion, slices: int) -> dict[str, Any]:
    """Make the box's row in the table, without its key."""
    distortion = int(lesion.kind == "distortion")
    values = (0, box.slice, box.x, box.y, box.width, box.height, label, distortion, slices)
    return dict(zip(NATIVE_BOX, values, strict=True))
