"""Chromium for tests of pages; they are skipped where it is not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@contextmanager
def launch() -> Iterator[Any]:
    """Start Chromium, and end it."""
    with sync_api.sync_playwright() as driver:
        # The sandbox needs rights that a container has not; the page is this repository's own.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def open_page(browser: Any, file: Path, width: int = 1600, scheme: str = "light") -> Iterator[Any]:
    """Open a page; afterwards it must have said nothing, asked for nothing and opened nothing."""
    faults: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", offline=True
    )
    tab = context.new_page()
    tab.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
    tab.on("pageerror", lambda error: faults.append(f"error: {error}"))

    def dismiss(dialog: Any) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    tab.on("dialog", dismiss)

    def note(request: Any) -> None:
        if request.url != file.as_uri() and not request.url.startswith(("data:", "blob:")):
            faults.append(f"request: {request.url}")

    tab.on("request", note)
    tab.goto(file.as_uri())
    yield tab
    context.close()
    assert not faults, faults
