"""What CONTRIBUTING.md promises: its generator is run as it stands there, and its rules are kept."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import dbtbench
from dbtbench import plugins, recipe
from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline import generate
from dbtbench.testing import check_generator
from dbtbench.workspace import Workspace

ROOT = Path(__file__).parents[1]


def test_the_generator_shown_draws_a_data_set(
    tmp_path: Path, toy: DBTDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "grain_of_the_guide.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    point = EntryPoint("grain", "grain_of_the_guide:Grain", "dbtbench.generators")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])

    work = Workspace(tmp_path / "work")
    made = generate.draw(work, generate.fit(work, "grain", toy, overrides={"noise": "0.05"}), n=6)

    assert len(made) == 6
    assert made.meta["source"]["recipe"] == {"noise": 0.05}
    source = toy.volumes(made.cases["source"].head(1))[0, 0]
    drawn = made.volumes(made.cases["case"].head(1))[0, 0]
    mirrored = (
        made.cases["View"].iloc[0][0] != toy.cases.set_index("case")["View"][made.cases["source"].iloc[0]][0]
    )
    difference = drawn - (source[..., ::-1] if mirrored else source)
    assert np.std(difference[source.mean() < source]) == pytest.approx(0.05, abs=0.02)


def test_the_generator_shown_keeps_the_rules(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (tmp_path / "grain.py").write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    _, cls = plugins.load_file(tmp_path / "grain.py")
    check_generator(cls, tmp_path / "bench")


def test_every_folder_of_code_is_packed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {
        "dbtbench": ROOT / "dbtbench",
        "dbtbench.generators": ROOT / "generators",
        "dbtbench.tasks": ROOT / "tasks",
    }
    there = {
        ".".join([name, *init.parent.relative_to(folder).parts])
        for name, folder in folders.items()
        for init in folder.rglob("__init__.py")
    }
    assert there == set(settings["packages"])


def test_the_wheel_brings_recipes_and_type_marker() -> None:
    package = Path(dbtbench.__file__).parent
    assert (package / "py.typed").is_file()
    folder = recipe.folder_of(plugins.load(plugins.get("generators", "ddpm")))
    assert {"demo", "smoke"} <= set(recipe.names(folder))
