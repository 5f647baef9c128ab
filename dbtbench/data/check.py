"""Checks of a data set: everything that can be recomputed is recomputed and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.contradictions import find_contradictions
from dbtbench.data.dataset import GRID_BOX, KEY, DBTDataset
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.data.store import VolumeStore
from dbtbench.data.summary import describe_orientation
from dbtbench.data.verification import compare_description, compare_split, compare_tables, list_unknown
from dbtbench.data.words import describe_corners, find_wrong_cells, fit_grid
from dbtbench.errors import DBTBenchError
from dbtbench.geometry.boxes import to_grid
from dbtbench.runtime.progress import progress

SHOWN = 3
"""Problems that a failed check names; the others are counted."""
HALF_VOXEL = 0.5 + 1e-3

Problems = Iterator[str]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: the rule that was checked.
        problems: number of places that break it.
        first: the first few of them, by case and patient.
        notice: whether this is no rule, but something that should be looked at.
    """

    name: str
    problems: int
    first: list[str]
    notice: bool = False

    @property
    def ok(self) -> bool:
        """True when nothing breaks the rule."""
        return self.problems == 0


def check_dataset(path: Path) -> list[Check]:
    """Verify a data set; problems are returned and never raised.

    Args:
        path: its folder.

    Returns:
        One entry per check. When the tables cannot be read, that is the only one.
    """
    complete = "dataset.json and the tables are complete"
    try:
        data = DBTDataset.read(path)
    except DBTBenchError as error:
        return [Check(complete, 1, [str(error)])]
    return [
        Check(complete, 0, []),
        *(_run(name, find(data)) for name, find in CHECKS.items()),
        *_check_orientation(data),
        *_list_notices(data),
    ]


def _check_orientation(data: DBTDataset) -> Iterator[Check]:
    """Compare the count of turned volumes with cases.csv; data sets without one have no such check."""
    report = data.meta.get("import_report") or {}
    if described := describe_orientation(report):
        turned = int((data.cases["flipped"].astype(str) == "True").sum()) if "flipped" in data.cases else 0
        wrong = turned != report["orientation"]["turned"]
        yield Check(described, int(wrong), [f"cases.csv has {turned} turned volumes"] if wrong else [])


def _list_notices(data: DBTDataset) -> Iterator[Check]:
    """Yield what breaks no rule: labels and boxes that contradict each other, patients of unknown split."""
    if unknown := list_unknown(data.meta, data.cases, data.read_rejected):
        text = "patient without a volume, and the split is not recorded: its hash was not compared"
        yield Check(f"{len(unknown)} × {text}", 0, unknown[:SHOWN], notice=True)
    if not data.synthetic:
        for text, found in find_contradictions(data.cases, data.boxes).items():
            named = _name_rows(data.cases, data.cases["case"].isin(found), lambda row: str(row.label))
            yield Check(f"{len(found)} × {text}", 0, list(islice(named, SHOWN)), notice=True)


def as_text(name: str, checks: Iterable[Check]) -> str:
    """Write one line per check, and below it the first problems."""
    checks = list(checks)
    lines = []
    for check in checks:
        lines.append(f"{'notice' if check.notice else 'ok    ' if check.ok else 'FAILED'}  {check.name}")
        lines += [f"        {_printable(problem)}" for problem in check.first]
        if check.problems > len(check.first):
            lines.append(f"        and {check.problems - len(check.first):,} more")
    failed = sum(not check.ok for check in checks)
    rules = sum(not check.notice for check in checks)
    lines.append(f"{name}: {f'{failed} of {rules} checks failed' if failed else 'all checks passed'}")
    return "\n".join(lines)


def _run(name: str, problems: Problems) -> Check:
    first = list(islice(problems, SHOWN))
    return Check(name, len(first) + sum(1 for _ in problems), first)


def _printable(text: str) -> str:
    """Replace control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _name_rows(rows: pd.DataFrame, wrong: Any, what: Callable[[Any], str]) -> Problems:
    """Name the wrong rows of cases.csv or boxes.csv."""
    for row in rows[wrong].itertuples():
        yield f"case {row.case} ({row.PatientID} {row.View}): {what(row)}"


def _check_fingerprint(data: DBTDataset) -> Problems:
    if problem := compare_tables(data.path, data.meta):
        yield problem


def _check_split(data: DBTDataset) -> Problems:
    if problem := compare_split(data.meta, data.cases, data.read_rejected):
        yield problem


def _check_description(data: DBTDataset) -> Problems:
    if problem := compare_description(data.meta):
        yield problem


def _have_own_numbers(data: DBTDataset) -> pd.Series:
    """Find the cases whose number is no other case's."""
    cases = data.cases["case"]
    return ~cases.duplicated(keep=False) & (cases >= 0)


def _check_numbers(data: DBTDataset) -> Problems:
    counted = data.meta["cases"]
    if counted != len(data):
        yield f"dataset.json counts {counted:,} cases, cases.csv has {len(data):,}"
    yield from _name_rows(data.cases, ~_have_own_numbers(data), lambda row: "its number is not its own")
    try:
        capacity = VolumeStore(data.path, data.grid).array.shape[0]
    except DBTBenchError:
        return  # the check of the volumes reports it
    yield from _name_rows(
        data.cases, data.cases["case"] >= capacity, lambda row: f"the store has {capacity} rows"
    )


def _check_volumes(data: DBTDataset) -> Problems:
    try:
        store = VolumeStore(data.path, data.grid)
    except DBTBenchError as error:
        yield str(error)
        return
    rows = data.cases[_have_own_numbers(data) & (data.cases["case"] < store.array.shape[0])]
    with progress("check volumes", len(rows)) as advance:
        for row in rows.itertuples():
            try:
                store.read(row.case, row.sha256)
            except DBTBenchError as error:
                yield f"case {row.case} ({row.PatientID} {row.View}): {error}"
            advance()


def _check_patients(data: DBTDataset) -> Problems:
    pairs = data.cases.drop_duplicates(["PatientID", "split"])
    for patient, cases in pairs[pairs["PatientID"].duplicated(keep=False)].groupby("PatientID"):
        places = (f"{split} (case {case})" for split, case in zip(cases["split"], cases["case"], strict=True))
        yield f"{patient}: in {' and '.join(places)}"


def _check_words(data: DBTDataset) -> Problems:
    tables = {"cases.csv": data.cases, "boxes.csv": data.boxes}
    for file, number, column, value in find_wrong_cells(data.cases, data.boxes):
        row = tables[file].loc[number]
        what = column.lower() if column == "View" else column
        yield f"case {row['case']} ({row['PatientID']} {row['View']}): {what} {value}"


def _check_synthetic(data: DBTDataset) -> Problems:
    if data.synthetic:
        yield from _name_rows(data.cases, data.cases["split"] != "train", lambda row: f"in {row.split}")


def _check_sizes(data: DBTDataset) -> Problems:
    size = data.cases[["slices", "rows", "columns"]]
    wrong = (size < 1).any(axis=1)
    yield from _name_rows(data.cases, wrong, lambda row: f"{row.slices} × {row.rows} × {row.columns}")


def _check_paths(data: DBTDataset) -> Problems:
    if "file" in data.cases:
        leaves = data.cases["file"].fillna("").map(_leaves_folder)
        yield from _name_rows(data.cases, leaves, lambda row: str(row.file))


def _leaves_folder(text: str) -> bool:
    """Test whether a relative path, read the POSIX or the Windows way, may lead out of its folder."""
    paths = PurePosixPath(text), PureWindowsPath(text)
    return any(path.anchor or ".." in path.parts for path in paths)


def _check_owners(data: DBTDataset) -> Problems:
    owners = data.cases.drop_duplicates("case")[["case", *KEY]]
    boxes = data.boxes[["case", *KEY]].merge(owners, on="case", how="left", suffixes=("", "_of_case"))
    for name in KEY:
        boxes["other"] = boxes[f"{name}_of_case"]
        boxes["own"] = boxes[name]
        yield from _name_rows(boxes, boxes["other"] != boxes["own"], partial(_describe_owner, name))
        boxes = boxes[boxes["other"] == boxes[name]]


def _describe_owner(name: str, row: Any) -> str:
    return "no such case" if pd.isna(row.other) else f"{name} is {row.other}, and {row.own} for its box"


def _check_grid_boxes(data: DBTDataset) -> Problems:
    yield from _name_rows(data.boxes, ~fit_grid(data.boxes, data.grid), describe_corners)


def _check_native_boxes(data: DBTDataset) -> Problems:
    """Find boxes that do not touch their volume; a box may reach over the edge."""
    boxes = _join_sizes(data)
    touches = (
        boxes["Slice"].between(0, boxes["slices"], inclusive="left")
        & (boxes["Width"] > 0)
        & (boxes["Height"] > 0)
        & (boxes["X"] < boxes["columns"])
        & (boxes["X"] + boxes["Width"] > 0)
        & (boxes["Y"] < boxes["rows"])
        & (boxes["Y"] + boxes["Height"] > 0)
    )
    yield from _name_rows(boxes, ~touches, _describe_place)


def _describe_place(row: Any) -> str:
    return f"Slice {row.Slice:g}, X {row.X:g}, Y {row.Y:g}, Width {row.Width:g}, Height {row.Height:g}"


def _check_agreement(data: DBTDataset) -> Problems:
    """Find boxes that differ from their native columns.

    A generator chooses the depth of a box, so along z a synthetic box only has to hold its slice.
    """
    axes = np.array([1, 2, 4, 5] if data.synthetic else range(6))
    for row in _join_sizes(data).itertuples():
        size = row.slices, row.rows, row.columns
        carried = np.array(to_grid(row._asdict(), size, data.grid))
        placed = np.array([getattr(row, name) for name in GRID_BOX])
        slice_ = (row.Slice + 0.5) * data.grid[0] / row.slices
        apart = np.abs(placed - carried)[axes].max()
        if not apart <= HALF_VOXEL or not placed[0] - HALF_VOXEL <= slice_ <= placed[3] + HALF_VOXEL:
            native = ", ".join(f"{value:g}" for value in carried)
            yield f"case {row.case} ({row.PatientID} {row.View}): {describe_corners(row)}, native [{native}]"


def _join_sizes(data: DBTDataset) -> pd.DataFrame:
    """Add the original size of its case to every box; boxes without such a case are left out."""
    size = ["slices", "rows", "columns"]
    cases = data.cases.drop_duplicates("case")
    boxes = data.boxes[["case", *KEY, *GRID_BOX, "Slice", "X", "Y", "Width", "Height"]]
    return boxes.merge(cases.loc[(cases[size] > 0).all(axis=1), ["case", *size]], on="case")


def _check_import_report(data: DBTDataset) -> Problems:
    try:
        rejected = data.read_rejected()
    except DBTBenchError as error:
        yield str(error)
        return
    report = data.meta.get("import_report")
    is_box = rejected["table"] == "boxes"
    if report is not None:
        yield from _check_sums("volumes", report, len(data), rejected[~is_box], "cases.csv")
        yield from _check_sums("boxes", report["boxes"], len(data.boxes), rejected[is_box], "boxes.csv")
    elif (counted := data.meta.get("rejected", len(rejected))) != len(rejected):
        yield f"dataset.json counts {counted} rejected rows, rejected.csv has {len(rejected)}"


def _check_sums(
    what: str, report: Mapping[str, Any], imported: int, rejected: pd.DataFrame, table: str
) -> Problems:
    parts = report["imported"] + sum(report["rejected"].values()) + report["missing"]
    if report["rows"] != parts:
        yield f"{what}: {report['rows']:,} rows, but {parts:,} imported, rejected and not downloaded"
    if report["imported"] != imported:
        yield f"{what}: {report['imported']:,} imported, but {table} has {imported:,} rows"
    listed = dict(rejected["reason"].value_counts())
    counted = {**report["rejected"], NOT_DOWNLOADED: report["missing"]}
    for reason in sorted(counted.keys() | listed.keys()):
        if counted.get(reason, 0) != listed.get(reason, 0):
            yield f"{what}: {counted.get(reason, 0)} × {reason}, but rejected.csv has {listed.get(reason, 0)}"


CHECKS: dict[str, Callable[[DBTDataset], Problems]] = {
    "the fingerprint is that of the tables": _check_fingerprint,
    "the split has its hash": _check_split,
    "dataset.json has its digest": _check_description,
    "every case has a number of its own, inside the store": _check_numbers,
    "every patient is in one split": _check_patients,
    "names, words and distances are possible ones": _check_words,
    "synthetic volumes are for training only": _check_synthetic,
    "original sizes are positive": _check_sizes,
    "no path leaves the collection": _check_paths,
    "every box belongs to its case": _check_owners,
    "boxes lie inside the grid": _check_grid_boxes,
    "native boxes lie on the original volume": _check_native_boxes,
    "boxes agree with their native columns": _check_agreement,
    "the import report adds up": _check_import_report,
    "every volume has its SHA-256": _check_volumes,
}
