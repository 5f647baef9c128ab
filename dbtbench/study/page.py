"""The page of a study: cases, instructions and script in one file, without the key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Volume
from dbtbench.pages.sprites import FORMATS, choose_format, count_columns, make_sprite, size_of_tile
from dbtbench.pages.template import fill_template
from dbtbench.runtime.files import digest
from dbtbench.runtime.progress import log, progress
from dbtbench.study.choosing import PRACTICE, Case, Source
from dbtbench.version import __version__

HERE = Path(__file__).parent
SCRIPTS = ("base.js", "picture.js", "stage.js", "study.js")
STYLES = ("page.css", "study.css")
BUDGET = 40 * 2**20
"""Bytes of all volumes together."""


def render(real: DBTDataset, cases: Sequence[Case], kind: str) -> str:
    """Make the page as text; the same cases give the same text."""
    sources = [source for case in cases for source in case.shown]
    # All of them in one format: two would tell the volumes apart.
    form = choose_format([partial(_read, source) for source in sources], BUDGET)
    if form != FORMATS[0]:
        log.info(
            f"the volumes are shown as {form.kind} at 1/{form.factor} of their rows and columns, so that the "
            "page stays small; fewer --cases leave more for each"
        )
    described: list[dict[str, Any]] = []
    with progress("volumes of the page", len(sources)) as advance:
        for case in cases:
            sprites = [make_sprite(_read(source), form) for source in case.shown]
            described.append({"case": case.name, "sprites": sprites})
            advance(len(sprites))
    data = {
        "study": digest([case.name for case in cases])[:12],
        "kind": kind,
        "practice": PRACTICE,
        "grid": list(real.grid),
        "tile": list(size_of_tile(real.grid, form)),
        "columns": count_columns(real.grid[0]),
        "cases": described,
    }
    values = {
        "version": __version__,
        "kind": kind,
        "phantom": "phantom" in real.meta,
        "practice": PRACTICE,
        "count": len(cases) - PRACTICE,
    }
    return fill_template(HERE, "study.html.j2", values, data, SCRIPTS, STYLES)


def _read(source: Source) -> Volume:
    return np.asarray(source.dataset.volumes([source.volume])[0, 0])
