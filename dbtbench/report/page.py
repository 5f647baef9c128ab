"""The page: one HTML file with its data, its script and its style inside, and a policy that forbids the rest.

What comes from files is text: templates escape it, the data lie in a script block that is never executed,
and the script writes text nodes only. Signs that turn or hide text are written out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dbtbench.report.curves import describe_curves, describe_gains
from dbtbench.report.gathering import Material
from dbtbench.report.looks import describe_looks
from dbtbench.report.privacy import describe_privacy
from dbtbench.report.provenance import describe_provenance
from dbtbench.report.realism import describe_realism
from dbtbench.report.tables import KINDS, describe_board
from dbtbench.report.verdict import write_verdicts
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.runtime.text import one_line, printable
from dbtbench.version import __version__

HERE = Path(__file__).parent
SCRIPTS = ("base.js", "chart.js", "board.js", "viewer.js", "look.js", "start.js")
LARGEST = 15 * 10**6
"""Bytes of a page."""
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
"""Signs that could end the data's block, or a line of script in it."""


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
    from markupsafe import Markup

    shown = ("froc", "look", "realism", "boards", "records", "csv")
    script = "\n".join((HERE / "static" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (HERE / "static" / "page.css").read_text(encoding="utf-8")
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            page,
            data=Markup(write_data({name: page[name] for name in shown})),  # noqa: S704 - write_data escapes
            script=Markup(script),  # noqa: S704 - the page's own
            style=Markup(style),  # noqa: S704 - likewise
            policy=_write_policy(script, style),
        )
    )
    return str(text)


def write_data(data: Any) -> str:
    """Write data as JSON that can stand in a script block of HTML."""
    plain = json.dumps(_print(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.translate(ESCAPES)


def _print(value: Any) -> Any:
    """Write out what would turn or hide text, in all texts of JSON values."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _print(each) for key, each in value.items()}
    return [_print(each) for each in value] if isinstance(value, list | tuple) else value


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def show(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write_policy(script: str, style: str) -> str:
    """Write the Content-Security-Policy: the page's own script, style and pictures, nothing else."""
    own = {name: _hash(text) for name, text in (("script", script), ("style", style))}
    return (
        f"default-src 'none'; script-src '{own['script']}'; style-src '{own['style']}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _keep(parts: Any) -> list[dict[str, Any]]:
    return [part for part in parts if part is not None]
