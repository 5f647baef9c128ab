"""The page: what comes from files stays text, and the policy allows its own script alone."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.pages import template
from dbtbench.report import Material, gather, page, render
from dbtbench.workspace import Workspace


@pytest.fixture(scope="module")
def material(work: Workspace) -> Material:
    return gather(work)


@pytest.fixture(scope="module")
def described(material: Material) -> dict[str, Any]:
    return page.describe(material)


def test_hostile_names_are_text_everywhere(
    described: dict[str, Any], poison_page: Callable[..., Any], find_faults: Callable[[str], list[str]]
) -> None:
    text = page.fill_template(poison_page(described))
    assert not find_faults(text)
    assert "&lt;x-bad onload=" in text
    assert r"\u202e" in text


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("verdict.html.j2", "verdict.title"),
        ("board.html.j2", "row.label"),
        ("froc.html.j2", "arm.label"),
        ("making.html.j2", "value"),
        ("page.html.j2", 'names | join(", ")'),
    ],
)
def test_a_field_that_is_not_escaped_is_found(
    described: dict[str, Any],
    poison_page: Callable[..., Any],
    find_faults: Callable[[str], list[str]],
    file: str,
    field: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(page.HERE, tmp_path / "report")
    changed = tmp_path / "report" / "templates" / file
    old = changed.read_text(encoding="utf-8")
    planted = old.replace(f"{{{{ {field} }}}}", f"{{{{ ({field}) | safe }}}}", 1)
    assert planted != old
    changed.write_text(planted, encoding="utf-8")
    monkeypatch.setattr(page, "HERE", tmp_path / "report")
    assert find_faults(page.fill_template(poison_page(described)))


@given(
    st.recursive(st.text() | st.booleans(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_embedded_data_cannot_end_their_block(data: Any) -> None:
    text = template.write_data(data)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == template._print(data)


def test_the_policy_allows_the_pages_own_script_and_nothing_else(
    described: dict[str, Any], parse_page: Callable[[str], Any]
) -> None:
    elements = parse_page(page.fill_template(described))
    policy = next(str(a["content"]) for a, _ in elements.all("meta") if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    code = [text for attributes, text in elements.all("script") if not attributes.get("type")]
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, texts in (("script-src", code), ("style-src", [elements.all("style")[0][1]])):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[name] == " ".join(f"'sha256-{each}'" for each in digests)


def test_nothing_in_the_page_points_outside_of_it(
    described: dict[str, Any], parse_page: Callable[[str], Any]
) -> None:
    elements = parse_page(page.fill_template(described))
    places = [a[name] for _, a, _ in elements.found for name in ("src", "href", "action") if a.get(name)]
    assert places
    assert all(str(place).startswith(("#", "data:image/")) for place in places)
    assert not any("style" in attributes for _, attributes, _ in elements.found)


def test_the_script_never_reads_text_as_html() -> None:
    files = list(page.HERE.parent.glob("*/static/*.js"))
    assert len(files) > 7
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "</script",
        "<!--",
    ):
        assert word not in code


def test_the_same_material_gives_the_same_bytes_and_every_section(
    material: Material, described: dict[str, Any]
) -> None:
    text = render(material)
    assert text == page.fill_template(described)
    for name in ("verdict", "board", "froc", "look", "realism", "privacy", "making"):
        assert f'<section id="{name}"' in text


def test_published_results_say_what_they_lack(published: Path) -> None:
    text = render(gather(results=published))
    assert "Published records hold no volumes" in text
    assert "Published records do not say which group a volume is in" in text
    assert "data:image" not in text
