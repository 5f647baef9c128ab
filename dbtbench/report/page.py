"""The page: all that it shows, and the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbtbench.pages import template
from dbtbench.report.curves import describe_curves, describe_gains
from dbtbench.report.facts import describe_facts
from dbtbench.report.gathering import Material
from dbtbench.report.looks import describe_looks
from dbtbench.report.privacy import describe_privacy
from dbtbench.report.provenance import describe_provenance
from dbtbench.report.realism import describe_realism
from dbtbench.report.tables import KINDS, describe_board
from dbtbench.report.verdict import write_verdicts
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.version import __version__

HERE = Path(__file__).parent
SCRIPTS = ("base.js", "chart.js", "board.js", "picture.js", "stage.js", "look.js", "start.js")
STYLES = ("page.css", "report.css")
LARGEST = 15 * 10**6
"""Bytes of a page."""


def write_report(material: Material, out: Path) -> int:
    """Write the page; gives its size in bytes."""
    text = render(material)
    write_text(out, text)
    return len(text.encode())


def render(material: Material) -> str:
    """Make the page as text; the same material gives the same text."""
    return fill_template(describe(material))


def describe(material: Material) -> dict[str, Any]:
    """Describe all that the page shows, as JSON values."""
    boards = material.boards
    described = [describe_board(material, board) for board in boards]
    looks = describe_looks(material)
    return {
        "version": __version__,
        "source": material.source,
        "has_workspace": material.workspace is not None,
        "phantoms": sorted({board["dataset"] for board in described if board["phantom"]}),
        "names": sorted({board["dataset"] for board in described}),
        "verdicts": write_verdicts(material),
        "boards": described,
        "kinds": KINDS,
        "froc": _keep(describe_curves(board) for board in boards),
        "gains": _keep(describe_gains(material, board) for board in boards),
        "look": looks,
        "realism": _keep(describe_realism(material, board) for board in boards),
        "facts": describe_facts(material),
        "privacy": _keep(describe_privacy(material, board) for board in boards),
        "provenance": [describe_provenance(material, board) for board in boards],
        "records": {
            run.record.hash: run.record.model_dump(mode="json", exclude={"metrics"}, exclude_none=True)
            for run in material.results
        },
        "csv": {
            str(name): csv_text(rows, "%.6f") for name, rows in material.table.groupby("board", sort=False)
        },
    }


def fill_template(page: Mapping[str, Any]) -> str:
    """Fill the templates with what `describe` gives."""
    shown = ("froc", "look", "realism", "boards", "records", "csv")
    data = {name: page[name] for name in shown}
    return template.fill_template(HERE, "page.html.j2", page, data, SCRIPTS, STYLES)


def _keep(parts: Any) -> list[dict[str, Any]]:
    return [part for part in parts if part is not None]
