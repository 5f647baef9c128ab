"""Words of a private dialect stay away from code, messages and pages (docs/style.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("dbtbench", "generators", "tasks", "tests", "benchmarks", "docs")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "pyproject.toml", "tox.ini")
HERE = ("tests/test_words.py", "docs/style.md")
WORDS = re.compile(
    r"(?<!`)\b(told|untold|mend(?:s|ed|ing)?|anew|hence|leaked|whose they are|a file a case|"
    r"so many (?:processes|bytes))\b(?!`)",
    re.IGNORECASE,
)
"""In backticks such a word may be the name of something."""
PARTICIPLE = re.compile(r"_?[a-z]+(?:ed|wn|ken|ept|old|ade)")
NOT_PARTICIPLES = {"hold", "_accept", "_shade", "markdown", "speed"}
RELATIVE = re.compile(r'"""(?:What|Where|Which|How|Why|Who|Whose)\b')


def find_words(text: str) -> list[str]:
    return [match[0] for match in WORDS.finditer(text)]


def find_names(code: str) -> list[str]:
    """Functions that are called by a bare participle; a property may be: it is an attribute."""
    functions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    names = [function.name for function in functions if not _is_property(function)]
    return [name for name in names if PARTICIPLE.fullmatch(name) and name not in NOT_PARTICIPLES]


def _is_property(function: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def texts() -> Iterator[tuple[str, str]]:
    files = [ROOT / page for page in PAGES]
    for room in ROOMS:
        files += [file for file in (ROOT / room).rglob("*") if file.suffix in (".py", ".md", ".toml")]
    for file in sorted(files):
        name = file.relative_to(ROOT).as_posix()
        if name not in HERE:
            yield name, file.read_text(encoding="utf-8")


def test_no_word_of_the_list_comes_back() -> None:
    read = list(texts())
    assert len(read) > 200
    assert not [(name, word) for name, text in read for word in find_words(text)]


def test_no_function_is_called_by_a_bare_participle() -> None:
    code = [(name, text) for name, text in texts() if name.startswith(("dbtbench", "generators", "tasks"))]
    assert not [(name, found) for name, text in code for found in find_names(text)]


def test_a_docstring_begins_with_a_noun_or_a_verb() -> None:
    code = [(name, text) for name, text in texts() if name.startswith(("dbtbench", "generators", "tasks"))]
    assert not [(name, found) for name, text in code for found in RELATIVE.findall(text)]


@pytest.mark.parametrize("text", ["It is told so.", "# Mended:", "unless told", "one chunk, a file a case"])
def test_a_word_of_the_list_is_found(text: str) -> None:
    assert find_words(text)


@pytest.mark.parametrize("text", ["retold_stories", "recommended", "amended", "commend"])
def test_a_word_that_only_contains_one_is_left_alone(text: str) -> None:
    assert not find_words(text)


def test_a_participle_is_found() -> None:
    assert find_names("def _drawn() -> None: ...") == ["_drawn"]
    assert not find_names("def draw() -> None: ...")
    assert not find_names("class Run:\n    @property\n    def finished(self) -> bool: ...")
