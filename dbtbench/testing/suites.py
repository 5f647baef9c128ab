"""The rules as pytest classes, from which a plug-in's tests derive (needs pytest).

from dbtbench.testing.suites import GeneratorSuite

class TestGrain(GeneratorSuite):
    plugin = Grain
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from dbtbench.generator import Generator
from dbtbench.task import Task
from dbtbench.testing import generators, tasks


class _Suite:
    """A bench that the tests of one class share."""

    plugin: ClassVar[str | type[Any]]
    recipe_name: ClassVar[str | None] = None
    settings: ClassVar[Mapping[str, str] | None] = None
    bench_class: ClassVar[type[Any]]

    @classmethod
    def bench(cls, folders: pytest.TempPathFactory) -> Any:
        """Give the bench, made when the first rule is checked."""
        if "shared" not in vars(cls):
            folder = folders.mktemp("bench")
            cls.shared = cls.bench_class(cls.plugin, folder, cls.recipe_name, cls.settings)
        return cls.shared

    shared: ClassVar[Any]


class GeneratorSuite(_Suite):
    """Tests of a generator by every rule.

    Attributes:
        plugin: its name, or its class.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.
    """

    plugin: ClassVar[str | type[Generator[Any]]]
    bench_class = generators.GeneratorBench

    @pytest.mark.parametrize("rule", generators.RULES.rules)
    def test_rule(self, rule: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Check one rule."""
        generators.RULES.check(rule, self.bench(tmp_path_factory))


class TaskSuite(_Suite):
    """Tests of a task by every rule.

    Attributes:
        plugin: its name, or its class.
        recipe_name: one of its recipes; `smoke` when None and there is one.
        settings: `key: text` settings over the recipe.
    """

    plugin: ClassVar[str | type[Task[Any]]]
    bench_class = tasks.TaskBench

    @pytest.mark.parametrize("rule", tasks.RULES.rules)
    def test_rule(self, rule: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Check one rule."""
        tasks.RULES.check(rule, self.bench(tmp_path_factory))
