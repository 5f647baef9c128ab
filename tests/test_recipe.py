"""Tests of recipes: what they are made from, and the errors of wrong settings."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import PositiveFloat, PositiveInt

from dbtbench import recipe
from dbtbench.errors import UsageError
from dbtbench.training.recipe import TrainingRecipe


class Baking(recipe.Recipe):
    steps: int = 10
    rate: float = 0.5
    name: str = "plain"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "quick.toml").write_text("steps = 2\n", encoding="utf-8")
    return tmp_path


def test_the_default_recipe_is_the_field_defaults(folder: Path) -> None:
    assert recipe.resolve(Baking, folder) == Baking()


def test_a_named_recipe_changes_what_it_names_and_overrides_come_last(folder: Path) -> None:
    made = recipe.resolve(Baking, folder, "quick", {"rate": "0.25", "name": "rye"})
    assert made == Baking(steps=2, rate=0.25, name="rye")


def test_an_unknown_setting_is_an_error_with_the_nearest_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="'step'") as caught:
        recipe.resolve(Baking, folder, "default", {"step": "3"})
    assert "'steps'" in caught.value.hint


def test_a_wrong_value_names_the_setting(folder: Path) -> None:
    with pytest.raises(UsageError, match="steps = 'many'"):
        recipe.resolve(Baking, folder, "default", {"steps": "many"})


def test_an_unknown_recipe_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.resolve(Baking, folder, "slow")
    assert caught.value.hint == "known: default, quick"


def test_settings_of_sampling_are_not_settings_of_fitting() -> None:
    class Two(recipe.Recipe):
        sampling_only: ClassVar[frozenset[str]] = frozenset({"guidance_scale"})
        width: int = 8
        guidance_scale: float = 1.5

    assert Two(guidance_scale=3).fit_settings() == {"width": 8}


class Renamed(recipe.Recipe):
    renamed: ClassVar[dict[str, str]] = {"style": "kind", "style=crumbly": "kind=short", "width": "size"}
    kind: str = "plain"
    size: float = 1.0


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("width", "2", "--set size=2"),
        ("style", "flaky", "--set kind=flaky"),
        ("style", "crumbly", "--set kind=short"),
        ("style", '"crumbly"', "--set kind=short"),
        ("style", "two words", "--set 'kind=two words'"),
    ],
)
def test_an_old_key_of_a_setting_is_an_error_with_the_new_setting(
    key: str, value: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"setting '{key}' is now '{Renamed.renamed[key]}'") as caught:
        recipe.resolve(Renamed, tmp_path, "default", {key: value})
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [("width = 2", "size = 2"), ('style = "crumbly"', 'kind = "short"'), ('style = "a"', 'kind = "a"')],
)
def test_an_old_key_in_a_recipe_is_an_error_with_the_new_line_and_the_file(
    line: str, hint: str, tmp_path: Path
) -> None:
    file = tmp_path / "old.toml"
    file.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is now") as caught:
        recipe.resolve(Renamed, tmp_path, "old")
    assert caught.value.hint == f"in {file}: {hint}"
    assert recipe.resolve(Renamed, tmp_path, "default", {"kind": "short"}).kind == "short"


class Trained(Baking):
    synonyms: ClassVar[dict[str, str]] = {"epochs": "steps", "learning_rate": "rate", "width": "channels"}


class TrainedLonger(Trained):
    synonyms: ClassVar[dict[str, str]] = {"flavour": "name"}


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("epochs", "steps"),
        ("learning-rate", "rate"),
        ("lerning_rate", "rate"),
        ("Steps", "steps"),
        ("flavor", "name"),
    ],
)
def test_an_unknown_setting_is_found_by_what_it_means(folder: Path, key: str, setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.resolve(TrainedLonger, folder, "default", {key: "3"})
    assert caught.value.hint == f"did you mean '{setting}'?"


def test_a_synonym_of_a_setting_that_this_recipe_lacks_is_not_suggested(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.resolve(TrainedLonger, folder, "default", {"width": "3"})
    assert caught.value.hint == "known: steps, rate, name"


def test_a_training_knows_the_words_of_other_programs(folder: Path) -> None:
    class Fit(TrainingRecipe):
        steps: PositiveInt = 1
        batch: PositiveInt = 1
        lr: PositiveFloat = 1.0

    for key, setting in {
        "learning_rate": "lr",
        "lerning_rate": "lr",
        "epochs": "steps",
        "batch_size": "batch",
    }.items():
        with pytest.raises(UsageError) as caught:
            recipe.resolve(Fit, folder, "default", {key: "3"})
        assert caught.value.hint == f"did you mean '{setting}'?"
