"""A page: one HTML file with its data, its script and its style inside, and a policy that forbids the rest.

What comes from files is text: templates escape it, the data lie in a script block that is never executed,
and the script writes text nodes only. Signs that turn or hide text are written out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dbtbench.runtime.text import one_line, printable

HERE = Path(__file__).parent
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
"""Signs that could end the data's block, or a line of script in it."""


def fill_template(
    room: Path, name: str, values: Mapping[str, Any], data: Any, scripts: Sequence[str], styles: Sequence[str]
) -> str:
    """Make a page as text.

    Args:
        room: folder with `templates` and `static`; what is not there is taken from this room's own.
        name: of the template.
        values: variables of the template; `data`, `script`, `style` and `policy` are added.
        data: JSON values for the script.
        scripts: files of script, in their order.
        styles: files of style, likewise.
    """
    from markupsafe import Markup

    script, style = (
        "\n".join(_find(room, part).read_text(encoding="utf-8") for part in parts)
        for parts in (scripts, styles)
    )
    text = (
        _environment(room)
        .get_template(name)
        .render(
            values,
            data=Markup(write_data(data)),  # noqa: S704 - write_data escapes
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


def _find(room: Path, name: str) -> Path:
    own = room / "static" / name
    return own if own.exists() else HERE / "static" / name


def _print(value: Any) -> Any:
    """Write out what would turn or hide text, in all texts of JSON values."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _print(each) for key, each in value.items()}
    return [_print(each) for each in value] if isinstance(value, list | tuple) else value


@cache
def _environment(room: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def show(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(room / "templates"),
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
