"""A request: what cannot be met is known before training, and what was done is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.pipeline import generate
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.workspace import Workspace


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"generator": "clasic"}, MissingError, "no generator named 'clasic'"),
        ({"recipe": "dem"}, UsageError, "no recipe named 'dem'"),
        ({"settings": {"degreees": "3"}}, UsageError, "no setting named 'degreees'"),
        ({"generator": "ddpm", "settings": {"unshuffle": "64"}}, UsageError, "cannot be divided"),
        ({"n": 0}, UsageError, "cannot draw 0 volumes"),
        ({"positives": 2.0}, UsageError, "cannot draw"),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_is_made(
    toy: DBTDataset, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        GenerationRequest(**{"generator": "classic", "data": toy, **changes}).check()


def test_a_request_is_met_once(toy: DBTDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Workspace(tmp_path)
    request = GenerationRequest("classic", toy, settings={"noise": "0.1"}, n=3, seed=5)
    request.check()
    made = request.run(work)
    assert made.meta["source"]["recipe"]["noise"] == 0.1
    assert (len(made), made.meta["source"]["seed"]) == (3, 5)
    assert request.run(work).path == made.path
    assert "already drawn" in capsys.readouterr().err
    fitted = generate.fit(work, "classic", toy, overrides={"noise": "0.1"})
    assert generate.draw(work, fitted, n=3, seed=5).path == made.path
    assert request.run(work, name="mine").name == "mine"


def test_what_is_drawn_again_need_not_be_fitted_again(toy: DBTDataset, tmp_path: Path) -> None:
    work, request = Workspace(tmp_path), GenerationRequest("classic", toy, n=2)
    request.run(work)
    (record,) = work.generators.glob("*/*/run.json")
    before = record.stat().st_mtime_ns
    request.run(work, fresh=True, refit=False)
    assert record.stat().st_mtime_ns == before
    request.run(work, fresh=True)
    assert record.stat().st_mtime_ns > before
