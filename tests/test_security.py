"""SECURITY.md: every promise names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def find_missing(page: str) -> list[str]:
    """Find the rows of promises that name no test, or one that is not there."""
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    return [row for row in rows if not (found := NAMED.search(row)) or not is_there(*found.groups())]


def is_there(file: str, test: str) -> bool:
    path = ROOT / file
    return path.is_file() and f"\ndef {test}(" in path.read_text(encoding="utf-8")


def test_every_promise_names_a_test() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert page.count("| `tests/") > 8
    assert find_missing(page) == []


def test_a_promise_without_a_test_is_found() -> None:
    head = "| promise | test |\n|---|---|\n"
    assert find_missing(head + "| It is safe. | |")
    assert find_missing(head + "| It is safe. | `tests/test_security.py::test_that_it_is_safe` |")
    named = "`tests/test_security.py::test_every_promise_names_a_test`"
    assert not find_missing(head + f"| It is said. | {named} |")
