"""Verifying a data set as an auditor would: everything that can be recomputed is recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import zarr

from dbtbench.data.dataset import GRID_BOX, KEY, LABELS, SPLITS, DBTDataset, content_fingerprint
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.errors import DBTBenchError
from dbtbench.geometry.boxes import to_grid
from dbtbench.geometry.views import VIEW_PATTERN
from dbtbench.runtime.progress import progress

SHOWN = 3
"""Offenders that are named for a failure."""
HALF_VOXEL = 0.5 + 1e-3
ROUNDING = 1e-3
"""What sums of float32 coordinates may be off, in voxels or pixels."""

Problems = Iterator[str]


@dataclass(frozen=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: what has to hold.
        problems: how often it does not.
        first: the first few of these, by case and patient.
    """

    name: str
    problems: int
    first: list[str]

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.problems == 0


def check_dataset(path: Path) -> list[Check]:
    """Verify a data set; what is wrong with it is told and never raised.

    Args:
        path: its folder.

    Returns:
        One entry a check. When the tables cannot even be read, that is the only one.
    """
    complete = "dataset.json and the tables are complete"
    try:
        data = DBTDataset.open(path)
    except DBTBenchError as error:
        return [Check(complete, 1, [str(error)])]
    return [Check(complete, 0, []), *(_run(name, find(data)) for name, find in CHECKS.items())]


def as_text(name: str, checks: Iterable[Check]) -> str:
    """One line a check, and below it the first offenders."""
    checks = list(checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}")
        lines += [f"        {_printable(problem)}" for problem in check.first]
        if check.problems > len(check.first):
            lines.append(f"        and {check.problems - len(check.first):,} more")
    failed = sum(not check.ok for check in checks)
    lines.append(f"{name}: {f'{failed} of {len(checks)} checks failed' if failed else 'all checks passed'}")
    return "\n".join(lines)


def _run(name: str, problems: Problems) -> Check:
    first = list(islice(problems, SHOWN))
    return Check(name, len(first) + sum(1 for _ in problems), first)


def _printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _told(rows: pd.DataFrame, wrong: Any, what: Callable[[Any], str]) -> Problems:
    """Name the rows of cases.csv or boxes.csv that are wrong."""
    for row in rows[wrong].itertuples():
        yield f"case {row.case} ({row.PatientID} {row.View}): {what(row)}"


def _fingerprint(data: DBTDataset) -> Problems:
    try:
        tables = [(data.path / name).read_bytes().decode() for name in ("cases.csv", "boxes.csv")]
        found = content_fingerprint(data.grid, data.meta["intensity"], *tables)
    except (OSError, ValueError) as error:
        yield f"it cannot be recomputed: {error}"
        return
    if found != data.fingerprint:
        yield f"dataset.json says {data.fingerprint[:12]}, the tables give {found[:12]}"


def _open_store(data: DBTDataset) -> zarr.Array[Any]:
    """The store, if it is one of this data set's shape.

    Raises:
        ValueError: when it is not, or cannot be opened.
    """
    try:
        store = zarr.open_array(data.path / "volumes.zarr", mode="r")
        shape, chunks, kind = store.shape, store.chunks, store.dtype
    except Exception as error:  # a damaged zarr.json raises whatever zarr stumbles over
        raise ValueError(f"volumes.zarr cannot be opened: {type(error).__name__}: {error}") from error
    if shape[1:] != data.grid or chunks != (1, *data.grid) or kind != np.uint16:
        raise ValueError(f"volumes.zarr holds {kind} {shape} in chunks {chunks}, not uint16 on {data.grid}")
    return store


def _numbered(data: DBTDataset) -> pd.Series:
    """Which cases have a number of their own."""
    cases = data.cases["case"]
    return ~cases.duplicated(keep=False) & (cases >= 0)


def _numbers(data: DBTDataset) -> Problems:
    counted = data.meta["cases"]
    if counted != len(data):
        yield f"dataset.json counts {counted:,} cases, cases.csv has {len(data):,}"
    yield from _told(data.cases, ~_numbered(data), lambda row: "its number is not its own")
    try:
        capacity = _open_store(data).shape[0]
    except ValueError:
        return  # the check of the volumes says so
    yield from _told(data.cases, data.cases["case"] >= capacity, lambda row: f"the store has {capacity} rows")


def _volumes(data: DBTDataset) -> Problems:
    try:
        store = _open_store(data)
    except ValueError as error:
        yield str(error)
        return
    rows = data.cases[_numbered(data) & (data.cases["case"] < store.shape[0])]
    with progress("check volumes", len(rows)) as advance:
        for row in rows.itertuples():
            if problem := _volume(store, row.case, row.sha256):
                yield f"case {row.case} ({row.PatientID} {row.View}): {problem}"
            advance()


def _volume(store: zarr.Array[Any], case: int, expected: str) -> str:
    """What is wrong with a stored volume; nothing when its values have the digest of cases.csv."""
    try:
        values = np.asarray(store[case], dtype="<u2")
    except Exception as error:  # every codec has its own way of refusing a damaged chunk
        return f"cannot be read: {type(error).__name__}: {error}"
    if hashlib.sha256(values.tobytes()).hexdigest() == expected:
        return ""
    return "its values do not have the SHA-256 of cases.csv" if values.any() else "its values are missing"


def _patients(data: DBTDataset) -> Problems:
    pairs = data.cases.drop_duplicates(["PatientID", "split"])
    for patient, cases in pairs[pairs["PatientID"].duplicated(keep=False)].groupby("PatientID"):
        places = (f"{split} (case {case})" for split, case in zip(cases["split"], cases["case"], strict=True))
        yield f"{patient}: in {' and '.join(places)}"


def _words(data: DBTDataset) -> Problems:
    cases = data.cases
    yield from _told(cases, ~cases["split"].isin(SPLITS), lambda row: f"split {row.split!r}")
    yield from _told(cases, ~cases["label"].isin(LABELS), lambda row: f"label {row.label!r}")
    yield from _told(cases, ~cases["View"].str.fullmatch(VIEW_PATTERN), lambda row: f"view {row.View!r}")


def _synthetic(data: DBTDataset) -> Problems:
    if data.synthetic:
        yield from _told(data.cases, data.cases["split"] != "train", lambda row: f"in {row.split}")


def _sizes(data: DBTDataset) -> Problems:
    size = data.cases[["slices", "rows", "columns"]]
    wrong = (size < 1).any(axis=1)
    yield from _told(data.cases, wrong, lambda row: f"{row.slices} × {row.rows} × {row.columns}")


def _paths(data: DBTDataset) -> Problems:
    if "file" in data.cases:
        leaves = data.cases["file"].fillna("").map(_leaves)
        yield from _told(data.cases, leaves, lambda row: str(row.file))


def _leaves(text: str) -> bool:
    """Whether a relative path, read the POSIX or the Windows way, may lead out of its folder."""
    paths = PurePosixPath(text), PureWindowsPath(text)
    return any(path.anchor or ".." in path.parts for path in paths)


def _owned(data: DBTDataset) -> Problems:
    owners = data.cases.drop_duplicates("case")[["case", *KEY]]
    boxes = data.boxes[["case", *KEY]].merge(owners, on="case", how="left", suffixes=("", "_of_case"))
    for name in KEY:
        boxes["other"] = boxes[f"{name}_of_case"]
        boxes["own"] = boxes[name]
        yield from _told(boxes, boxes["other"] != boxes["own"], partial(_strange, name))
        boxes = boxes[boxes["other"] == boxes[name]]


def _strange(name: str, row: Any) -> str:
    return "no such case" if pd.isna(row.other) else f"{name} is {row.other}, and {row.own} for its box"


def _in_grid(data: DBTDataset) -> Problems:
    low, high = data.boxes[GRID_BOX[:3]].to_numpy(), data.boxes[GRID_BOX[3:]].to_numpy()
    inside = (low >= -ROUNDING) & (high <= np.array(data.grid) + ROUNDING) & (low < high)
    yield from _told(data.boxes, ~inside.all(axis=1), _corners)


def _corners(row: Any) -> str:
    return f"box [{', '.join(f'{getattr(row, name):g}' for name in GRID_BOX)}]"


def _native(data: DBTDataset) -> Problems:
    """A box may reach over the edge of the image, but has to touch it."""
    boxes = _with_sizes(data)
    touches = (
        boxes["Slice"].between(0, boxes["slices"], inclusive="left")
        & (boxes["Width"] > 0)
        & (boxes["Height"] > 0)
        & (boxes["X"] < boxes["columns"])
        & (boxes["X"] + boxes["Width"] > 0)
        & (boxes["Y"] < boxes["rows"])
        & (boxes["Y"] + boxes["Height"] > 0)
    )
    yield from _told(boxes, ~touches, _place)


def _place(row: Any) -> str:
    return f"Slice {row.Slice:g}, X {row.X:g}, Y {row.Y:g}, Width {row.Width:g}, Height {row.Height:g}"


def _agreement(data: DBTDataset) -> Problems:
    """Along z a generator gives a box its own extent, so there the box only has to hold its slice."""
    axes = np.array([1, 2, 4, 5] if data.synthetic else range(6))
    for row in _with_sizes(data).itertuples():
        size = row.slices, row.rows, row.columns
        carried = np.array(to_grid(row._asdict(), size, data.grid))
        placed = np.array([getattr(row, name) for name in GRID_BOX])
        slice_ = (row.Slice + 0.5) * data.grid[0] / row.slices
        apart = np.abs(placed - carried)[axes].max()
        if not apart <= HALF_VOXEL or not placed[0] - HALF_VOXEL <= slice_ <= placed[3] + HALF_VOXEL:
            native = ", ".join(f"{value:g}" for value in carried)
            yield f"case {row.case} ({row.PatientID} {row.View}): {_corners(row)}, native [{native}]"


def _with_sizes(data: DBTDataset) -> pd.DataFrame:
    """Boxes with the original size of their case, where there is such a case and it has a size."""
    size = ["slices", "rows", "columns"]
    cases = data.cases.drop_duplicates("case")
    boxes = data.boxes[["case", *KEY, *GRID_BOX, "Slice", "X", "Y", "Width", "Height"]]
    return boxes.merge(cases.loc[(cases[size] > 0).all(axis=1), ["case", *size]], on="case")


def _import_report(data: DBTDataset) -> Problems:
    try:
        rejected = data.rejected()
    except DBTBenchError as error:
        yield str(error)
        return
    report = data.meta.get("import_report")
    is_box = rejected["table"] == "boxes"
    if report is not None:
        yield from _sums("volumes", report, len(data), rejected[~is_box], "cases.csv")
        yield from _sums("boxes", report["boxes"], len(data.boxes), rejected[is_box], "boxes.csv")
    elif (counted := data.meta.get("rejected", len(rejected))) != len(rejected):
        yield f"dataset.json counts {counted} rejected rows, rejected.csv has {len(rejected)}"


def _sums(
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
    "the fingerprint is that of the tables": _fingerprint,
    "every case has a number of its own, inside the store": _numbers,
    "every patient is in one split": _patients,
    "splits, labels and views are known words": _words,
    "synthetic volumes are for training only": _synthetic,
    "original sizes are positive": _sizes,
    "no path leaves the collection": _paths,
    "every box belongs to its case": _owned,
    "boxes lie inside the grid": _in_grid,
    "native boxes lie on the original volume": _native,
    "boxes agree with their native columns": _agreement,
    "the import report adds up": _import_report,
    "every volume has its SHA-256": _volumes,
}
