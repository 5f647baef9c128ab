"""Fixtures of the report: a small workspace with data sets, runs and predictions."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.data.writer import DatasetWriter
from dbtbench.geometry.boxes import to_native
from dbtbench.geometry.views import laterality
from dbtbench.layouts import draw_layouts
from dbtbench.metrics import froc
from dbtbench.records import Record
from dbtbench.runtime.files import digest, write_json
from dbtbench.workspace import Workspace

HOSTILE = "</script><x-bad onload=\"alert('1')\">'\"&amp;\u202egnp.exe\u2066\x1b[2J\u2028=1+1"
"""Ends a script, begins an element, quotes, turns text around, controls a terminal, ends a line, computes."""


class Elements(HTMLParser):
    """Elements of a page, with their attributes and the text that is right inside."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.found if name == tag]


@pytest.fixture(scope="session")
def parse_page() -> Callable[[str], Elements]:
    """`parse_page(text)`: its elements, as `html.parser` sees them."""
    return Elements


@pytest.fixture(scope="session")
def find_faults() -> Callable[[str], list[str]]:
    """`find_faults(text)`: what of `HOSTILE` has become more than text in a page."""

    def find(text: str) -> list[str]:
        page = Elements(text)
        tags = {tag for tag, _, _ in page.found}
        faults = [f"element {tag}" for tag in sorted(tags & {"x-bad", "x-bad>"})]
        faults += [f"{len(page.all('script'))} scripts"] * (len(page.all("script")) != 2)
        handlers = {name for _, attributes, _ in page.found for name in attributes if name.startswith("on")}
        faults += [f"attribute {name}" for name in sorted(handlers)]
        return faults + [
            f"sign {sign!r}" for sign in sorted(set(re.findall("[\u202e\u2066\x1b\u2028]", text)))
        ]

    return find


def poison(value: Any, key: str = "") -> Any:
    """Add `HOSTILE` to every text of a page's description; pictures and the axes' numbers stay."""
    if isinstance(value, str):
        return value if key in ("sprite", "url", "kind") else value + HOSTILE
    if isinstance(value, dict):
        same = key in ("kinds", "records", "csv")
        return {k + HOSTILE if same and key != "kinds" else k: poison(v, k) for k, v in value.items()}
    return [poison(each, key) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def poison_page() -> Callable[[Any], Any]:
    """`poison_page(page)`: the same description with `HOSTILE` in every text."""
    return poison


def _brighten(volume: Any, boxes: Any) -> Any:
    out = volume.copy()
    for z0, y0, x0, z1, y1, x1 in boxes.astype(int):
        out[z0:z1, y0:y1, x0:x1] = np.clip(out[z0:z1, y0:y1, x0:x1] + 0.2, 0, 1)
    return out


def write_layouts(path: Path, real: DBTDataset, n: int, derived: bool) -> DBTDataset:
    """Write what a generator draws from layouts: their source with brighter boxes, or grey."""
    train = real.select("train")
    source = {"kind": "synthetic", "generator": path.name, "version": 1, "run": "0" * 12, "recipe": {}}
    source |= {"data": real.identity, "seed": 0, "positives": 0.5, "n": n, "derived": derived}
    size = dict(zip(("slices", "rows", "columns"), real.grid, strict=True))
    with DatasetWriter(path, real.grid, n, {"synthetic": path.name}) as writer:
        for layout in draw_layouts(train, n, 0, 0.5):
            volume = train.volumes([layout.source])[0, 0]
            view = str(train.cases.set_index("case").loc[layout.source, "View"])
            if laterality(view) != laterality(layout.view):
                volume = volume[:, :, ::-1]
            volume = _brighten(volume, layout.boxes) if derived else np.full_like(volume, 0.3)
            key = {
                "PatientID": f"{path.name}-{layout.index}",
                "StudyUID": f"{layout.index}",
                "View": layout.view,
            }
            case = {**key, "label": layout.label, "split": "train", **size, "pixel_mm": 7.0}
            boxes = [
                {
                    **key,
                    **dict(zip(("z0", "y0", "x0", "z1", "y1", "x1"), map(float, box), strict=True)),
                    "Subject": 0,
                    "Slice": 1,
                    "X": 1.0,
                    "Y": 1.0,
                    "Width": 2.0,
                    "Height": 2.0,
                    "Class": "cancer",
                    "AD": 0,
                    "VolumeSlices": real.grid[0],
                }
                for box in layout.boxes
            ]
            writer.add(
                layout.index, volume, {**case, "flipped": False, "file": "", "source": layout.source}, boxes
            )
        meta = {"intensity": real.meta["intensity"], "source": source, "split": {"kind": "all for training"}}
        return writer.finish(meta, real.split_hash)


def predict(real: DBTDataset, found: int, seed: int) -> pd.DataFrame:
    """Predict the first lesions of the test split where they are, and a false one in each volume."""
    test, parts = real.select("test"), []
    for number, case in enumerate(test.cases["case"]):
        boxes = test.boxes_of(case) if number < found else np.empty((0, 6), np.float32)
        wrong = np.array([[0, 1, 1, 2, 4, 4]], np.float32)
        rows = to_native(np.concatenate([boxes, wrong]), real.grid, real.grid)
        rng = np.random.default_rng([seed, number])
        scores = np.round(np.append(np.full(len(boxes), 0.9), 0.3) + rng.uniform(0, 0.05, len(rows)), 4)
        row = test.cases[test.cases["case"] == case].iloc[0]
        parts.append(rows.assign(**{name: row[name] for name in KEY}, Score=scores))
    table = pd.concat(parts, ignore_index=True)
    return table[[*KEY, "X", "Width", "Y", "Height", "Z", "Depth", "Score"]]


@pytest.fixture(scope="session")
def make_workspace(
    make_toy: Callable[..., DBTDataset], make_record: Callable[..., dict[str, Any]]
) -> Callable[..., Workspace]:
    """`make_workspace(root, arms, seeds, grid, patients)`: data sets and finished runs of detection."""

    def make(
        root: Path,
        arms: int = 2,
        seeds: int = 5,
        grid: tuple[int, int, int] = (8, 32, 32),
        patients: int = 24,
    ) -> Workspace:
        work = Workspace(root)
        real = make_toy(work.datasets / "toy", patients, grid)
        names = [f"gan{number}" for number in range(arms)]
        for number, name in enumerate(names):
            write_layouts(work.datasets / name, real, 16, derived=number == 0)
        test = real.select("test")
        for number, arm in enumerate(["real", *names]):
            for seed in range(seeds):
                found = min(len(test), 2 + 2 * (number % 5) + seed % 3)
                table = predict(real, found, 100 * number + seed)
                own = (test.cases, test.boxes, table, froc.match_distances(test))
                outcomes = froc.outcomes(*own)
                scores = {"mean_sensitivity_positive": froc.score_dbtex(*own)["mean_sensitivity_positive"]}
                record = make_record(arm, seed, scores=scores, data=dict(real.identity))
                if arm != "real":
                    record["augmentation"] |= {"name": arm, "fingerprint": digest(arm)}
                run = work.evaluations / "detection" / Record.model_validate(record).hash
                write_json(run / "run.json", record)
                outcomes.to_csv(run / "outcomes.csv", index=False)
                table.to_csv(run / "predictions.csv", index=False)
        return work

    return make


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[..., Workspace]) -> Workspace:
    """Five seeds of `real` and of two generators, on toy volumes; one of the two changes training volumes."""
    return make_workspace(tmp_path_factory.mktemp("report") / "work")
