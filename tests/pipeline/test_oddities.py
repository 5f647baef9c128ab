"""Warnings about what breaks no rule and is seldom meant: each appears when it should, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.pipeline import generate
from dbtbench.pipeline.oddities import LOOKED_AT, find_oddities
from dbtbench.workspace import Workspace


class Changed(DBTDataset):
    """A data set whose volumes read otherwise."""

    change: Callable[[Any], Any] = staticmethod(lambda volume: volume)

    def volumes(self, cases: Any = None) -> Any:
        return type(self).change(super().volumes(cases))


def changed(data: DBTDataset, change: Callable[[Any], Any]) -> DBTDataset:
    cls = type("Other", (Changed,), {"change": staticmethod(change)})
    other: DBTDataset = cls(data.path, data.meta, data.cases, data.boxes)
    return other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v, []),
        (lambda v: v * 0.95, []),
        (lambda v: v * 0 + 0.2, ["are constant", "share of air is 0.00"]),
        (lambda v: v * 2, ["mean brightness"]),
        (lambda v: v.clip(0.05), ["share of air is 0.00"]),
    ],
)
def test_each_oddity_is_named_and_no_other(
    toy: DBTDataset, change: Callable[[Any], Any], words: list[str]
) -> None:
    train = toy.select("train")
    found = list(find_oddities(changed(train, change), train))
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_boxes_in_fractions_of_the_grid_are_odd(toy: DBTDataset) -> None:
    train = toy.select("train")
    boxes = train.boxes.assign(**{name: train.boxes[name] / 40 for name in GRID_BOX})
    (text,) = find_oddities(DBTDataset(train.path, train.meta, train.cases, boxes), train)
    assert "smaller than a voxel" in text


def test_a_large_data_set_is_looked_at_in_part(toy: DBTDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []

    def count(volume: Any) -> Any:
        reads.append(volume)
        return volume

    data = changed(toy, count)
    monkeypatch.setattr("dbtbench.pipeline.oddities.LOOKED_AT", 5)
    list(find_oddities(data, toy))
    assert len(reads) == 5
    assert len(toy) < LOOKED_AT


def test_they_are_logged_once_when_the_data_set_is_drawn(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        generate, "find_oddities", lambda drawn, train: [f"{len(drawn)} look like {len(train)}"]
    )
    work = Workspace(tmp_path)
    for _ in range(2):
        generate.draw(work, generate.fit(work, "classic", toy), n=2, name="mild")
    train = len(toy.select("train"))
    assert capsys.readouterr().err.count(f"warning: mild: 2 look like {train}\n") == 1


def test_classic_augmentation_is_not_odd(
    toy: DBTDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Workspace(tmp_path)
    made = generate.draw(work, generate.fit(work, "classic", toy), n=6)
    assert np.isfinite(made.volumes()).all()
    assert "warning" not in capsys.readouterr().err
