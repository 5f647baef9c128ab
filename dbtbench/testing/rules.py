"""Rules: what a plug-in is checked for, one by one, and what came of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from dbtbench import plugins, recipe
from dbtbench.errors import DBTBenchError
from dbtbench.recipe import Recipe

Bench = TypeVar("Bench")
Rule = Callable[[Bench], str | None]
"""A check of a plug-in at work on a bench. It raises `CheckFailed`, or gives a remark or nothing."""
CONTRACT = "contract"
"""The first rule: without it no other can be checked."""
_SEEDS = count(1)


class CheckFailed(AssertionError):  # noqa: N818 (as pytest words it)
    """A rule that a plug-in breaks.

    Args:
        message: what it does; one sentence.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True)
class Verdict:
    """Outcome of one rule.

    Attributes:
        rule: its name.
        state: `ok`, `FAILED`, or `not checked` after the contract failed.
        message: what is wrong, or a remark.
        hint: what to do about it.
    """

    rule: str
    state: Literal["ok", "FAILED", "not checked"]
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class RuleBook(Generic[Bench]):
    """The rules of one kind of plug-in, by name; `contract` comes first."""

    rules: Mapping[str, Rule[Bench]]

    def judge(self, bench: Bench) -> Iterator[Verdict]:
        """Check rule by rule; a rule that fails does not keep the others from being checked."""
        broken = False
        for name in self.rules:
            if broken:
                yield Verdict(name, "not checked", "the contract comes first")
                continue
            try:
                yield Verdict(name, "ok", self.check(name, bench) or "")
            except CheckFailed as error:
                yield Verdict(name, "FAILED", error.message, error.hint)
                broken = name == CONTRACT

    def check(self, name: str, bench: Bench) -> str | None:
        """Check one rule.

        Raises:
            CheckFailed: when the plug-in breaks it, or when its code fails.
        """
        try:
            return self.rules[name](bench)
        except DBTBenchError as error:
            raise CheckFailed(str(error), error.hint) from error

    def check_all(self, bench: Bench) -> None:
        """Check every rule, up to the first that fails.

        Raises:
            CheckFailed: when the plug-in breaks one.
        """
        for name in self.rules:
            self.check(name, bench)


@dataclass(frozen=True)
class Subject:
    """A plug-in that is checked.

    Attributes:
        kind: `generators` or `tasks`.
        name: its name; that of its class when it is not installed.
        cls: its class.
        recipe: its settings.
    """

    kind: str
    name: str
    cls: Any
    recipe: Recipe

    @classmethod
    def find(
        cls,
        kind: str,
        plugin: str | type,
        recipe_name: str | None,
        settings: Mapping[str, str] | None,
        name: str | None = None,
    ) -> Subject:
        """Find a plug-in by name, or take its class; the recipe is `smoke` when None and there is one.

        A class is called by `name`, or by its own name in lower case.

        Raises:
            MissingError: for an unknown name, or a class that cannot be used.
            UsageError: for an unknown recipe or a wrong setting.
        """
        if isinstance(plugin, str):
            name, loaded = plugin, plugins.load(plugins.get(kind, plugin))
        else:
            name = name or getattr(plugin, "__name__", "plug-in").lower()
            loaded = plugins.check_class(plugin, name, kind)
        folder = recipe.folder_of(loaded)
        quick = "smoke" if "smoke" in recipe.names(folder) else "default"
        resolved = recipe.resolve(loaded.recipe_class, folder, recipe_name or quick, settings)
        return cls(kind, name, loaded, resolved)

    def configure(self) -> Any:
        """Make the generator or task with its recipe."""
        with plugins.blame(self.kind, self.name):
            return self.cls(self.recipe)

    def check_declarations(self) -> None:
        """Check what both kinds declare.

        Raises:
            CheckFailed: when docstring or version is missing or wrong.
        """
        if not (self.cls.__doc__ or "").strip():
            raise CheckFailed(
                f"the class {self.cls.__name__} has no docstring", "say in one line what it does"
            )
        version = self.cls.version
        if type(version) is not int or version < 1:
            raise CheckFailed(
                f"its version is {version!r}", "a whole number from 1; raise it when results change"
            )


def disturb_random_state() -> None:
    """Seed the global random numbers of Python, numpy and torch, each time otherwise."""
    seed = next(_SEEDS)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global state is what is disturbed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
