"""Names of a package that are imported when they are asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def offer_lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__`.

    Args:
        package: its name.
        homes: `module:attribute` of each name that it offers, or `module` for a module.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        value = importlib.import_module(module)
        return getattr(value, attribute) if attribute else value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
