"""The export of a data set: each volume as a file that other programs read, and tables to import it again.

OUT/export.json                    what was exported
OUT/000012-DBT-P00003-lcc.dcm      one file per volume: .dcm, .nii.gz or .npz
OUT/volumes.csv                    file, PatientID, StudyUID, View, label, split; synthetic: derived (0, 1)
OUT/boxes.csv                      file, z0 … x1 (voxels of that file, half-open), Class
OUT/BCS-DBT-labels-train-v2.csv    next to DICOM files: the three tables of BCS-DBT for each split
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import GRID_BOX, KEY, LABELS, NATIVE_BOX, SPACING, DBTDataset
from dbtbench.data.schema import read_declaration
from dbtbench.data.spacing import spacing_of
from dbtbench.dicom.boxes import check_highdicom
from dbtbench.dicom.volume import image_laterality
from dbtbench.dicom.writing import (
    BITS_STORED,
    DRAWN,
    RESAMPLED,
    SMALLEST,
    Derivation,
    write_tomosynthesis,
)
from dbtbench.errors import UsageError
from dbtbench.exchange.viewers import BOX_FILES, write_nifti
from dbtbench.exchange.volumes.nifti import NOMINAL
from dbtbench.geometry.views import Volume, laterality
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import atomic_path, claim_folder, write_text
from dbtbench.runtime.progress import log, progress

VERSION = 1
"""Raise it when the same data set gives other files than before."""
RECORD = "export.json"
SUFFIXES = {"dicom": ".dcm", "nifti": ".nii.gz", "npz": ".npz"}
LARGEST = 2**BITS_STORED - 1
IDENTIFIER, DESCRIPTION = 16, 1024
"""Characters that StudyID (VR SH) and a description (ST) may have."""


def export_dataset(
    dataset: DBTDataset, out: Path, format_: str, split: str | None = None, boxes: Collection[str] = ()
) -> list[Path]:
    """Write a data set's volumes as files; files that an earlier, killed call wrote are kept.

    Values are those of the data set, in [0, 1] as displayed. NIfTI: float32, axes columns, rows and slices.
    NPZ: float32, `volume` (D, H, W), `spacing` of slices, rows and columns in mm (NaN where unknown), `boxes`
    (n, 6). DICOM: 10 bits.

    Args:
        dataset: real or synthetic.
        out: the folder; made if need be.
        format_: `dicom`, `nifti` or `npz`.
        split: only this split's volumes.
        boxes: files of boxes beside each volume: `labelmap` (NIfTI, on the volume's grid; all 0 where it has
            none); and where it has boxes `markups` (3D Slicer), and beside DICOM `sr` and `seg`. A finished
            export takes them later too.

    Returns:
        Every file of the export.

    Raises:
        UsageError: for an unknown format, split or file of boxes, `sr` or `seg` without DICOM, nothing to
            export, a folder that holds something else, or a grid that is too small for DICOM.
        MissingError: for `sr` and `seg` without the extra `viewers`.
    """
    if format_ not in SUFFIXES:
        raise UsageError(f"no format named {format_!r}", f"known: {', '.join(SUFFIXES)}")
    _check_box_files(boxes, format_)
    chosen = dataset if split is None else dataset.select(split)
    if not len(chosen):
        raise UsageError(
            f"{dataset.name} has no volume{f' in the split {split}' if split else ''}",
            f"see `dbtbench data info --data {dataset.name}`",
        )
    if format_ == "dicom" and min(dataset.grid[1:]) < SMALLEST:
        raise UsageError(
            f"{dataset.name}: DICOM files need at least {SMALLEST} × {SMALLEST} pixels, "
            f"not {dataset.grid[1]} × {dataset.grid[2]}",
            "export nifti or npz, or import on a larger grid",
        )
    claim_folder(out, RECORD, _describe_export(chosen, format_, split), "export")
    stems = [_make_stem(case) for case in chosen.cases.to_dict("records")]
    files = [stem + SUFFIXES[format_] for stem in stems]
    turned = _write_volumes(chosen, [out / file for file in files], format_)
    box_files = [name for kind in dict.fromkeys(boxes) for name in _write_boxes(chosen, out, stems, kind)]
    tables = _make_tables(chosen, files)
    if format_ == "dicom":
        tables |= _make_bcs_dbt_tables(chosen, files, turned)
    for name, table in tables.items():
        write_text(out / name, csv_text(table))
    return [out / RECORD, *(out / name for name in [*files, *box_files, *tables])]


def _check_box_files(kinds: Collection[str], format_: str) -> None:
    """Check that boxes have such files, which can be written beside volumes of this format."""
    if unknown := [kind for kind in kinds if kind not in BOX_FILES]:
        raise UsageError(f"boxes have no file named {unknown[0]!r}", f"known: {', '.join(BOX_FILES)}")
    dicom = [kind for kind in kinds if BOX_FILES[kind].dicom]
    if dicom and format_ != "dicom":
        raise UsageError(
            f"boxes as {dicom[0]} refer to DICOM objects, and this export writes {format_}",
            "add `--format dicom`, with another --out",
        )
    if dicom:
        check_highdicom()


def _describe_export(dataset: DBTDataset, format_: str, split: str | None) -> dict[str, Any]:
    """Describe everything that the files depend on."""
    return {
        "export": VERSION,
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "source": dataset.meta["source"],
        "format": format_,
        "split": split or "all",
    }


def _make_stem(case: Mapping[str, Any]) -> str:
    """Make a file's name: unique by the case's number, with the view as a word."""
    return f"{case['case']:06d}-{_clean_name(case['PatientID'])}-{case['View']}"


def _clean_name(text: str, length: int = 48) -> str:
    """Cut a name to its end, and replace characters that a path or a DICOM attribute cannot hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-length:]


def _write_volumes(dataset: DBTDataset, paths: list[Path], format_: str) -> set[int]:
    """Write the files that are not there yet.

    Returns:
        For DICOM, the cases that the official laterality rule does not show as they are.
    """
    cases = dataset.cases.to_dict("records")
    done = sum(path.is_file() for path in paths)
    if done == len(paths):
        log.info(f"{dataset.name}: already exported")
    turned = set()
    with progress(f"export {dataset.name}", len(paths), done=done) as advance:
        for case, path in zip(cases, paths, strict=True):
            there = path.is_file()
            if there and format_ != "dicom":
                continue
            volume = dataset.volumes([case["case"]])[0, 0]
            if image_laterality(_to_ten_bits(volume[0])) not in (None, laterality(case["View"])):
                turned.add(case["case"])
            if not there:
                WRITERS[format_](path, volume, case, dataset)
                advance()
    return turned


def _write_boxes(dataset: DBTDataset, out: Path, stems: list[str], kind: str) -> list[str]:
    """Write the files of boxes that are not there yet; return the names of all."""
    end, write, empty, _ = BOX_FILES[kind]
    cases = dataset.cases.to_dict("records")
    named = [
        (case, stem + end)
        for case, stem, positive in zip(cases, stems, dataset.positive, strict=True)
        if positive or empty  # 3D Slicer opens no empty file of markups, and a SEG has a segment
    ]
    with progress(f"{kind} of {dataset.name}", len(named)) as advance:
        for case, name in named:
            if not (out / name).is_file():
                write(out / name, case, dataset)
            advance()
    return [name for _, name in named]


def _to_ten_bits(values: Volume) -> NDArray[np.uint16]:
    scaled: NDArray[np.uint16] = np.rint(values * LARGEST).astype(np.uint16)
    return scaled


def _write_dicom(path: Path, volume: Volume, case: Mapping[str, Any], dataset: DBTDataset) -> None:
    """Write a Breast Tomosynthesis object that is declared derived, and synthetic where it is."""
    (z_mm, y_mm, x_mm), nominal = spacing_of(case, dataset.grid)
    kind = "synthetic" if dataset.synthetic else "resampled"
    write_tomosynthesis(
        path,
        _to_ten_bits(volume),
        view=case["View"],
        patient_id=_clean_name(case["PatientID"]),
        study_id=_clean_name(case["StudyUID"], IDENTIFIER),
        pixel_mm=(y_mm, x_mm),
        slice_mm=z_mm,
        window=(LARGEST / 2, LARGEST),
        uid_seed=f"{dataset.fingerprint} {case['PatientID']} {case['StudyUID']}",
        model=f"{kind} volume",
        series_description=f"{case['View']} {kind}",
        derivation=_describe_derivation(dataset, nominal),
    )


def _describe_derivation(dataset: DBTDataset, nominal: bool) -> Derivation:
    source, note = dataset.meta["source"], f"; {NOMINAL}" if nominal else ""
    if dataset.synthetic:
        maker = f"{source['generator']} (version {source['version']}, run {source['run']})"
        text = f"synthetic: drawn by {maker}, not a patient{note}"
        if read_declaration(source, "derived"):
            text = f"derived: a training volume that {maker} changed{note}"
    else:
        window = dataset.meta["intensity"].get("window", "unknown")
        grid = " x ".join(map(str, dataset.grid))
        text = f"resampled to {grid} voxels and windowed ({window}), from the data set {dataset.name}{note}"
    text = text.encode("ascii", "replace").decode()[:DESCRIPTION]
    return Derivation(text, DRAWN if dataset.synthetic else RESAMPLED)


def _write_nifti(path: Path, volume: Volume, case: Mapping[str, Any], dataset: DBTDataset) -> None:
    write_nifti(path, volume, case["View"], *spacing_of(case, dataset.grid))


def _write_npz(path: Path, volume: Volume, case: Mapping[str, Any], dataset: DBTDataset) -> None:
    spacing = np.array([case.get(name) for name in SPACING], float)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, volume=volume, spacing=spacing, boxes=dataset.boxes_of(case["case"]))


Writer = Callable[[Path, Volume, Mapping[str, Any], DBTDataset], None]
WRITERS: dict[str, Writer] = {"dicom": _write_dicom, "nifti": _write_nifti, "npz": _write_npz}


def _make_tables(dataset: DBTDataset, files: list[str]) -> dict[str, pd.DataFrame]:
    file_of = dict(zip(dataset.cases["case"], files, strict=True))
    boxes = dataset.boxes.assign(file=dataset.boxes["case"].map(file_of))
    volumes = dataset.cases.assign(file=files)[["file", *KEY, "label", "split"]]
    derived = read_declaration(dataset.meta["source"], "derived") if dataset.synthetic else None
    if derived is not None:
        volumes["derived"] = int(derived)
    return {
        "volumes.csv": volumes,
        "boxes.csv": boxes[["file", *GRID_BOX, "Class"]],
    }


def _make_bcs_dbt_tables(dataset: DBTDataset, files: list[str], turned: set[int]) -> dict[str, pd.DataFrame]:
    """Make the tables that `data import bcs-dbt` reads, for each split that has volumes."""
    cases = dataset.cases.assign(descriptive_path=files, classic_path=files)
    for label in LABELS:
        cases[label.capitalize()] = (cases["label"] == label).astype(int)
    boxes = _to_native_boxes(dataset, turned)
    tables = {}
    for split, rows in cases.groupby("split"):
        mine = boxes[boxes["case"].isin(rows["case"])]
        for name, table, columns in (
            ("labels", rows, [label.capitalize() for label in LABELS]),
            ("file-paths", rows, ["descriptive_path", "classic_path"]),
            ("boxes", mine, NATIVE_BOX),
            ("axes", rows, [name for name in AXIS_COLUMNS if name in rows]),
        ):
            if name == "axes" and not columns:
                continue
            tables[f"BCS-DBT-{name}-{split}-v2.csv"] = table[[*KEY, *columns]]
    if turned:
        log.info(
            f"{len(turned)} of {len(cases)} volumes do not show their view's laterality: "
            "readers that go by the pixels, as BCS-DBT's own does, turn them by 180°"
        )
    return tables


def _to_native_boxes(dataset: DBTDataset, turned: set[int]) -> pd.DataFrame:
    """Convert boxes to the DBTex columns, in pixels of the files as the official reader shows them."""
    depth, height, width = dataset.grid
    boxes = dataset.boxes.copy()
    z, y, x = ((boxes[f"{axis}0"], boxes[f"{axis}1"]) for axis in "zyx")
    turn = boxes["case"].isin(turned)
    return boxes.assign(
        Slice=np.clip((z[0] + z[1]) // 2, 0, depth - 1).astype(int),
        X=x[0].where(~turn, width - x[1]),
        Y=y[0].where(~turn, height - y[1]),
        Width=x[1] - x[0],
        Height=y[1] - y[0],
        VolumeSlices=depth,
    )
