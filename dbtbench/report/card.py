"""Cards: a data set, or a generator, as Markdown with YAML front matter.

The front matter has the keys of the Hugging Face hub, and under `zenodo` those of a Zenodo deposit; what only
the publisher knows is empty. Text from files is escaped for both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.schema import read_declaration
from dbtbench.data.summary import summarise
from dbtbench.report.facts import describe_synthetic
from dbtbench.report.gathering import Material
from dbtbench.runtime.text import one_line
from dbtbench.version import __version__

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 10**9: "100K<n<1M"}
"""Numbers of volumes, as the hub names their ranges, by their upper ends."""
MARKUP = re.compile(r"[\\`*_\[\]<>#|~&@!$]|:(?=/)|(?<=www)\.", re.IGNORECASE)
"""Signs that CommonMark and GitHub give a meaning within a line; each may have a backslash."""
FILL = "*to be filled in*"
INCOMPLETE = "nothing yet"


def write_data_card(dataset: DBTDataset, material: Material | None) -> str:
    """Write the card of a data set.

    Args:
        dataset: real or synthetic.
        material: boards on which it may stand; None where there are none.

    Returns:
        Markdown.
    """
    summary, source = summarise(dataset), dataset.meta["source"]
    what = _say_what(dataset)
    head = {
        "pretty_name": dataset.name,
        "license": "unknown",
        "task_categories": ["object-detection", "image-classification"],
        "size_categories": [next(name for end, name in SIZES.items() if len(dataset) < end)],
        "source_datasets": ["extended" if dataset.synthetic else "original"],
        "annotations_creators": ["machine-generated" if what != "real" else "other"],
        "tags": _tags(what),
        "zenodo": _zenodo(dataset.name, "dataset", what),
    }
    lines = [
        f"# {escape(dataset.name)}",
        "",
        f"{len(dataset):,} digital breast tomosynthesis volumes, {what}.",
        "",
        *_table(["fact", "value"], _list_data(dataset, summary, source)),
        "",
        *_table(
            ["split", "patients", "volumes", "with boxes", "boxes"],
            [
                [split, n["patients"], n["volumes"], n["volumes_with_boxes"], n["boxes"]]
                for split, n in summary["splits"].items()
                if n["volumes"]
            ],
        ),
        "",
    ]
    if dataset.synthetic:
        made = {"name": dataset.name, "generator": source["generator"], "volumes": len(dataset)}
        facts = describe_synthetic(made, dataset.fingerprint, material, dataset)
        lines += ["## Measured", "", *_list_measured(facts), ""]
    return _join(head, [*lines, *_list_open()])


def write_generator_card(
    name: str, about: Mapping[str, Any], fits: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]]
) -> str:
    """Write the card of a generator.

    Args:
        name: of the generator.
        about: `version`, `summary`, `traits` (sentence to answer) and `settings` (the default recipe).
        fits: what `describe_fits` gives.
        facts: what `describe_facts` gives of data sets that it drew.

    Returns:
        Markdown.
    """
    head = {
        "license": "unknown",
        "library_name": "dbtbench",
        "pipeline_tag": "unconditional-image-generation",
        "datasets": sorted({str(fit["data"]) for fit in fits}),
        "tags": _tags("synthetic"),
        "zenodo": _zenodo(f"dbtbench generator {name}", "software", "generator"),
    }
    lines = [f"# {escape(name)}", "", f"Summary: {escape(about['summary'])}", ""]
    lines += _table(["trait", "answer"], [["version", about["version"]], *about["traits"].items()])
    lines += ["", "## Default settings", "", *_table(["setting", "value"], _values(about["settings"]))]
    lines += ["", "## Trainings", ""]
    rows = [[fit["run"], fit["data"], fit["parameters"], fit["hours"], fit["device"]] for fit in fits]
    lines += _table(["run", "data", "parameters", "hours", "device"], rows) if rows else [INCOMPLETE]
    lines += ["", "## Measured", ""]
    for fact in facts:
        lines += [f"### {escape(fact['name'])}", "", *_list_measured(fact), ""]
    return _join(head, [*lines, *([] if facts else [INCOMPLETE, ""]), *_list_open()])


def escape(text: Any) -> str:
    """Escape text from a file: it is one line of Markdown, and no more than text."""
    return MARKUP.sub(r"\\\g<0>", one_line(str(text)))


def _say_what(dataset: DBTDataset) -> str:
    if dataset.synthetic:
        derived = read_declaration(dataset.meta["source"], "derived")
        return "derived from training volumes" if derived else "synthetic"
    return "phantoms" if "phantom" in dataset.meta else "real"


def _tags(what: str) -> list[str]:
    kind = {"real": [], "phantoms": ["phantom"]}.get(what, ["synthetic"])
    return ["medical", "digital-breast-tomosynthesis", "mammography", *kind]


def _zenodo(title: str, type_: str, what: str) -> dict[str, Any]:
    said = f"Digital breast tomosynthesis, {what}; made with dbtbench {__version__}"
    empty = {"creators": [{"name": "", "affiliation": "", "orcid": ""}], "license": "", "doi": ""}
    return {"title": title, "upload_type": type_, "description": said, **empty, "related_identifiers": []}


def _list_data(
    dataset: DBTDataset, summary: Mapping[str, Any], source: Mapping[str, Any]
) -> Iterator[list[Any]]:
    if dataset.synthetic:
        yield ["generator", f"{source['generator']}, version {source['version']}, run {source['run']}"]
        yield ["trained on", f"{source['data']['name']}, fingerprint {source['data']['fingerprint'][:12]}"]
        derived = read_declaration(source, "derived")
        answer = {True: "yes", False: "no", None: "not declared"}[derived]
        yield ["holds pieces of training volumes", answer]
        asked = {key: source[key] for key in ("n", "positives", "seed") if key in source}
        yield ["layouts", ", ".join(f"{key} {value}" for key, value in asked.items()) or "not recorded"]
        yield ["settings", json.dumps(source.get("recipe", {}), ensure_ascii=False)]
    else:
        yield ["made from", source["kind"]]
    yield ["grid (slices × rows × columns)", " × ".join(map(str, dataset.grid))]
    yield ["intensities", json.dumps(dataset.meta["intensity"], ensure_ascii=False)]
    yield ["split", json.dumps(summary["split"], ensure_ascii=False)]
    yield ["fingerprint", dataset.fingerprint]
    yield ["dbtbench", __version__]


def _values(settings: Mapping[str, Any]) -> list[list[Any]]:
    return [[key, json.dumps(value, ensure_ascii=False)] for key, value in settings.items()]


def _list_measured(facts: Mapping[str, Any]) -> Iterator[str]:
    for title in ("gain", "realism", "privacy"):
        said = "; ".join(map(escape, facts[title])) or "not measured"
        yield f"- **{title.capitalize()}**: {said}"
    yield ""
    yield "The seven criteria are those of [Zamzmi et al. 2025](https://doi.org/10.1038/s44172-025-00450-1)."
    yield ""
    yield from _table(
        ["criterion", "measured", "not measured"],
        [
            [f"{each['name']} ({each['meaning']})", each["measured"], each["not_measured"]]
            for each in facts["criteria"]
        ],
    )


def _list_open() -> list[str]:
    """List what only the publisher knows."""
    asked = ["Licence", "Citation", "Intended use, and what it must not be used for", "Contact"]
    return ["## By the publisher", "", *(f"- **{each}**: {FILL}" for each in asked)]


def _table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: Any) -> str:
    return "<br>".join(map(escape, value)) or "nothing" if isinstance(value, list) else escape(value)


def _join(head: Mapping[str, Any], lines: Iterable[str]) -> str:
    """Put front matter and text together: JSON values are YAML, and hold any text."""
    front = [f"{key}: {json.dumps(_plain(value), ensure_ascii=False)}" for key, value in head.items()]
    return "\n".join(["---", *front, "---", "", *lines, ""])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else one_line(str(value))
