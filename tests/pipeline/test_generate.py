from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.pipeline import generate
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.workspace import Workspace


class FlatRecipe(Recipe):
    sampling_only: ClassVar[frozenset[str]] = frozenset({"gain"})
    brightness: float = 0.5
    gain: float = 1.0


class Flat(Generator[FlatRecipe]):
    """Grey volumes with the layout's boxes; dies after `lifetime` samples."""

    recipe_class = FlatRecipe
    lifetime = 1_000_000
    fits = 0
    asked: ClassVar[list[list[int]]] = []

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.grid = train.grid
        assert set(train.cases["split"]) == {"train"}
        if not run.finished:
            type(self).fits += 1

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        self.asked.append([layout.index for layout in layouts])
        for layout in layouts:
            type(self).lifetime -= 1
            if self.lifetime < 0:
                raise KeyboardInterrupt
            noise = np.random.default_rng(layout.seed).random(self.grid)
            yield Sample((self.recipe.brightness * self.recipe.gain * noise).astype(np.float32), layout.boxes)


class Free(Flat):
    """Cannot follow boxes."""

    follows_boxes = False


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint(c.__name__.lower(), f"{__name__}:{c.__name__}", "dbtbench.generators")
        for c in (Flat, Free)
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: points if group == "dbtbench.generators" else []
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(Flat, "lifetime", 1_000_000)
    monkeypatch.setattr(Flat, "fits", 0)
    monkeypatch.setattr(Flat, "asked", [])


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(work: Workspace, data: DBTDataset, name: str = "flat", n: int = 8, **settings: str) -> DBTDataset:
    return generate.draw(work, generate.fit(work, name, data, overrides=settings), n)


def test_a_synthetic_data_set_has_the_format_of_a_real_one(work: Workspace, toy: DBTDataset) -> None:
    made = make(work, toy)
    assert made.synthetic
    assert made.grid == toy.grid
    assert made.split_hash == toy.split_hash
    assert set(made.cases["split"]) == {"train"}
    assert made.volumes().shape == (8, 1, *toy.grid)
    assert made.meta["source"]["data"]["fingerprint"] == toy.fingerprint
    assert len(DBTDataset.open(made.path).boxes) == len(made.boxes) > 0


def test_as_many_volumes_as_the_training_split_by_default(work: Workspace, toy: DBTDataset) -> None:
    fitted = generate.fit(work, "flat", toy)
    assert len(generate.draw(work, fitted)) == len(toy.select("train"))


def test_finished_work_is_found_again(work: Workspace, toy: DBTDataset) -> None:
    first = make(work, toy)
    Flat.lifetime = 0
    again = make(work, toy)
    assert again.path == first.path
    assert Flat.fits == 1


def test_another_setting_is_another_run_and_another_data_set(work: Workspace, toy: DBTDataset) -> None:
    assert make(work, toy).path != make(work, toy, brightness="0.25").path
    assert Flat.fits == 2


def test_drawing_that_was_killed_continues_to_the_same_bytes(
    work: Workspace, toy: DBTDataset, tmp_path: Path
) -> None:
    whole = make(Workspace(tmp_path / "undisturbed"), toy)
    Flat.lifetime = 5
    with pytest.raises(KeyboardInterrupt):
        make(work, toy)
    assert work.dataset_names() == []
    Flat.lifetime = 3
    assert make(work, toy).fingerprint == whole.fingerprint


def test_what_is_drawn_together_follows_from_the_index_whatever_is_there_already(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "BLOCK", 4)
    Flat.lifetime = 5
    with pytest.raises(KeyboardInterrupt):
        make(work, toy, n=10)
    Flat.lifetime = 5
    make(work, toy, n=10)
    assert Flat.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [5, 6, 7], [8, 9]]


def test_a_process_that_torchrun_started_again_continues_even_with_fresh(
    work: Workspace, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate.fit(work, "flat", toy)
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_RESTART_COUNT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    generate.fit(work, "flat", toy, fresh=True)
    assert Flat.fits == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    generate.fit(work, "flat", toy, fresh=True)
    assert Flat.fits == 2


def test_a_generator_that_cannot_follow_boxes_is_asked_for_lesion_free_volumes(
    work: Workspace, toy: DBTDataset
) -> None:
    made = make(work, toy, "free")
    assert made.boxes.empty
    assert set(made.cases["label"]) == {"normal"}


@pytest.mark.parametrize(("n", "positives"), [(0, 0.5), (3, 1.5), (3, -0.1)])
def test_impossible_requests_are_refused(work: Workspace, toy: DBTDataset, n: int, positives: float) -> None:
    fitted = generate.fit(work, "flat", toy)
    with pytest.raises(UsageError, match=r"cannot draw"):
        generate.draw(work, fitted, n, positives=positives)


def test_lesions_that_there_are_none_of_are_refused_before_training(toy: DBTDataset) -> None:
    without = toy.take(~toy.cases["case"].isin(toy.boxes["case"]))
    with pytest.raises(UsageError, match="no training case with lesions"):
        generate.plan(generate.configure("flat"), without)
    assert len(generate.plan(generate.configure("free"), without, n=3)) == 3


def test_an_augmentation_is_named_by_its_generator_or_its_own_name(work: Workspace, toy: DBTDataset) -> None:
    made = make(work, toy)
    assert generate.find_augmentation(work, "flat", toy).path == made.path
    assert generate.find_augmentation(work, made.name, toy).path == made.path


def test_what_was_not_drawn_is_missing_with_the_command_that_draws_it(
    work: Workspace, toy: DBTDataset
) -> None:
    with pytest.raises(MissingError) as caught:
        generate.find_augmentation(work, "flat", toy)
    assert caught.value.hint == "run `dbtbench generate flat --data toy`"


def test_samples_of_a_generator_that_saw_another_split_are_refused(
    work: Workspace, toy: DBTDataset, make_toy: Callable[..., DBTDataset], tmp_path: Path
) -> None:
    other = make_toy(tmp_path / "other" / "toy", 4)
    made = make(work, other)
    with pytest.raises(MissingError, match="nothing drawn by 'flat' for toy"):
        generate.find_augmentation(work, "flat", toy)
    with pytest.raises(StaleError, match="another split"):
        generate.find_augmentation(work, made.name, toy)


def test_a_setting_of_drawing_draws_again_and_fits_nothing(work: Workspace, toy: DBTDataset) -> None:
    first, second = make(work, toy), make(work, toy, gain="0.5")
    assert Flat.fits == 1
    assert first.name != second.name
    assert second.volumes().max() < 0.6 * first.volumes().max()
    assert second.meta["source"]["recipe"] == {"brightness": 0.5, "gain": 0.5}
    assert first.meta["source"]["run"] == second.meta["source"]["run"]


def test_what_is_drawn_can_be_named(tmp_path: Path, toy: DBTDataset) -> None:
    work = Workspace(tmp_path)
    fitted = generate.fit(work, "classic", toy)
    made = generate.draw(work, fitted, n=2, name="mild")
    assert made.path == work.datasets / "mild"
    assert made.fingerprint == generate.draw(work, fitted, n=2).fingerprint
    assert generate.find_augmentation(work, "mild", toy).path == made.path
    with pytest.raises(UsageError, match="other settings"):
        generate.draw(work, fitted, n=3, name="mild")


@pytest.mark.parametrize("name", ["real", "none", "only", "more-real", "oversample", "ddpm"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, toy: DBTDataset, name: str) -> None:
    work = Workspace(tmp_path)
    with pytest.raises(UsageError, match="already means something"):
        generate.draw(work, generate.fit(work, "classic", toy), n=2, name=name)


def test_a_broken_data_set_is_named_when_an_augmentation_is_looked_for(
    tmp_path: Path, toy: DBTDataset
) -> None:
    work = Workspace(tmp_path)
    made = generate.draw(work, generate.fit(work, "classic", toy), n=2, name="mild")
    (made.path / "dataset.json").write_text("{")
    with pytest.raises(DBTBenchError, match="mild is not a data set"):
        generate.find_augmentation(work, "mild", toy)
