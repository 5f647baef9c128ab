"""Recipes: the settings of a generator or a task, checked, named and printable."""

from __future__ import annotations

import difflib
import inspect
import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dbtbench.errors import UsageError


class Recipe(BaseModel):
    """Base of every recipe: an unknown key is an error, and a recipe cannot be changed.

    Attributes:
        sampling_only: names of the settings that only sampling depends on, not the fitted state; a change of
            these does not fit again.
        renamed: old key to new key, for settings that had another name. An entry `old=text` to `new=text`
            gives the new value too, where that changed.
        synonyms: other words that people use for a setting, and the setting; a hint gives it. Those of all
            base classes count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sampling_only: ClassVar[frozenset[str]] = frozenset()
    renamed: ClassVar[dict[str, str]] = {}
    synonyms: ClassVar[dict[str, str]] = {}

    def fit_settings(self) -> dict[str, Any]:
        """Give the settings that fitting depends on, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.sampling_only))


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def folder_of(plugin: type) -> Path:
    """Give the folder of a plug-in's recipes: `recipes/` in its package; a single module has none."""
    file = Path(inspect.getfile(plugin))
    return (file.parent if file.name == "__init__.py" else file.with_suffix("")) / "recipes"


def names(folder: Path) -> list[str]:
    """List the recipes in `folder` (it need not exist), and always `default`."""
    return sorted({"default", *(path.stem for path in folder.glob("*.toml"))})


def resolve(
    model: type[AnyRecipe], folder: Path, name: str = "default", overrides: Mapping[str, str] | None = None
) -> AnyRecipe:
    """Make a recipe from its defaults, a named TOML file and `--set` overrides, in this order.

    Args:
        model: the recipe's class; its field defaults are the recipe `default`.
        folder: where the plug-in keeps `NAME.toml`.
        name: which recipe.
        overrides: `key: text`; the text is read as a TOML value where it is one, else as a string.

    Raises:
        UsageError: for an unknown recipe, an unknown key (with its new or the nearest name) or a wrong value.
    """
    if name not in names(folder):
        raise UsageError(f"no recipe named {name!r}", f"known: {', '.join(names(folder))}")
    file = folder / f"{name}.toml"
    settings: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    _check_renamed(model, settings, file)
    changes = {key: _parse_value(text) for key, text in (overrides or {}).items()}
    _check_renamed(model, changes)
    settings |= changes
    for key in settings:
        if key not in model.model_fields:
            near = _find_nearest(model, key)
            known = f"did you mean {near!r}?" if near else f"known: {', '.join(model.model_fields)}"
            raise UsageError(f"no setting named {key!r}", known)
    try:
        return model(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        # Further words name the types that the setting may have.
        where = ".".join(str(part) for n, part in enumerate(first["loc"]) if n == 0 or isinstance(part, int))
        raise UsageError(
            f"setting {where} = {first['input']!r}: {first['msg']}", "see `dbtbench show NAME`"
        ) from error


def _check_renamed(model: type[Recipe], settings: Mapping[str, Any], file: Path | None = None) -> None:
    """Check that settings, of a recipe's file or of `--set` where that is None, have no old key.

    Raises:
        UsageError: when one has; the hint gives the new setting.
    """
    for key, value in settings.items():
        if key not in model.renamed:
            continue
        new, text = model.renamed[key], value if isinstance(value, str) else json.dumps(value)
        new, _, text = model.renamed.get(f"{key}={text}", f"{new}={text}").partition("=")
        hint = f"--set {shlex.quote(f'{new}={text}')}"
        if file:
            hint = f"in {file}: {new} = {json.dumps(_parse_value(text))}"
        raise UsageError(f"setting {key!r} is now {new!r}", hint)


def _find_nearest(model: type[Recipe], key: str) -> str | None:
    """Find the setting that a wrong key most resembles, in its name or in a synonym of it."""
    words = {
        word: setting
        for cls in model.__mro__
        for word, setting in vars(cls).get("synonyms", {}).items()
        if setting in model.model_fields
    } | {name: name for name in model.model_fields}
    near = difflib.get_close_matches(key.lower().replace("-", "_"), words, 1)
    return words[near[0]] if near else None


def _parse_value(text: str) -> Any:
    """Read text as a TOML value where it is one, else as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
