"""Carrying results over: records of earlier versions of dbtbench become records of this one.

    python results/carry_over.py [FOLDER]      # a folder of results; the one of this file by default

Arms and settings get their present names, and each record gets the declarations of its metrics and of its
generator. A run's hash follows from what its record says, so records and their outcomes get new file names.
Scores, counts, outcomes and provenance stay as they are; a record that is of this version already stays, too.
Afterwards `dbtbench leaderboard --results FOLDER` builds the board again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dbtbench import plugins
from dbtbench.records import Record, outcomes_file, outcomes_files
from dbtbench.runs import add_digest
from dbtbench.runtime.files import read_json, write_json
from dbtbench.task import RENAMED

DATA_SETS = {"mended": "fixed"}
"""Names of synthetic data sets, and so of arms, by their earlier names."""
LEARNED = {"classic": False, "paste": False, "ddpm": True}
"""Whether a generator learns, for those of the time when records did not say it."""


def renew(old: dict[str, Any]) -> dict[str, Any]:
    """Give a record the present names, and the declarations of its metrics and generators.

    Scores of a record without declarations are of version 1 of their metrics: there was no other.

    Raises:
        MissingError: when its task is not installed.
        KeyError: for a score that the task does not declare.
    """
    record = dict(old)
    record["arm"] = ":".join((RENAMED | DATA_SETS).get(word, word) for word in old["arm"].split(":"))
    made = old["augmentation"]
    sources = made if isinstance(made, list) else [made] if made else []
    renamed = [
        {**each, "name": DATA_SETS.get(each["name"], each["name"]), "recipe": _rename_settings(each)}
        for each in sources
    ]
    record["augmentation"] = renamed if isinstance(made, list) else next(iter(renamed), None)
    if "metrics" not in old:
        declared = {m.name: m for m in plugins.load(plugins.get("tasks", old["task"])).metrics}
        metrics = {name: declared[name].describe() | {"version": 1} for name in old["scores"]}
        record = _insert(record, "metrics", metrics, after="scores")
    if sources and "learned" not in old and {each["generator"] for each in sources} <= LEARNED.keys():
        learned = any(LEARNED[each["generator"]] for each in sources)
        record = _insert(record, "learned", learned, after="derived" if "derived" in record else "seconds")
    return record


def _rename_settings(made: dict[str, Any]) -> dict[str, Any]:
    """Give a recipe the present names of its generator's settings (`Recipe.renamed`)."""
    if made["generator"] not in plugins.find("generators"):
        return dict(made["recipe"])
    renamed = plugins.load(plugins.get("generators", made["generator"])).recipe_class.renamed
    settings = {}
    for key, value in made["recipe"].items():
        new, _, text = renamed.get(f"{key}={value}", "").partition("=")
        settings[new or renamed.get(key, key)] = text or value
    return settings


def _insert(record: dict[str, Any], key: str, value: Any, after: str) -> dict[str, Any]:
    items = [(name, own) for name, own in record.items() if name != key]
    place = [name for name, _ in items].index(after) + 1
    return dict([*items[:place], (key, value), *items[place:]])


def carry_over(results: Path) -> dict[str, str]:
    """Renew all records of a folder of results.

    Returns:
        The new hash of each record that was renewed, by its old one.
    """
    renewed = {}
    for file in sorted((results / "runs").glob("*/*.json")):
        old = read_json(file)
        record = renew(old)
        if record == old:
            continue
        if "sha256" in record:
            record = add_digest(record)
        target = file.with_name(f"{Record.model_validate(record).hash}.json")
        for name, table in outcomes_files(file).items():  # first: a record that is there is whole
            table.rename(outcomes_file(target, name))
        write_json(target, record)
        if target != file:
            file.unlink()
        renewed[file.stem] = target.stem
    return renewed


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    sys.stdout.write(f"{len(carry_over(folder))} records renewed in {folder}\n")
