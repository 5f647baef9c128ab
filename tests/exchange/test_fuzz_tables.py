"""Thousands of damaged tables and descriptions: each is read as it says, or refused by its name.

`DBTBENCH_FUZZ=0:100000 pytest -s tests/exchange/test_fuzz_tables.py` makes and reads the inputs of these
numbers; the same number always gives the same input.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fuzzing import SECONDS, judge_input

from dbtbench.data import dataset
from dbtbench.data.dataset import LABELS, SPLITS, DBTDataset
from dbtbench.data.words import is_identifier
from dbtbench.errors import DBTBenchError
from dbtbench.exchange import csv_columns, tables
from dbtbench.exchange.bcs_dbt.tables import read_tables
from dbtbench.exchange.splits import assign_splits
from dbtbench.exchange.volumes.tables import read_sample_tables
from dbtbench.geometry.views import VIEW_PATTERN
from dbtbench.metrics.froc import PREDICTION_NUMBERS
from dbtbench.records import reading
from dbtbench.records.reading import read_result
from dbtbench.runs import add_digest
from dbtbench.submissions.tables import read_labels, read_predictions

NUMBERS = range(*map(int, os.environ.get("DBTBENCH_FUZZ", "0:100").split(":")))
Random = random.Random

LABELLED = "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"
LABELLED += "P1,S1,lcc,0,0,0,1\nP1,S1,rmlo,1,0,0,0\nP2,S2,rcc,0,1,0,0\nP3,S3,lmlo,0,0,1,0\n"
PATHS = "PatientID,StudyUID,View,descriptive_path,classic_path\n"
PATHS += "P1,S1,lcc,a/0.dcm,b/0.dcm\nP1,S1,rmlo,a/1.dcm,b/1.dcm\nP2,S2,rcc,a/2.dcm,b/2.dcm\n"
BOXES = "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices\n"
BOXES += "P1,S1,lcc,1,4,10,20,30,40,cancer,0,9\nP3,S3,lmlo,3,2,1,2,3,4,benign,1,9\n"
VOLUMES = "file,PatientID,StudyUID,View,label,split\na.npy,P1,S1,lcc,cancer,train\nb.npy,P2,S2,rcc,,\n"
REGIONS = "file,z0,y0,x0,z1,y1,x1,Class\na.npy,0,0,0,1,2,3,cancer\nb.npy,1,1,1,2,2,2,benign\n"
PREDICTED = "PatientID,StudyUID,View,X,Width,Y,Height,Z,Depth,Score\nP1,S1,lcc,1,2,3,4,5,1,0.5\n"
PREDICTED += "P1,S1,rmlo,1.5,2,3e1,4,5,-1,0.25\n"
SPLIT = "BCS-DBT-{}-train-v2.csv"

# The readers: each reads a folder, and says what it read in plain lists.


def show(*frames: pd.DataFrame) -> Any:
    return [frame.astype(object).where(frame.notna(), "").astype(str).to_numpy().tolist() for frame in frames]


def check_good(frame: pd.DataFrame, split: bool = False) -> None:
    """Check that the rows without a reason hold what an import relies on."""
    for row in frame[frame["reason"] == ""].to_dict("records"):
        assert is_identifier(row["PatientID"]), row
        assert is_identifier(row["StudyUID"]), row
        assert re.fullmatch(VIEW_PATTERN, row["View"]), row
        assert row.get("label", "normal") in LABELS, row
        assert not split or row["split"] in SPLITS, row
        sizes = [row[name] for name in ("Slice", "X", "Width", "Height", "z0", "x1") if name in row]
        assert all(math.isfinite(size) for size in sizes), row
        assert min(row.get("Width", 1), row.get("Height", 1)) > 0, row


def read_collection(folder: Path) -> Any:
    found = read_tables(folder)
    assert set(assign_splits(found, 0, 0.2).values()) <= set(SPLITS)
    check_good(found.volumes, split=True)
    check_good(found.boxes)
    return show(found.volumes, found.boxes)


def read_samples(folder: Path) -> Any:
    found = read_sample_tables(folder, "made")
    check_good(found.volumes)
    check_good(found.boxes)
    return show(found.volumes, found.boxes)


def read_team(folder: Path) -> Any:
    table = read_predictions(folder / "team.csv", read_labels([folder / "labels.csv"]))
    assert all(math.isfinite(cell) for row in table[PREDICTION_NUMBERS].to_numpy().tolist() for cell in row)
    return show(table)


def read_dataset(folder: Path) -> Any:
    data = DBTDataset.open(folder)
    assert is_identifier(data.name)
    return [data.meta, *show(data.cases, data.boxes, data.read_rejected())]


def read_run(folder: Path) -> Any:
    result = read_result(folder)
    record = result.record.model_dump(mode="json")
    json.dumps(record, allow_nan=False)
    return [record, *show(*result.outcomes.values())]


@dataclass
class Target:
    """A folder that is read, and those of its files that are changed.

    Attributes:
        folder: it.
        read: reads it.
        sealed: the files that a digest covers, so that what says anything else is refused; a description
            without its digest is one of an early version.
        foreign: whether its tables are somebody else's, and may be saved in another way.
        files: what the files hold when they are whole.
        whole: what is read then.
    """

    folder: Path
    read: Callable[[Path], Any]
    sealed: tuple[str, ...] = ()
    foreign: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    whole: Any = None


@pytest.fixture(scope="module")
def targets(
    toy: DBTDataset,
    make_record: Callable[..., dict[str, Any]],
    make_outcomes: Callable[..., pd.DataFrame],
    write_run: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Target]:
    top = tmp_path_factory.mktemp("targets")
    copy = Path(shutil.copytree(toy.path, top / "data set"))
    run = write_run(top / "runs", make_record("ddpm"), make_outcomes(3))
    made = {
        "collection": Target(top / "collection", read_collection),
        "samples": Target(top / "samples", read_samples),
        "team": Target(top / "team", read_team),
        "data set": Target(copy, read_dataset, ("cases.csv", "boxes.csv", "dataset.json"), False),
        "run": Target(run, read_run, foreign=False),
    }
    texts = {
        "collection": {
            SPLIT.format(kind): text
            for kind, text in (("labels", LABELLED), ("file-paths", PATHS), ("boxes", BOXES))
        },
        "samples": {"volumes.csv": VOLUMES, "boxes.csv": REGIONS, "a.npy": "", "b.npy": ""},
        "team": {"labels.csv": LABELLED, "team.csv": PREDICTED},
    }
    for name, target in made.items():
        target.folder.mkdir(exist_ok=True)
        for file, text in texts.get(name, {}).items():
            (target.folder / file).write_text(text)
        kept = ("*.csv", "*.json")
        target.files = {f.name: f.read_bytes() for kind in kept for f in sorted(target.folder.glob(kind))}
        target.whole = target.read(target.folder)
    return made


def judge(r: Random, target: Target, file: str, mutate: Any) -> tuple[str, str]:
    """Change one file, read the folder, and put the file back; the verdict, and what is wrong."""
    raw = target.files[file]
    content, kind = mutate(r, file, raw)
    reseal = file.endswith(".json") and kind == "changed" and r.random() < 0.7
    if reseal and isinstance(said := json.loads(content), dict):
        try:
            content = json.dumps(add_digest(said)).encode()
        except (ValueError, RecursionError):
            reseal = False  # it holds NaN
    try:
        (target.folder / file).write_bytes(content)
        found = target.read(target.folder)
    except DBTBenchError as error:
        named = file in str(error) or target.folder.name in str(error)
        if kind == "saved otherwise" and target.foreign:
            return "refused", f"a table that is right: {error}"
        return "refused", "" if named else f"without the file's name: {error}"
    finally:
        (target.folder / file).write_bytes(raw)
    if kind == "saved otherwise":
        return "same", "" if found == target.whole else "another value"
    if file in target.sealed and not reseal and found != target.whole and "sha256" in found[0]:
        return "read", "a file that does not match its digest"
    return "read", ""


def run(
    numbers: range, targets: dict[str, Target], mutate: Any, only: str = ""
) -> tuple[Counter[str], list[tuple[Any, ...]]]:
    """Make, read and judge the inputs of these numbers; return the verdicts, and every fault."""
    verdicts: Counter[str] = Counter()
    faults: list[tuple[Any, ...]] = []
    slowest = 0.0
    for number in numbers:
        r = Random(number)
        name = only or r.choice(
            ["collection"] * 4 + ["samples"] * 3 + ["team"] * 3 + ["data set"] * 2 + ["run"] * 2
        )
        file = r.choice(list(targets[name].files))
        verdict, fault, seconds = judge_input(partial(judge, r, targets[name], file, mutate))
        verdicts[verdict] += 1
        slowest = max(slowest, seconds)
        if fault or seconds > SECONDS:
            faults.append((number, name, file, verdict, fault[:300], round(seconds, 1)))
    sys.stdout.write(f"\n{dict(verdicts)}, slowest {slowest:.1f} CPU-s\n")
    return verdicts, faults


@pytest.mark.filterwarnings("ignore")
def test_every_table_is_read_as_it_says_or_refused_by_name(
    targets: dict[str, Target], mutate_table: Any
) -> None:
    verdicts, faults = run(NUMBERS, targets, mutate_table)
    assert not faults, f"{len(faults)} of {len(NUMBERS)}, such as {faults[:40]}"
    assert verdicts["refused"] > 0.3 * len(NUMBERS)
    assert verdicts["read"] > 0.1 * len(NUMBERS)
    assert verdicts["same"] > 0.1 * len(NUMBERS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("target", "place", "name", "wrong"),
    [
        ("collection", tables, "is_identifier", lambda text: True),
        ("samples", csv_columns, "decode_table", lambda name, raw: (raw.decode(), ",")),
        ("team", csv_columns, "_to_number", float),
        ("run", reading, "explain", lambda error: 1 / 0),
        ("data set", dataset, "compare_description", lambda meta: ""),
        ("data set", dataset, "compare_tables", lambda path, meta: ""),
    ],
    ids=["names", "encoding", "numbers", "a foreign exception", "description", "tables"],
)
def test_a_wrong_reader_is_found(
    targets: dict[str, Target],
    mutate_table: Any,
    target: str,
    place: Any,
    name: str,
    wrong: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert any(run(range(start, start + 10), targets, mutate_table, target)[1] for start in range(0, 200, 10))
