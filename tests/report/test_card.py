"""Cards and the report say the same of a data set, and text from files is no more than text in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline.trainings import describe_fits
from dbtbench.report import gather
from dbtbench.report.card import escape, write_data_card, write_generator_card
from dbtbench.report.facts import CRITERIA, describe_facts, describe_synthetic
from dbtbench.report.page import describe
from dbtbench.runtime.text import one_line
from dbtbench.workspace import Workspace

RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = "x](https://a.b) <b>|`&amp;\u202e\n---\nlicense: mit\n# t ![i](j) *s* ~~d~~ [l](k) www.a.b \"'{[: %"


def split(card: str) -> tuple[dict[str, Any], str]:
    """The front matter as YAML reads it, and the text."""
    empty, front, text = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), text


def tokens_of(text: str) -> list[Any]:
    parsed = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    return [each for token in parsed for each in [token, *(token.children or [])]]


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, Any]]:
    """What the published results say of their synthetic data sets, by name."""
    return {fact["name"]: fact for fact in describe_facts(gather(None, RESULTS))}


def test_each_criterion_says_what_was_measured_and_what_was_not(facts: dict[str, dict[str, Any]]) -> None:
    texture = next(fact for name, fact in facts.items() if name.startswith("texture-reference"))
    assert [each["name"] for each in texture["criteria"]] == list(CRITERIA)
    assert all(each["not_measured"] for each in texture["criteria"])
    measured = {each["name"]: " ".join(each["measured"]) for each in texture["criteria"]}
    assert "C2ST AUC ↓" in measured["congruence"]
    assert "real against real" in measured["congruence"]
    assert "recall ↑" in measured["coverage"]
    assert "recall" not in measured["congruence"]
    assert "flagged as copies ↓" in measured["compliance"]
    assert "sd" in measured["consistency"]
    assert measured["completeness"] == ""  # the data set is not at hand
    assert [len(texture[kind]) for kind in ("gain", "realism", "privacy")] == [1, 1, 1]
    assert texture["gain"][0].startswith("detection: ")
    assert texture["derived"] is False
    assert next(fact for name, fact in facts.items() if name.startswith("paste"))["derived"] is True


def test_a_score_that_was_not_measured_is_not_listed(facts: dict[str, dict[str, Any]]) -> None:
    ddpm, texture = (
        next(f for n, f in facts.items() if n.startswith(name)) for name in ("ddpm-0", "texture-r")
    )
    said = [" ".join(fact["criteria"][4]["measured"]) for fact in (ddpm, texture)]
    assert ["membership" in text for text in said] == [True, False]  # texture scores no volumes
    assert "–" not in said[1]


def test_the_report_and_the_card_say_the_same(
    work: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    material = gather(work)
    page = describe(material)
    assert page["facts"] == describe_facts(material)
    assert {fact["name"] for fact in page["facts"]} == {"gan0", "gan1"}
    drawn = DBTDataset.open(work.datasets / "gan0")
    known = replace(drawn, meta={**drawn.meta, "fingerprint": page["facts"][0]["fingerprint"]})
    _, text = split(write_data_card(known, material))
    assert escape(page["facts"][0]["gain"][0]) in text


def test_a_real_set_a_phantom_and_a_synthetic_one_have_cards(
    toy: DBTDataset, work: Workspace, facts: dict[str, dict[str, Any]]
) -> None:
    front, text = split(write_data_card(toy, None))
    assert front["license"] == "unknown"
    assert front["size_categories"] == ["n<1K"]
    assert front["zenodo"]["creators"] == [{"name": "", "affiliation": "", "orcid": ""}]
    assert "volumes, real" in text
    assert "## Measured" not in text
    assert text.count("to be filled in") == 4
    phantom = replace(toy, meta={**toy.meta, "phantom": {"version": 4}})
    assert "phantom" in split(write_data_card(phantom, None))[0]["tags"]
    drawn = DBTDataset.open(work.datasets / "gan0")
    front, text = split(write_data_card(drawn, None))
    assert front["source_datasets"] == ["extended"]
    assert "derived from training volumes" in text
    assert "no run of the task realism" in text
    missing = replace(drawn, boxes=drawn.boxes.iloc[:0])
    whole, less = (describe_synthetic(facts["ddpm-0"], "0", None, each) for each in (drawn, missing))
    assert whole["criteria"][3]["measured"][1].startswith("0 of ")
    assert not less["criteria"][3]["measured"][1].startswith("0 of ")


def test_hostile_texts_are_only_text(work: Workspace, facts: dict[str, dict[str, Any]]) -> None:
    drawn = DBTDataset.open(work.datasets / "gan0")
    source = {**drawn.meta["source"], "generator": HOSTILE, "recipe": {HOSTILE: HOSTILE}}
    odd = replace(drawn, meta={**drawn.meta, "name": HOSTILE, "source": source})
    poisoned = json.loads(json.dumps(facts["ddpm-0"]).replace("detection", json.dumps(HOSTILE)[1:-1]))
    about = {"version": 1, "summary": HOSTILE, "traits": {HOSTILE: HOSTILE}, "settings": {HOSTILE: HOSTILE}}
    fit = {"run": "0", "data": HOSTILE, "parameters": None, "hours": 1.0, "device": HOSTILE}
    cards = [
        write_data_card(odd, None),
        write_generator_card(HOSTILE, about, [fit], [{**poisoned, "name": HOSTILE}]),
    ]
    plain = [write_data_card(drawn, None), write_generator_card("x", about, [fit], [])]
    for card in cards:
        front, text = split(card)
        assert front["license"] == "unknown"
        assert {token.type for token in tokens_of(text)}.isdisjoint({"image", "html_block", "s_open"})
        assert {token.content for token in tokens_of(text) if token.type == "html_inline"} <= {"<br>"}
        links = {token.attrs["href"] for token in tokens_of(text) if token.type == "link_open"}
        assert links <= {"https://doi.org/10.1038/s44172-025-00450-1"}
        assert "\u202e" not in card
        content = "".join(
            token.content for token in tokens_of(text) if token.type in ("text", "text_special")
        )
        assert one_line(HOSTILE) in content
    assert len(split(plain[0])[0]) == len(split(cards[0])[0])
    raw = f"# {HOSTILE}\n"  # the check sees what is not escaped
    assert {"link_open", "image", "s_open"} <= {token.type for token in tokens_of(raw)}


def test_trainings_are_counted_from_their_weights(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    work = Workspace(tmp_path)
    run = {"data": {"name": "toy"}, "recipe": {}, "seconds": 7200.0, "device": "CPU"}
    for name, text in (("a", json.dumps(run)), ("b", json.dumps(run)), ("c", "{}"), ("d", json.dumps(run))):
        (work.generators / "net" / name).mkdir(parents=True)
        (work.generators / "net" / name / "run.json").write_text(text)
    save_file(
        {"w": np.zeros((3, 4)), "b": np.zeros(5)}, work.generators / "net" / "a" / "weights.safetensors"
    )
    (work.generators / "net" / "d" / "weights.safetensors").write_bytes(b"no weights")
    fits = describe_fits(work, "net")
    assert [(fit["run"], fit["parameters"], fit["hours"]) for fit in fits] == [
        ("a", 17, 2.0),
        ("b", None, 2.0),
    ]
    assert describe_fits(work, "other") == []


def test_the_command_writes_both(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    make_toy(tmp_path / "work" / "datasets" / "toy", 2)
    place = ["--workspace", str(tmp_path / "work"), "--out", str(tmp_path / "card.md")]
    for name, words in (
        ("toy", "volumes, real"),
        ("classic", "samples hold pieces of training volumes | yes"),
    ):
        result = CliRunner().invoke(cli.app, ["card", name, *place, "--json"], catch_exceptions=False)
        assert json.loads(result.stdout) == {"card": str(tmp_path / "card.md"), "of": name}
        assert words in (tmp_path / "card.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(cli.app, ["card", "nope", *place])
    assert "no data set and no generator named 'nope'" in str(result.exception)
    result = CliRunner().invoke(cli.app, ["show", "classic", "--workspace", str(tmp_path / "work"), "--json"])
    assert json.loads(result.stdout)["trainings"] == []
