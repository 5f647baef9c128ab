"""The page in Chromium: no error, no request; it sorts, filters and scrolls, and hostile text is text.

Screenshots are kept in the folder that DBTBENCH_SCREENSHOTS names, else in pytest's tmp_path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import launch, needs_chromium, open_page

from dbtbench.report import gather, page, write_report
from dbtbench.workspace import Workspace

pytestmark = needs_chromium

WIDTHS = (360, 1600)
SCHEMES = ("light", "dark")
SECTIONS = ("verdict", "board", "froc", "look", "realism", "privacy", "criteria", "making")
OPENS_IN = 2.0
"""Seconds of CPU of the page's process."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launch() as started:
        yield started


@pytest.fixture(scope="module")
def file(work: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(gather(work), out)
    return out


def visit(tab: Any) -> None:
    """Scroll through the page, so that everything is made."""
    for box in tab.query_selector_all("section, [data-chart], [data-viewer]"):
        box.scroll_into_view_if_needed()
    tab.wait_for_function("document.querySelectorAll('[data-viewer]:not(:has(canvas))').length === 0")


def labels(tab: Any) -> list[str]:
    rows = ".board:not([hidden]) tbody tr:not([hidden]) .arm"
    return list(tab.eval_on_selector_all(rows, "all => all.map(one => one.textContent)"))


def pixels(tab: Any, viewer: str = "layouts") -> str:
    return str(tab.eval_on_selector(f"[data-viewer={viewer}] canvas", "one => one.toDataURL()"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_silent_fits_and_can_be_looked_at(
    browser: Any, file: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("DBTBENCH_SCREENSHOTS", tmp_path))
    with open_page(browser, file, width, scheme) as tab:
        visit(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for name in SECTIONS:
            shot = folder / f"{name}-{width}-{scheme}.png"
            tab.query_selector(f"#{name}").screenshot(path=str(shot))
            assert shot.stat().st_size > 1000
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
        assert (int(paper[0]) < 60) == (scheme == "dark")


A4 = 718
"""Pixels across a page of A4 within Chromium's margins, at 96 per inch."""
TALLEST = 700
"""Pixels of a table's row on a phone, whose screen has no more."""


def style(tab: Any, elements: str, text: str) -> None:
    """Change elements; the page's policy refuses further styles, but not this."""
    tab.eval_on_selector_all(elements, f"all => all.forEach(one => one.style.cssText = '{text}')")


def find_overflow(tab: Any) -> list[str]:
    """Cells of open tables that end right of the page."""
    return list(
        tab.evaluate(
            "[...document.querySelectorAll('th, td')].filter(one => one.offsetParent"
            " && one.getBoundingClientRect().right > document.documentElement.clientWidth)"
            ".map(one => one.textContent)"
        )
    )


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the published results: seventeen arms with long names and settings."""
    out = tmp_path_factory.mktemp("published") / "report.html"
    write_report(gather(None, Path(__file__).parents[2] / "results"), out)
    return out


@pytest.mark.parametrize("whole", [True, False])
def test_no_column_is_cut_in_print(browser: Any, published_file: Path, tmp_path: Path, whole: bool) -> None:
    """The positive: with the columns of the screen, the board is too wide for paper."""
    with open_page(browser, published_file, A4) as tab:
        tab.emulate_media(media="print")
        if not whole:
            style(tab, ".runs", "display: table-cell")
            style(tab, "td.number", "white-space: nowrap")
        assert bool(find_overflow(tab)) is not whole


def test_no_row_is_taller_than_a_phone(browser: Any, published_file: Path) -> None:
    heights = "Math.max(...[...document.querySelectorAll('tr')].map(one => one.offsetHeight))"
    with open_page(browser, published_file, 360) as tab:
        assert tab.evaluate(heights) < TALLEST
        style(tab, ".words td", "min-width: 0")
        assert tab.evaluate(heights) > TALLEST


def test_the_board_sorts_filters_and_gives_its_rows(browser: Any, file: Path, tmp_path: Path) -> None:
    with open_page(browser, file) as tab:
        before = labels(tab)
        head = ".board:not([hidden]) thead th:nth-child(3)"
        for order in ("ascending", "descending"):
            tab.click(f"{head} button")
            assert tab.get_attribute(head, "aria-sort") == order
            cells = tab.eval_on_selector_all(
                ".board:not([hidden]) tbody td.primary", "all => all.map(one => Number(one.dataset.sort))"
            )
            assert cells == sorted(cells, reverse=order == "descending")
        tab.fill("#board-find", "gan1")
        assert labels(tab) == ["gan1"]
        assert tab.text_content("#board-count") == "1 of 3 arms"
        tab.fill("#board-find", "")
        tab.select_option("#board-kind", "real")
        assert labels(tab) == ["real"]
        tab.select_option("#board-kind", "")
        assert sorted(labels(tab)) == sorted(before)
        for kind in ("csv", "json"):
            with tab.expect_download() as waiting:
                tab.click(f"#board-{kind}")
            waiting.value.save_as(tmp_path / f"board.{kind}")
        assert (tmp_path / "board.csv").read_text(encoding="utf-8").startswith("board,task,")
        assert len(json.loads((tmp_path / "board.json").read_text(encoding="utf-8"))["records"]) == 15


def test_a_run_opens_its_record_and_closes_it(browser: Any, file: Path) -> None:
    with open_page(browser, file) as tab:
        tab.click(".board:not([hidden]) .runs a >> nth=0")
        tab.wait_for_selector("#record[open]")
        shown = json.loads(tab.text_content("#record-text"))
        assert shown["task"] == "detection"
        tab.keyboard.press("Escape")
        tab.wait_for_selector("#record[open]", state="detached")


def test_volumes_scroll_by_wheel_keys_and_slider_and_change_their_window(browser: Any, file: Path) -> None:
    with open_page(browser, file) as tab:
        visit(tab)
        canvas = tab.query_selector("[data-viewer=layouts] canvas")
        status = "[data-viewer=layouts] output"
        canvas.scroll_into_view_if_needed()
        tab.wait_for_function("document.querySelector('[data-viewer=layouts] canvas').width > 0")
        tab.wait_for_timeout(200)
        seen = [pixels(tab)]

        def slice_number() -> int:
            return int(tab.text_content(status).split()[1])

        first = slice_number()
        canvas.hover()
        tab.mouse.wheel(0, -100)
        tab.wait_for_function(
            f"document.querySelector('{status}').textContent.startsWith('slice {first - 1} ')"
        )
        seen.append(pixels(tab))
        canvas.focus()
        tab.keyboard.press("End")
        assert slice_number() == 8
        tab.keyboard.press("Home")
        assert slice_number() == 1
        tab.keyboard.press("ArrowDown")
        assert slice_number() == 2
        tab.fill("[data-viewer=layouts] input[type=range]", str(first - 1))
        assert slice_number() == first
        assert pixels(tab) == seen[0]
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x - 80, y + 20, steps=4)
        tab.mouse.up()
        assert "window 1.00" not in tab.text_content(status)
        seen.append(pixels(tab))
        tab.keyboard.press("0")
        assert pixels(tab) == seen[0]
        tab.keyboard.press("b")
        seen.append(pixels(tab))
        assert len(set(seen)) == len(seen)


def test_a_finger_scrolls_slices(browser: Any, file: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(file.as_uri())
    visit(tab)
    canvas = tab.query_selector("[data-viewer=layouts] canvas")
    canvas.scroll_into_view_if_needed()
    before = tab.text_content("[data-viewer=layouts] output")
    canvas.evaluate(
        """one => {
          const send = (kind, x) => one.dispatchEvent(new PointerEvent(kind, {
            pointerId: 1, pointerType: "touch", clientX: x, clientY: 5, bubbles: true, isPrimary: true }));
          one.setPointerCapture = () => {};
          send("pointerdown", 10); send("pointermove", 60); send("pointerup", 60);
        }"""
    )
    assert tab.text_content("[data-viewer=layouts] output") != before
    context.close()


def test_a_chart_reads_values_off_by_keys_and_pointer(browser: Any, file: Path) -> None:
    with open_page(browser, file) as tab:
        visit(tab)
        tab.focus("[data-chart=froc] svg.plot")
        tab.keyboard.press("End")
        assert "false positives a volume: 8" in tab.text_content("[data-chart=froc] .readout")
        tab.keyboard.press("Home")
        assert "false positives a volume: 1/16" in tab.text_content("[data-chart=froc] .readout")
        tab.hover("[data-chart=froc] svg.plot")
        assert tab.eval_on_selector_all("[data-chart=froc] .readout li", "all => all.length") == 3


def test_controls_have_names_and_sections_are_landmarks(browser: Any, file: Path) -> None:
    with open_page(browser, file) as tab:
        visit(tab)
        nameless = tab.evaluate(
            """() => [...document.querySelectorAll("button, input, select, a, canvas, svg[role]")]
              .filter((one) => !one.closest("[hidden]") && !(one.getAttribute("aria-label")
                || one.textContent.trim()
                || (one.labels && [...one.labels].some((label) => label.textContent.trim()))))
              .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert nameless == []
        unnamed = (
            "all => all.filter(one => !document.getElementById(one.getAttribute('aria-labelledby'))).length"
        )
        assert tab.eval_on_selector_all("section", unnamed) == 0
        assert len(tab.query_selector_all("main, header, footer, nav")) == 4


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const paper = (one) => { for (let e = one; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  return [...document.querySelectorAll("p, th, td, a, label, summary, button, dt, dd, li, span, h1, h2, h3")]
    .filter((one) => one.textContent.trim() && one.offsetParent).map((one) => {
      const [a, b] = [light(parse(getComputedStyle(one).color)), light(paper(one))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), one.outerHTML.slice(0, 90)]; }).filter(([ratio]) => ratio < 4.5); }"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_the_contrast_of_level_aa(browser: Any, file: Path, scheme: str) -> None:
    with open_page(browser, file, scheme=scheme) as tab:
        visit(tab)
        assert tab.evaluate(CONTRAST) == []


def test_hostile_text_is_shown_as_text_and_runs_nothing(
    browser: Any, work: Workspace, poison_page: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "hostile.html"
    file.write_text(page.fill_template(poison_page(page.describe(gather(work)))), encoding="utf-8")
    with open_page(browser, file) as tab:
        visit(tab)
        assert tab.query_selector("x-bad") is None
        assert '<x-bad onload="alert(' in tab.text_content("#verdict")
        assert "\\u202e" in tab.text_content("#look figcaption")
        assert "\u202e" not in tab.evaluate("document.documentElement.textContent")


def test_a_script_that_is_not_the_pages_own_is_refused(browser: Any, file: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    text = file.read_text(encoding="utf-8")
    planted.write_text(
        text.replace("</main>", "<script>document.title = 'bad'</script></main>"), encoding="utf-8"
    )
    with pytest.raises(AssertionError, match="Content Security Policy"), open_page(browser, planted) as tab:
        assert tab.title() != "bad"


@pytest.mark.slow
def test_twelve_arms_ten_seeds_eight_cases_are_small_and_open_at_once(
    browser: Any, make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    work = make_workspace(tmp_path / "work", arms=11, seeds=10, grid=(8, 64, 64))
    file = tmp_path / "large.html"
    size = write_report(gather(work), file)
    assert 10**5 < size < page.LARGEST
    session = browser.new_browser_cdp_session()

    def seconds() -> float:
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        return float(sum(each["cpuTime"] for each in processes if each["type"] == "renderer"))

    context = browser.new_context(viewport={"width": 1600, "height": 900})
    tab = context.new_page()
    before = seconds()
    tab.goto(file.as_uri())
    tab.wait_for_selector("html.ready")
    spent = seconds() - before
    print(f"{size / 1e6:.1f} MB, {spent:.2f} s of CPU")  # noqa: T201
    assert 0 < spent < OPENS_IN
    context.close()
