"""`dbtbench generate --sweep`: every combination once, however often it is killed, and one table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DivergedError, UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.pipeline.sweep import DIVERGED, Sweep, parse
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.tasks.realism import Realism
from dbtbench.workspace import Workspace


class GreyRecipe(Recipe):
    sampling_only: ClassVar[frozenset[str]] = frozenset({"gain"})
    brightness: float = 0.5
    levels: tuple[int, ...] = (1, 2)
    gain: float = 1.0


class Grey(Generator[GreyRecipe]):
    """Flat volumes, brighter by setting; dies after `lifetime` fits, and diverges where too bright."""

    recipe_class = GreyRecipe
    lifetime = 1_000
    fits: ClassVar[list[tuple[float, ...]]] = []

    def check(self, grid: tuple[int, int, int]) -> None:
        if max(self.recipe.levels) > grid[0]:
            raise UsageError(f"{grid[0]} slices have no level {max(self.recipe.levels)}", "use fewer levels")

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.grid = train.grid
        if run.finished:
            return
        if len(self.fits) == self.lifetime:
            raise KeyboardInterrupt
        if self.recipe.brightness > 1:
            raise DivergedError("training diverged at step 3")
        self.fits.append((self.recipe.brightness, *self.recipe.levels))

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        for layout in layouts:
            value = self.recipe.brightness * self.recipe.gain
            yield Sample(np.full(self.grid, value, np.float32), layout.boxes)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("grey", f"{__name__}:Grey", "dbtbench.generators")]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: points if group == "dbtbench.generators" else []
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(Grey, "lifetime", 1_000)
    monkeypatch.setattr(Grey, "fits", [])


@pytest.fixture
def work(tmp_path: Path, toy: DBTDataset) -> Workspace:
    return Workspace(tmp_path)


def grey(data: DBTDataset, *words: str, fixed: Mapping[str, str] | None = None, n: int = 4) -> Sweep:
    return Sweep(GenerationRequest("grey", data, settings=fixed or {}, n=n), parse(words))


GRID = ("brightness=0.2,0.4", "gain=1,0.5")


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("lr=1e-3,3e-4", ["1e-3", "3e-4"]),
        ("loss=mse,mae", ["mse", "mae"]),
        ("mults=[1,2],[1,2,4]", ["[1,2]", "[1,2,4]"]),
        ("mults=[1, 2] , [1,2,4]", ["[1, 2]", "[1,2,4]"]),
        ("pairs=[[1,2],[3]],[]", ["[[1,2],[3]]", "[]"]),
        ('names="a,b",c', ['"a,b"', "c"]),
        ("sampler=dpm++", ["dpm++"]),
        ("text=a=b,c", ["a=b", "c"]),
    ],
)
def test_values_are_parted_by_the_commas_outside_brackets_and_quotes(word: str, values: list[str]) -> None:
    assert list(parse([word]).values()) == [values]


WORDS = st.text("abc+.1", min_size=1) | st.text("abc,[] ").map('"{}"'.format)
VALUES = st.recursive(WORDS, lambda inner: st.lists(inner).map(lambda items: f"[{','.join(items)}]"))


@given(st.lists(VALUES, min_size=1))
def test_what_was_joined_is_parted_again(values: list[str]) -> None:
    assert parse([f"key={','.join(values)}"]) == {"key": values}


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["lr"], "--sweep lr lacks a value", "KEY=V1,V2"),
        (["lr="], "--sweep lr= lacks a value", "KEY=V1,V2"),
        (["=1,2"], "--sweep =1,2 lacks a value", "KEY=V1,V2"),
        (["lr=1,,2"], "--sweep lr=1,,2 lacks a value", "KEY=V1,V2"),
        (["lr=1", "lr=2,3"], "lr is swept twice", "--sweep lr=1,2,3"),
    ],
)
def test_a_word_that_names_no_values_is_refused(words: list[str], error: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value) == error
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("words", "fixed", "error", "hint"),
    [
        (["brigtness=0.1,0.2"], {}, "no setting named 'brigtness'", "did you mean 'brightness'?"),
        (["brightness=0.1,dark"], {}, "setting brightness = 'dark'", "dbtbench show"),
        (["levels=[1,2],[1,2.5]"], {}, "setting levels.1 = 2.5", "dbtbench show"),
        (["gain=1,2"], {"gain": "1"}, "gain is given by both --set and --sweep", "leave one"),
        (["gain=1,1.0"], {}, "the sweep has gain=1.0 twice", "once"),
        (["levels=[1,2],[1,99]"], {}, "slices have no level 99", "fewer levels"),
    ],
)
def test_a_wrong_combination_is_told_before_anything_is_fitted(
    work: Workspace, toy: DBTDataset, words: list[str], fixed: dict[str, str], error: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        grey(toy, *words, fixed=fixed).run(work)
    assert error in str(caught.value)
    assert hint in caught.value.hint
    assert not Grey.fits
    assert not list(work.root.iterdir())


def test_so_is_a_request_that_cannot_be_drawn(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="cannot draw 0 volumes"):
        grey(toy, "gain=1,2", n=0).run(work)
    assert not Grey.fits


def test_and_a_data_set_that_has_nothing_to_compare_with(work: Workspace, toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="no test volumes"):
        grey(toy.take(toy.cases["split"] == "train"), *GRID).run(work)
    assert not Grey.fits


def test_the_table_has_real_volumes_and_then_every_combination(work: Workspace, toy: DBTDataset) -> None:
    table = grey(toy, "brightness=0.2,0.4", "levels=[1],[1,2]").run(work)
    assert list(table.columns[:4]) == ["arm", "brightness", "levels", "w1_intensity"]
    assert table["arm"][0] == "real"
    assert pd.isna(table["brightness"][0])
    swept = list(zip(table["brightness"][1:], table["levels"][1:], strict=True))
    assert swept == [(0.2, [1]), (0.2, [1, 2]), (0.4, [1]), (0.4, [1, 2])]
    assert table["percentile_range"].tolist()[1:] == [0, 0, 0, 0]


def test_each_row_has_the_scores_of_its_own_arm(work: Workspace, toy: DBTDataset) -> None:
    table = grey(toy, *GRID).run(work)
    for row in table.to_dict("records"):
        augmentations = [] if row["arm"] == "real" else [row["arm"]]
        scores = evaluate(work, "realism", toy, augmentations)[-1] / "scores.csv"
        expected = pd.read_csv(scores, index_col="metric")["value"]
        found = pd.Series({metric: row[metric] for metric in expected.index}, dtype=float)
        pd.testing.assert_series_equal(found, expected, check_names=False)
    for arm, brightness, gain in zip(
        table["arm"][1:], table["brightness"][1:], table["gain"][1:], strict=True
    ):
        drawn = DBTDataset.open(work.dataset_path(arm)).volumes()
        assert np.allclose(drawn, brightness * gain, atol=1e-4)


def test_fixed_settings_hold_in_every_combination(work: Workspace, toy: DBTDataset) -> None:
    grey(toy, "brightness=0.2,0.4", fixed={"levels": "[7]"}).run(work)
    assert Grey.fits == [(0.2, 7), (0.4, 7)]


def test_settings_of_drawing_fit_nothing_again_even_when_fresh(work: Workspace, toy: DBTDataset) -> None:
    sweep = grey(toy, *GRID)
    first = sweep.run(work)
    assert Grey.fits == [(0.2, 1, 2), (0.4, 1, 2)]
    pd.testing.assert_frame_equal(sweep.run(work), first)
    assert len(Grey.fits) == 2
    pd.testing.assert_frame_equal(sweep.run(work, fresh=True), first)
    assert len(Grey.fits) == 4


def test_a_killed_sweep_continues_without_fitting_anything_again(
    work: Workspace, toy: DBTDataset, tmp_path: Path
) -> None:
    sweep = grey(toy, "brightness=0.2,0.4,0.6", "gain=1,0.5")
    whole = sweep.run(Workspace(tmp_path / "undisturbed"))
    Grey.fits.clear()
    Grey.lifetime = 2
    with pytest.raises(KeyboardInterrupt):
        sweep.run(work)
    assert len(work.dataset_names()) == 4
    Grey.lifetime = 3
    pd.testing.assert_frame_equal(sweep.run(work), whole)
    assert Grey.fits == [(0.2, 1, 2), (0.4, 1, 2), (0.6, 1, 2)]


def test_a_setting_that_diverges_is_a_row_without_scores(
    work: Workspace, toy: DBTDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = grey(toy, "brightness=2,0.4")
    table = sweep.run(work)
    assert table["arm"][1] == DIVERGED
    assert table["brightness"].tolist()[1:] == [2, 0.4]
    assert table["w1_intensity"].isna().tolist() == [False, True, False]
    assert "training diverged at step 3; the sweep goes on" in capsys.readouterr().err
    assert DIVERGED in sweep.summary(table)


def test_the_csv_is_the_whole_table_under_a_name_of_the_sweep(work: Workspace, toy: DBTDataset) -> None:
    sweep = grey(toy, *GRID)
    table = sweep.run(work)
    path = sweep.write(work, table)
    assert path.parent == work.root / "sweeps"
    assert path.name.startswith("grey-")
    expected = table.map(lambda value: np.nan if value is None else value)
    pd.testing.assert_frame_equal(pd.read_csv(path), expected, check_dtype=False)
    assert sweep.write(work, table) == path
    assert grey(toy, *GRID, n=5).write(work, table) != path
    assert grey(toy, *reversed(GRID)).write(work, table) != path


def test_the_summary_shows_settings_as_they_could_be_typed(work: Workspace, toy: DBTDataset) -> None:
    sweep = grey(toy, "levels=[1],[1,2]", "brightness=1e-1")
    head, real, first, second, more = sweep.summary(sweep.run(work)).splitlines()
    shown = [metric.heading for metric in Realism.metrics if metric.headline]
    assert " ".join(head.split()) == " ".join(["arm", "levels", "brightness", *shown])
    assert "W1 of intensities (intensity) ↓" in shown
    assert len(real.split()) == len(shown)  # so few patients have no AUC of C2ST
    assert more == f"{len(Realism.metrics) - len(shown)} more metrics are in the CSV"
    assert "[1] 0.1" in " ".join(first.split())
    assert "[1, 2] 0.1" in " ".join(second.split())


SWEEP = ["ddpm", "--recipe", "smoke", "--set", "steps=4", "--n", "10", "--sweep", "lr=1e-3,3e-4"]
SWEEP += ["--sweep", "sampler=ddim,dpm++"]


@pytest.fixture(scope="module")
def swept(
    toy: DBTDataset, tmp_path_factory: pytest.TempPathFactory, start_command: Any
) -> tuple[Path, str, str]:
    """A workspace where the command ran, and what it printed to stdout and stderr."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(toy.path, folder / "datasets" / "toy")
    done = start_command("generate", *SWEEP, "--workspace", folder).wait()
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


def csv(folder: Path) -> Any:
    (path,) = (folder / "sweeps").iterdir()
    return pd.read_csv(path)


def test_the_command_ends_in_the_table(swept: tuple[Path, str, str]) -> None:
    folder, out, err = swept
    assert err.count("training ddpm: 4/4") == 2
    table = csv(folder)
    assert table["lr"].tolist()[1:] == [1e-3, 1e-3, 3e-4, 3e-4]
    assert table["sampler"].tolist()[1:] == ["ddim", "dpm++"] * 2
    assert table["w1_intensity"].notna().all()
    for arm in table["arm"]:
        assert f"{arm} " in out
    assert "next: dbtbench evaluate --task detection --aug ARM --data toy" in out


@pytest.mark.slow
def test_two_processes_draw_the_bytes_that_one_draws(
    swept: tuple[Path, str, str], tmp_path: Path, start_command: Any
) -> None:
    """From the same weights, and so the table is the same; what was drawn before is not drawn again."""
    one, other = swept[0], tmp_path / "other"
    first, *rest = names = sorted(path.name for path in (one / "datasets").glob("ddpm-toy-*"))
    shutil.copytree(one, other, ignore=shutil.ignore_patterns(*rest, "evaluations", "sweeps"))
    done = start_command("generate", *SWEEP, "--processes", "2", "--workspace", other).wait()
    assert done.returncode == 0, done.stderr
    assert "training ddpm" not in done.stderr
    assert done.stderr.count(f"{first}: already drawn\n") == done.stderr.count("already drawn") == 1
    assert done.stderr.count("ddpm: draw: 10/10") == 3
    assert done.stderr.count("sweep 4/4: lr=0.0003 sampler=dpm++") == 1
    assert done.stdout.count("realism at each setting") == 1
    pd.testing.assert_frame_equal(csv(other), csv(one))
    for name in names:
        assert contents(other / "datasets" / name) == contents(one / "datasets" / name)
    assert all(path.suffix == ".lock" for path in (other / "datasets").glob(".*"))


def contents(dataset: Path) -> dict[str, bytes]:
    files = [dataset / "cases.csv", dataset / "boxes.csv", *dataset.glob("volumes.zarr/c/*/0/0/0")]
    return {str(file.relative_to(dataset)): file.read_bytes() for file in files}
