"""Looks: real and synthetic volumes on the same layouts, and test volumes with detections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.geometry.views import Boxes, Volume, laterality, mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.metrics import froc
from dbtbench.pages.sprites import choose_format, count_columns, make_sprite, size_of_tile
from dbtbench.pipeline.catalogue import describe_datasets
from dbtbench.pipeline.outputs import PREDICTIONS
from dbtbench.records import Result
from dbtbench.report.gathering import Material
from dbtbench.runtime.progress import log, progress

CASES = 8
"""Layouts shown, and test volumes."""
WITH_LESIONS = 5
MOST_SETS = 11
DETECTIONS = 8
"""Detections of a run in one volume: the best."""
PREDICTED = [*KEY, "X", "Width", "Y", "Height", "Z", "Depth", "Score"]
DIFFERENCE = 0.5
"""Grey of no difference."""
MINUS = " − original"
AIR, UNCHANGED, MOSTLY = 0.05, 1 / 255, 0.5
"""Grey value below which there is no breast, change that cannot be seen, and share without any."""


@dataclass(frozen=True)
class Shown:
    """A volume to be shown.

    Attributes:
        name: of the set that it belongs to.
        caption: of which case it is.
        read: reads it: (D, H, W) in [0, 1].
        boxes: its lesions, in voxels of the grid.
        same: whether it has the layout that it stands under.
    """

    name: str
    caption: str
    read: Callable[[], Volume]
    boxes: Boxes
    same: bool = True


def describe_looks(material: Material) -> dict[str, Any] | None:
    """Choose volumes and write them as sprites, the same ones whenever the page is made.

    Returns:
        `grid`, `tile`, `columns`, `layouts` and `tests`; None where the data set of the first board that
        has one is not there.
    """
    opened = ((board.first, material.dataset_of(board.first)) for board in material.boards)
    result, real = next(((r, d) for r, d in opened if d is not None), (None, None))
    if result is None or real is None:
        return None
    sets = _open_synthetic(material, real)
    layouts = [(number, _show_layout(real, sets, number)) for number in _choose_layouts(sets)]
    tests = _choose_tests(real)
    shown = [volume for _, volumes in layouts for volume in volumes]
    shown += [_show_test(real, case) for case in tests]
    form = choose_format([volume.read for volume in shown])
    with progress("volumes of the page", len(shown)) as advance:
        written = []
        for volume in shown:
            written.append(_describe(volume, make_sprite(volume.read(), form)))
            advance(1)
    first = 0
    described = []
    for number, volumes in layouts:
        row = real_case_of(sets, number)
        part = written[first : first + len(volumes)]
        described.append({"title": f"layout {number}: {row}", "volumes": part})
        first += len(volumes)
    return {
        "name": real.name,
        "phantom": "phantom" in real.meta,
        "grid": list(real.grid),
        "tile": list(size_of_tile(real.grid, form)),
        "columns": count_columns(real.grid[0]),
        "layouts": described,
        "tests": [{"title": volume["caption"], "volumes": [volume]} for volume in written[first:]],
        "runs": _read_detections(material, result, real, tests),
    }


def real_case_of(sets: Sequence[DBTDataset], number: int) -> str:
    """Say in words what a layout asks for."""
    lead = sets[0]
    row = lead.cases.iloc[number]
    lesions = len(lead.boxes_of(int(row["case"])))
    what = "no lesion" if not lesions else "1 lesion" if lesions == 1 else f"{lesions} lesions"
    return f"{row['View']}, {what}"


def _open_synthetic(material: Material, real: DBTDataset) -> list[DBTDataset]:
    """Open the synthetic data sets of these data, those with the commonest layouts first."""
    assert material.workspace is not None
    found = []
    for path, meta in describe_datasets(material.workspace).items():
        source = meta["source"]
        fits = source["kind"] == "synthetic" and source.get("data", {}).get("fingerprint") == real.fingerprint
        if not fits or tuple(meta["grid"]) != real.grid:
            continue
        try:
            found.append(DBTDataset.open(path))
        except DBTBenchError as error:
            log.info(f"left out: {error}")
    asked = [_request_of(dataset) for dataset in found]
    order = sorted(range(len(found)), key=lambda k: (-asked.count(asked[k]), found[k].name))
    return [found[k] for k in order][:MOST_SETS]


def _request_of(dataset: DBTDataset) -> tuple[Any, ...]:
    """Give what the layouts of a data set follow from, next to the training split."""
    source = dataset.meta["source"]
    return source.get("seed"), source.get("positives"), source.get("places"), source.get("keep")


def _choose_layouts(sets: Sequence[DBTDataset]) -> list[int]:
    """Choose layouts that the most sets have: the first ones with lesions and the first without."""
    if not sets:
        return []
    lead = sets[0]
    count = min(len(other) for other in sets if _request_of(other) == _request_of(lead))
    return _mix(lead.positive[:count])


def _choose_tests(real: DBTDataset) -> list[int]:
    test = real.select("test")
    rows = _mix(test.positive, spread=True)
    return [int(test.cases["case"].iloc[row]) for row in rows]


def _mix(positive: Any, spread: bool = False) -> list[int]:
    """Choose rows with lesions and without, first those with; spread over all of them, or the first."""
    chosen: list[int] = []
    for rows, wanted in ((np.flatnonzero(positive), WITH_LESIONS), (np.flatnonzero(~positive), CASES)):
        n = min(len(rows), wanted if wanted < CASES else CASES - len(chosen))
        at = np.linspace(0, len(rows) - 1, n).astype(int) if spread and n else np.arange(n)
        chosen += rows[at].tolist()
    return chosen


def _show_layout(real: DBTDataset, sets: Sequence[DBTDataset], number: int) -> list[Shown]:
    """Collect the volumes of a layout: the training volume that it was drawn from, then each set's."""
    train = real.select("train")
    lead = sets[0].cases.iloc[number]
    view, shown = str(lead["View"]), []
    source = lead.get("source")
    known = set(train.cases["case"])
    if source in known:
        case = int(source)
        mirrored = laterality(_view_of(train, case)) != laterality(view)
        name = "phantom" if "phantom" in real.meta else "real"
        caption = (
            f"{name} training volume {case}{', mirrored' if mirrored else ''}: the layout is taken from it"
        )
        boxes = train.boxes_of(case)
        boxes = mirror_boxes(boxes, real.grid[2]) if mirrored else boxes
        shown.append(Shown(name, caption, partial(_read, train, case, mirrored), boxes))
    for dataset in sets:
        if number >= len(dataset):
            continue
        row = dataset.cases.iloc[number]
        case = int(row["case"])
        same = bool(row["View"] == view and row.get("source") == source)
        caption = f"{dataset.name}, volume {case}" + ("" if same else ", of another layout")
        own = Shown(
            _short_name(dataset, sets), caption, partial(_read, dataset, case), dataset.boxes_of(case), same
        )
        shown.append(own)
        if dataset.meta["source"].get("derived"):
            shown += _show_difference(train, dataset, own, case)
    return shown


def _show_difference(train: DBTDataset, dataset: DBTDataset, own: Shown, case: int) -> list[Shown]:
    """Show what was painted into a training volume, where most of the breast was left as it is.

    The volume is the source of the layout or its host, which is drawn with the layout again: case i is of
    layout i.
    """
    source = dataset.meta["source"]
    row = dataset.cases[dataset.cases["case"] == case].iloc[0]
    view, origins = str(row["View"]), {row.get("source")}
    if {"seed", "positives"} <= source.keys():
        try:
            layout = draw_layouts(train, 1, int(source["seed"]), float(source["positives"]), case)[0]
        except (DBTBenchError, TypeError, ValueError):
            return []
        origins |= {layout.host} if layout.source == row.get("source") else set()
    volume = own.read()
    breast = volume > AIR
    tried = []
    for origin in sorted(int(each) for each in origins & set(train.cases["case"])):
        mirrored = laterality(_view_of(train, origin)) != laterality(view)
        difference = volume - _read(train, origin, mirrored)
        tried.append((float((np.abs(difference[breast]) < UNCHANGED).mean()), origin, difference))
    kept, origin, difference = max(tried, key=lambda one: one[:2], default=(0.0, 0, volume))
    if not kept > MOSTLY:
        return []
    grey = np.asarray(DIFFERENCE + difference / 2, np.float32)
    caption = f"{own.name} less training volume {origin}: grey is no change, white is added"
    return [Shown(f"{own.name}{MINUS}", caption, lambda: grey, own.boxes, own.same)]


def _show_test(real: DBTDataset, case: int) -> Shown:
    row = real.cases[real.cases["case"] == case].iloc[0]
    boxes = real.boxes_of(case)
    name = "phantom" if "phantom" in real.meta else "real"
    lesions = "no lesion" if not len(boxes) else "1 lesion" if len(boxes) == 1 else f"{len(boxes)} lesions"
    caption = f"{row['PatientID']} {row['View']}, {lesions}"
    return Shown(name, caption, partial(_read, real, case), boxes)


def _read(dataset: DBTDataset, case: int, mirrored: bool = False) -> Volume:
    volume = dataset.volumes([case])[0, 0]
    return np.ascontiguousarray(volume[:, :, ::-1]) if mirrored else np.asarray(volume)


def _view_of(dataset: DBTDataset, case: int) -> str:
    return str(dataset.cases.loc[dataset.cases["case"] == case, "View"].iloc[0])


def _short_name(dataset: DBTDataset, sets: Iterable[DBTDataset]) -> str:
    """A set's name: its generator's, where no other set here is of the same."""
    generator = str(dataset.meta["source"].get("generator", dataset.name))
    same = [other for other in sets if other.meta["source"].get("generator") == generator]
    return generator if len(same) == 1 else dataset.name


def _describe(volume: Shown, sprite: str) -> dict[str, Any]:
    boxes = [[round(float(x), 2) for x in box] for box in volume.boxes]
    kept = {"name": volume.name, "caption": volume.caption, "same": volume.same}
    return kept | {"boxes": boxes, "sprite": sprite, "difference": volume.name.endswith(MINUS)}


def _read_detections(
    material: Material, result: Result, real: DBTDataset, tests: Sequence[int]
) -> list[dict[str, Any]]:
    """Read what each run of the same data predicted in the test volumes that are shown.

    Returns:
        `label`, `seed`, `hash` and `found`: for each test volume rows of `[z0, y0, x0, z1, y1, x1, score,
        hit]`, in voxels of the grid, the best first.
    """
    cases = real.take(real.cases["case"].isin(tests))
    reach = froc.match_distances(cases)
    runs = []
    for board in material.boards:
        if board.first.record.data.fingerprint != result.record.data.fingerprint:
            continue
        for label, seeds in board.runs.items():
            for seed in sorted(seeds):
                table = material.read_kept(seeds[seed], PREDICTIONS, PREDICTED)
                if table is not None:
                    found = _select_detections(table, cases, tests, reach)
                    record = seeds[seed].record
                    runs.append({"label": label, "seed": seed, "hash": record.hash, "found": found})
    return runs


def _select_detections(
    table: pd.DataFrame, cases: DBTDataset, tests: Sequence[int], reach: Any
) -> list[list[list[float]]]:
    """Select the best detections in each test volume, in voxels, and mark those that hit a lesion."""
    keys = pd.MultiIndex.from_frame(cases.cases[KEY].astype(str))
    own = table[pd.MultiIndex.from_frame(table[KEY].astype(str)).isin(keys)].reset_index(drop=True)
    hits = froc.match_boxes(cases.boxes, own, reach) >= 0 if len(cases.boxes) else np.zeros(len(own), bool)
    found = []
    for case in tests:
        row = cases.cases[cases.cases["case"] == case].iloc[0]
        inside = (own[KEY].astype(str) == row[KEY].astype(str)).all(axis=1)
        best = own[inside].assign(hit=hits[inside]).sort_values("Score", ascending=False, kind="stable")
        scale = np.array(cases.grid) / row[["slices", "rows", "columns"]].to_numpy(np.float64)
        rows = []
        for one in best.head(DETECTIONS).itertuples():
            # `to_native` puts Z half a slice below the lower face.
            low = np.array([one.Z + 0.5, one.Y, one.X]) * scale
            high = np.array([one.Z + 0.5 + one.Depth, one.Y + one.Height, one.X + one.Width]) * scale
            rows.append([*np.round([*low, *high], 2).tolist(), round(float(one.Score), 4), int(one.hit)])
        found.append(rows)
    return found
