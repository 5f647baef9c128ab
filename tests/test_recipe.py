from pathlib import Path
from typing import ClassVar

import pytest

from dbtbench import recipe
from dbtbench.errors import UsageError


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


def test_settings_of_drawing_are_not_settings_of_fitting() -> None:
    class Two(recipe.Recipe):
        drawing: ClassVar[frozenset[str]] = frozenset({"guidance"})
        width: int = 8
        guidance: float = 1.5

    assert Two(guidance=3).fitting() == {"width": 8}
