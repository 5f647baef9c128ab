"""The study in Chromium: cases by keys and buttons, a pause, a closed page, and a file that can be scored.

Screenshots are kept in the folder that DBTBENCH_SCREENSHOTS names, else in pytest's tmp_path.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import launch, needs_chromium, open_page

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.runtime.csv_text import csv_text
from dbtbench.study.choosing import choose_cases, make_key
from dbtbench.study.page import render

pytestmark = needs_chromium
CASES = 4
ANSWERS = {"2afc": {"left": "1", "right": "2"}, "rating": {"synthetic": "2", "real": "5"}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launch() as started:
        yield started


@pytest.fixture(params=list(ANSWERS))
def study(request: pytest.FixtureRequest, real: DBTDataset, sets: list[DBTDataset], tmp_path: Path) -> Path:
    cases = choose_cases(real, sets, request.param, CASES, 3)
    (tmp_path / f"{request.param}.key.csv").write_text(csv_text(make_key(cases)), encoding="utf-8")
    page = tmp_path / f"{request.param}.html"
    page.write_text(render(real, cases, request.param), encoding="utf-8")
    return page


def start(tab: Any, reader: str = "R1") -> None:
    tab.fill("#reader", reader)
    tab.click("#entry button")
    tab.wait_for_selector("#reading:not([hidden]), #finish:not([hidden])")


def title(tab: Any) -> str:
    return str(tab.text_content("#reading-title"))


def place(tab: Any) -> str:
    return str(tab.text_content("#place"))


@pytest.mark.parametrize("width", [360, 1600])
def test_a_reader_answers_all_cases_and_the_file_is_scored(
    browser: Any, study: Path, width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = Path(os.environ.get("DBTBENCH_SCREENSHOTS", tmp_path))
    keys = ANSWERS[study.stem]
    with study.with_suffix(".key.csv").open(encoding="utf-8") as file:
        truths = [row["truth"] for row in csv.DictReader(file)]
    wrong = len(truths) - 1
    with open_page(browser, study, width) as tab:
        assert len(tab.query_selector_all("#welcome li")) == 5
        start(tab)
        assert title(tab) == "Practice 1 of 2"
        tab.click("#answers button >> nth=0")
        tab.keyboard.press("1")
        for number, truth in enumerate(truths):
            assert title(tab) == f"Case {number + 1} of {CASES}"
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.wait_for_timeout(150)
            if number == 0:
                tab.screenshot(path=str(shots / f"study-{study.stem}-{width}.png"))
            sure = truth if number < wrong else next(other for other in keys if other != truth)
            tab.keyboard.press(keys[sure])
        with tab.expect_download() as waiting:
            tab.click("#save")
        saved = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved)
    assert saved.name == "answers-R1.csv"
    with saved.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == CASES
    assert all(0.1 <= float(row["seconds"]) < 30 for row in rows)
    key = str(study.with_suffix(".key.csv"))
    app(args=["study", "score", str(saved), "--key", key, "--json"], standalone_mode=False)
    scored = json.loads(capsys.readouterr().out)["readers"][0]
    assert scored["cases"] == CASES
    if study.stem == "2afc":
        assert scored["accuracy"]["value"] == wrong / CASES
    else:
        # One of the last pair has the other one's rating: of four comparisons two are right, two are ties.
        assert scored["auc"]["value"] == 0.75


def test_slices_turn_by_wheel_keys_and_slider_and_each_case_begins_in_the_middle(
    browser: Any, study: Path
) -> None:
    with open_page(browser, study) as tab:
        start(tab)
        assert place(tab) == "slice 5 of 8"
        tab.hover("#pictures canvas >> nth=0")
        tab.mouse.wheel(0, 100)
        tab.wait_for_function("document.getElementById('place').textContent === 'slice 6 of 8'")
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("ArrowUp")
        assert place(tab) == "slice 4 of 8"
        tab.fill("#slice", "0")
        assert place(tab) == "slice 1 of 8"
        tab.keyboard.press("1")
        assert place(tab) == "slice 5 of 8"


def test_a_pause_hides_the_case_stops_the_clock_and_a_closed_page_continues(
    browser: Any, study: Path
) -> None:
    with open_page(browser, study) as tab:
        start(tab)
        for _ in range(3):
            tab.keyboard.press("1")
        assert title(tab) == "Case 2 of 4"
        tab.click("#pause")
        assert not tab.is_visible("#pictures")
        tab.keyboard.press("1")  # not an answer: nothing is seen
        tab.wait_for_timeout(1200)
        tab.reload()
        start(tab, "R2")
        assert title(tab) == "Practice 1 of 2"  # another reader
        tab.reload()
        start(tab)
        assert title(tab) == "Case 2 of 4"
        for _ in range(3):
            tab.keyboard.press("1")
        assert tab.is_visible("#save")
        kept = tab.evaluate("Object.entries(localStorage).find(([name]) => name.endsWith(':R1'))[1]")
        seconds = [seconds for _, seconds in json.loads(kept)["answers"].values()]
        assert len(seconds) == 6
        assert max(seconds) < 1.2
        tab.reload()
        start(tab)
        assert tab.is_visible("#save")


def test_a_code_that_is_no_word_does_not_start(browser: Any, study: Path) -> None:
    with open_page(browser, study) as tab:
        tab.fill("#reader", "=A1,x")
        tab.click("#entry button")
        assert tab.is_visible("#welcome")
        assert not tab.is_visible("#reading")
