"""The Python face: what it offers, that it is light, and that every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dbtbench
from dbtbench import metrics
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.metrics import histogram
from dbtbench.workspace import Workspace

LIGHT_SECONDS = 0.03
EXAMPLES = [
    "dbtbench",
    "dbtbench.api",
    "dbtbench.data.dataset",
    "dbtbench.metrics",
    "dbtbench.metrics.arrays",
    "dbtbench.metrics.froc",
]


@pytest.fixture(scope="module")
def names(toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that an example may use."""
    work = tmp_path_factory.mktemp("work")
    return {"dbtbench": dbtbench, "dataset": toy, "folder": str(toy.path), "work": str(work)}


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_docstrings_run(module: str, names: dict[str, Any]) -> None:
    imported = importlib.import_module(module)
    examples = doctest.DocTestFinder(exclude_empty=True).find(imported, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert sum(runner.run(example).attempted for example in examples) > 0
    assert runner.summarize(verbose=False).failed == 0


def test_the_page_runs(names: dict[str, Any]) -> None:
    page = Path(__file__).parents[1] / "docs" / "python.md"
    given = names | {"work": names["work"] + "-page"}
    results = doctest.testfile(
        str(page), module_relative=False, globs=given, optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert (results.failed, results.attempted > 10) == (0, True)


def test_every_module_with_an_example_is_run() -> None:
    package = Path(dbtbench.__file__).parent
    found = {
        ".".join(("dbtbench", *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        for file in package.rglob("*.py")
        if ">>> " in file.read_text(encoding="utf-8")
    }
    assert found == set(EXAMPLES)


@pytest.mark.parametrize("package", [dbtbench, metrics])
def test_every_name_on_offer_is_there(package: Any) -> None:
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018


def _cpu_seconds(code: str) -> float:
    """CPU time of a new interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_dbtbench_costs_nothing() -> None:
    bare = min(_cpu_seconds("pass") for _ in range(5))
    ours = min(_cpu_seconds("import dbtbench") for _ in range(5))
    assert ours - bare < LIGHT_SECONDS


def test_a_data_set_is_named_by_its_folder_or_by_its_name_in_the_workspace(
    toy: DBTDataset, tmp_path: Path
) -> None:
    work = Workspace(tmp_path)
    work.datasets.mkdir()
    (work.datasets / "mine").symlink_to(toy.path)
    for data in (toy, toy.path, str(toy.path), "mine"):
        for place in (work, tmp_path, str(tmp_path)):
            assert dbtbench.open(data, place).fingerprint == toy.fingerprint
    with pytest.raises(MissingError, match="no data set named 'yours'"):
        dbtbench.open("yours", work)


def test_settings_are_values(toy: DBTDataset, tmp_path: Path) -> None:
    settings = {"degrees": 1, "noise": 0.5}
    drawn = dbtbench.sample("classic", toy, 2, settings=settings, workspace=tmp_path)
    assert {key: drawn.meta["source"]["recipe"][key] for key in settings} == settings
    with pytest.raises(UsageError, match="'sharpness'"):
        dbtbench.sample("classic", toy, 2, settings={"sharpness": 1}, workspace=tmp_path)


def test_distances_of_arrays_are_those_of_their_histograms(toy: DBTDataset) -> None:
    train, test = toy.select("train").volumes(), toy.select("test").volumes()
    expected = histogram.wasserstein(histogram.histogram(train), histogram.histogram(test))
    assert metrics.w1_intensity(train, test) == metrics.w1_intensity(train[:, 0], test) == expected > 0
    assert metrics.w1_breast(train, train + np.float32(0.1) * (train < 0.5)) > 0.05


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (np.zeros((4, 4)), "no volumes"),
        (np.full((2, 4, 4), -1.0), r"\[0, 1\]"),
        (np.full((2, 4, 4), np.nan), r"\[0, 1\]"),
    ],
)
def test_arrays_that_are_no_volumes_are_refused(volumes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metrics.w1_intensity(volumes, np.zeros((2, 4, 4)))


def test_two_arrays_have_the_scores_that_the_task_gives_their_data_sets(
    toy: DBTDataset, tmp_path: Path
) -> None:
    drawn = dbtbench.sample("classic", data=toy, n=16, workspace=tmp_path)
    table = dbtbench.evaluate("realism", ["classic"], data=toy, arms=[], workspace=tmp_path)
    expected = table[table["arm"] == "classic"].set_index("metric")["value"]
    kept = [pd.read_csv(file) for file in tmp_path.glob("evaluations/realism/*/volumes.csv")]
    measured = next(table for table in kept if "training" in set(table["side"]))
    arrays, boxes = {}, {}
    for side, data in (("arm", drawn), ("reference", toy), ("training", toy)):
        keys = pd.MultiIndex.from_frame(measured.loc[measured["side"] == side, KEY].astype(str))
        part = data.take(pd.MultiIndex.from_frame(data.cases[KEY].astype(str)).isin(keys))
        arrays[side] = part.volumes()
        boxes[side] = [part.boxes_of(case) for case in part.cases["case"]]
    found, fitted_to = (
        dbtbench.measure_realism(arrays["arm"], arrays[side], boxes["arm"], boxes[side])
        for side in ("reference", "training")
    )
    assert found.keys() == set(expected.index)
    assert found["lesion_depth_distance"] != fitted_to["lesion_depth_distance"]
    found |= {name: fitted_to[name] for name in ("lesion_depth_distance", "lesion_radius_distance")}
    by_patient = {"c2st_auc": np.nan, "ms_ssim": np.nan}
    assert found | by_patient == pytest.approx(expected.to_dict() | by_patient, nan_ok=True)
    test = toy.select("test")
    assert np.isnan(dbtbench.measure_realism(drawn.volumes(), test.volumes())["lesion_cnr"])
    with pytest.raises(UsageError, match="not in"):
        dbtbench.measure_realism(2 * drawn.volumes() - 1, test.volumes())
