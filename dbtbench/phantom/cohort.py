"""A cohort of phantom patients as DICOM files and the three tables of BCS-DBT, with a fourth of their axes.

ROOT/phantom.json                              the settings
ROOT/DBT-P00001/DBT-S00001/lcc/1-1.dcm         one file per volume, four per patient
ROOT/BCS-DBT-file-paths-train-v2.csv           PatientID, StudyUID, View, descriptive_path, classic_path
ROOT/BCS-DBT-labels-train-v2.csv               PatientID, StudyUID, View, Normal, Actionable, Benign, Cancer
ROOT/BCS-DBT-boxes-train-v2.csv                one row per box of a benign or malignant lesion
ROOT/BCS-DBT-axes-train-v2.csv                 one row per volume: density, dose, and the lesion that it shows
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
from numpy.typing import NDArray

from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import KEY, LABELS, NATIVE_BOX
from dbtbench.dicom.volume import read_volume
from dbtbench.dicom.writing import write_tomosynthesis
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.geometry.views import laterality, projection
from dbtbench.phantom.acquisition import Geometry
from dbtbench.phantom.anatomy import Breast, draw_breasts
from dbtbench.phantom.axes import AXES, Shares, deal, share_out
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
VERSION = 4
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
        dose: of her views, relative to the scanner's usual one.
        conspicuity: factor by which her lesion is denser than a physical one; None for the preset's.
    """

    number: int
    label: str
    breasts: dict[str, Breast]
    side: str
    lesion: Lesion | None
    rotated: frozenset[str]
    dose: float = 1.0
    conspicuity: float | None = None

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

    def conspicuity_in(self, preset: Preset) -> float:
        """Get the factor by which her lesion is denser than a physical one."""
        return preset.conspicuity if self.conspicuity is None else self.conspicuity

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


def draw_patients(
    patients: int, seed: int, mix: Shares, axes: Mapping[str, Shares] | None = None
) -> list[Patient]:
    """Draw a cohort: labels and axes by their shares, everything else from seed and number of a patient.

    Args:
        patients: how many.
        seed: of everything.
        mix: frequencies of their labels.
        axes: frequencies of the values of some of `AXES`; the others are as in screening.

    Raises:
        UsageError: for an unknown label or shares that are no frequencies.
    """
    for label in mix:
        if label not in LABELS:
            raise UsageError(f"no label named {label!r}", f"known: {', '.join(LABELS)}")
    counts = share_out(patients, {label: mix.get(label, 0.0) for label in LABELS})
    labels = np.repeat([*counts], [*counts.values()])
    stream(seed, "labels").shuffle(labels)
    dealt = {name: deal(name, shares, labels.tolist(), seed) for name, shares in (axes or {}).items()}
    return [
        _draw_patient(i + 1, str(label), seed, {name: values[i] for name, values in dealt.items()})
        for i, label in enumerate(labels)
    ]


def _draw_patient(number: int, label: str, seed: int, values: dict[str, Any]) -> Patient:
    rng = stream(seed, number, "patient")
    breasts = draw_breasts(rng, values.get("density"))
    side = str(rng.choice(["l", "r"]))
    rotated = frozenset(view for view in VIEWS if rng.random() < ROTATED)
    lesion = None
    if label != "normal":
        lesion = draw_lesion(label, breasts[side], rng, values.get("lesion_kind"), values.get("lesion_size"))
    return Patient(
        number,
        label,
        breasts,
        side if lesion else "",
        lesion,
        rotated,
        values.get("dose", 1.0),
        values.get("conspicuity"),
    )


def write_collection(
    root: Path,
    preset: str,
    patients: int,
    seed: int = 0,
    mix: Shares = ENRICHED,
    jobs: int | None = None,
    axes: Mapping[str, Shares] | None = None,
) -> CollectionSummary:
    """Write a collection in the layout of BCS-DBT; files that an earlier call finished are kept.

    Args:
        root: its folder; made if need be.
        preset: `tiny`, `small` or `standard`.
        patients: number of patients; each has four views.
        seed: of everything; the same seed gives the same bytes everywhere.
        mix: frequencies of the patients' labels, on any scale.
        jobs: processes; by default one per core.
        axes: frequencies of the values of some of `AXES`, such as `{"density": {"b": 1, "c": 1}}`; the others
            are as in screening, with the preset's own conspicuity.

    Raises:
        UsageError: for settings that make no sense, or a folder that holds something else or another version.
        DBTBenchError: when the process that made a volume died.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset named {preset!r}", f"known: {', '.join(PRESETS)}")
    if patients < 1 or seed < 0:
        raise UsageError(f"patients {patients}, seed {seed} cannot be", "patients start at 1, seeds at 0")
    pool = Pool(cpu_count() if jobs is None else jobs)
    axes = {name: axes[name] for name in AXES if axes and name in axes}
    cohort = draw_patients(patients, seed, mix, axes)
    given = {name: {str(value): share for value, share in axes[name].items()} for name in axes}
    settings = {
        "version": VERSION,
        "preset": preset,
        "patients": patients,
        "seed": seed,
        "mix": dict(mix),
        **({"axes": given} if given else {}),
    }
    uids = "dbtbench phantom " + " ".join(map(str, (VERSION, preset, seed, *([given] if given else []))))
    _refuse_other_version(root / "phantom.json")
    claim_folder(root, "phantom.json", settings, "phantom")
    # A volume with a lesion is measured also where an earlier call wrote it.
    kept = {(p.number, v) for p in cohort for v in VIEWS if (root / p.path(v)).is_file()}
    todo = [(p, v) for p in cohort for v in VIEWS if p.lesion_in(v) or (p.number, v) not in kept]
    write = partial(_write_volume, root=root, preset=PRESETS[preset], seed=seed, uid_seed=uids)
    total, contrasts = 4 * len(cohort), dict[tuple[int, str], float | None]()
    with pool, progress(f"phantom ({preset})", total, "volumes", total - len(todo)) as advance:
        for (patient, view), outcome in pool.run(write, todo):
            if outcome is None:
                raise DBTBenchError(
                    f"the process that made {patient.path(view)} died", "is there enough memory?"
                )
            contrasts |= outcome
            advance()
    return _write_tables(root, PRESETS[preset], cohort, contrasts)


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


def _write_volume(
    wanted: tuple[Patient, str], root: Path, preset: Preset, seed: int, uid_seed: str
) -> dict[tuple[int, str], float | None]:
    """Simulate one view and write its file if it is not there; its bytes depend on the arguments only.

    Returns:
        For the patient's number and the view, the contrast of the lesion that it shows, as imaged.
    """
    patient, view = wanted
    file = root / patient.path(view)
    breast, lesion = patient.breasts[laterality(view)], patient.lesion_in(view)
    if not file.is_file():
        denser = replace(preset, conspicuity=patient.conspicuity_in(preset))
        geometry = Geometry(quanta=Geometry.quanta * patient.dose)
        seeds = [seed, patient.number, VIEWS.index(view) + 1]
        with one_thread():  # the other cores have other views
            frames = simulate(denser, breast, view, lesion, seeds, geometry)
        write_tomosynthesis(
            file,
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
    if lesion is None:
        return {(patient.number, view): None}
    box = box_of(preset, breast, view, lesion)
    image = read_volume(file, view, None).volume[box.slice]
    return {(patient.number, view): measure_contrast(image, box)}


def measure_contrast(image: NDArray[np.float32], box: Box) -> float:
    """Measure how much brighter a lesion is than its surroundings, in shares of the window.

    The lesion is the ellipse in its box, the surroundings are the ring between 1.25 and 2 times its axes,
    inside the breast: as `metrics.contrast.lesion_cnr` has them, in one slice and without the noise. It is
    measured in the image and not by a second simulation without the lesion, because what lies beside and over
    it is part of how it looks, because real boxes can be measured so, and because it costs no simulation.

    Args:
        image: (rows, columns) in [0, 1], the box's slice; 0 in air.
        box: the lesion's.
    """
    rows, columns = np.indices(image.shape) + 0.5
    radius = np.hypot(
        (rows - box.y - box.height / 2) / (box.height / 2),
        (columns - box.x - box.width / 2) / (box.width / 2),
    )
    values = image.astype(np.float64)
    around = values[(radius > 1.25) & (radius <= 2) & (image > 0.02)]
    # Three decimals: the same on every machine, whatever the order of the sums.
    return round(float(values[radius <= 1].mean() - around.mean()), 3) if around.size else float("nan")


def _write_tables(
    root: Path, preset: Preset, cohort: list[Patient], contrasts: Mapping[tuple[int, str], float | None]
) -> CollectionSummary:
    paths, labels, boxes, axes = [], [], [], []
    for patient in cohort:
        for view in VIEWS:
            key = dict(zip(KEY, (patient.patient_id, patient.study_id, view), strict=True))
            label, file = patient.label_of(view), patient.path(view)
            paths.append({**key, "descriptive_path": file, "classic_path": file})
            labels.append({**key, **{name.capitalize(): int(name == label) for name in LABELS}})
            lesion = patient.lesion_in(view)
            values = (
                patient.breasts[laterality(view)].density,
                patient.dose,
                lesion and lesion.kind,
                lesion and round(lesion.size, 1),
                lesion and round(lesion.contrast * patient.conspicuity_in(preset), 3),
                contrasts.get((patient.number, view)),
            )
            axes.append({**key, **dict(zip(AXIS_COLUMNS, values, strict=True))})
            if lesion and label in ("benign", "cancer"):
                box = box_of(preset, patient.breasts[patient.side], view, lesion)
                boxes.append({**key, **_make_box_row(box, label, lesion, preset.shape[0])})
    for name, rows, columns in (
        ("file-paths", paths, [*KEY, "descriptive_path", "classic_path"]),
        ("labels", labels, [*KEY, *map(str.capitalize, LABELS)]),
        ("boxes", boxes, [*KEY, *NATIVE_BOX]),
        ("axes", axes, [*KEY, *AXIS_COLUMNS]),
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
