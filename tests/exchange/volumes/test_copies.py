"""Real volumes among those that are imported."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dbtbench.cli import app
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import StaleError
from dbtbench.exchange.export import export_dataset
from dbtbench.exchange.volumes.ingest import import_samples
from dbtbench.pipeline.evaluate import evaluate
from dbtbench.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    np.save(folder / "0-lcc.npy", np.random.default_rng(0).random((8, 32, 32), np.float32))
    return folder


def read(data: DBTDataset, case: int) -> Any:
    return data.volumes([case])[0, 0]


@pytest.mark.parametrize("case", [16, 24])
@pytest.mark.parametrize("turn", [np.s_[:, :, :], np.s_[:, :, ::-1], np.s_[::-1, ::-1]])
@pytest.mark.parametrize("derived", [True, False])
def test_a_held_out_volume_is_refused_with_its_name(
    toy: DBTDataset, root: Path, tmp_path: Path, case: int, turn: Any, derived: bool
) -> None:
    np.save(root / "mine-rcc.npy", read(toy, case)[turn])
    with pytest.raises(
        StaleError, match=rf"gan holds 1 real volumes .*mine-rcc\.npy is case {case}"
    ) as caught:
        import_samples(root, tmp_path / "gan", toy, derived=derived)
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["made"]  # nothing is kept


def test_a_held_out_volume_that_an_earlier_call_read_is_refused_too(
    toy: DBTDataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbtbench.exchange.volumes import ingest

    np.save(root / "00-rcc.npy", read(toy, 30))
    read_one = ingest._read

    def dying(path: Path, *rest: Any) -> Any:
        if path.name.startswith("00"):
            return read_one(path, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_read", dying)
        with pytest.raises(KeyboardInterrupt):
            import_samples(root, tmp_path / "gan", toy)
    with pytest.raises(StaleError, match=r"00-rcc\.npy is case 30"):
        import_samples(root, tmp_path / "gan", toy)


def test_training_volumes_are_counted(
    toy: DBTDataset, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(root / "1-rcc.npy", read(toy, 2)[:, :, ::-1])
    with caplog.at_level(logging.WARNING, "dbtbench"):
        made = import_samples(root, tmp_path / "gan", toy)
    assert "1 of 2: copy of a real training volume" in caplog.text
    assert made.meta["import_report"]["notices"]["copy of a real training volume"] == 1
    assert "--derived" in caplog.text
    assert made.meta["source"]["derived"] is False
    assert import_samples(root, tmp_path / "turned", toy, derived=True).meta["source"]["derived"] is True


def test_an_imported_copy_of_a_training_volume_is_not_evaluated_unless_declared(
    make_toy: Callable[..., DBTDataset], root: Path, tmp_path: Path
) -> None:
    work = Workspace(tmp_path / "work")
    toy = make_toy(work.datasets / "toy", 8)
    np.save(root / "1-rcc.npy", read(toy, 2))
    import_samples(root, work.datasets / "gan", toy)
    with pytest.raises(StaleError, match="gan is not derived, and holds 1 training volumes"):
        evaluate(work, "realism", toy, ["gan"], 1, arms=[])
    made = import_samples(root, work.datasets / "gan", toy, fresh=True, derived=True)
    runs = evaluate(work, "realism", toy, ["gan"], 1, arms=[])
    assert json.loads((runs[1] / "run.json").read_text())["derived"] is True
    export_dataset(made, tmp_path / "out", "npz")
    assert (tmp_path / "out" / "volumes.csv").read_text().splitlines()[1].endswith("train,1")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["source"]["derived"] is True
    assert import_samples(tmp_path / "out", work.datasets / "back", toy).meta["source"]["derived"] is True


def test_the_command_ends_with_4_and_names_the_copy(
    make_toy: Callable[..., DBTDataset], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workspace(tmp_path / "work")
    toy = make_toy(work.datasets / "toy", 8)
    export_dataset(toy, tmp_path / "out", "nifti", "test")
    (tmp_path / "out" / "volumes.csv").unlink()
    (tmp_path / "out" / "boxes.csv").unlink()
    command = ["data", "import", "volumes", str(tmp_path / "out"), "--name", "theirs", "--data", "toy"]
    done = CliRunner().invoke(app, [*command, "--workspace", str(tmp_path / "work"), "--derived"])
    assert isinstance(done.exception, StaleError)
    assert "theirs holds 8 real volumes that are held out" in str(done.exception)


@pytest.mark.parametrize("format_", ["npz", "nifti", "dicom"])
def test_an_export_of_the_test_split_is_refused_in_every_format(
    toy: DBTDataset, tmp_path: Path, format_: str
) -> None:
    export_dataset(toy, tmp_path / "out", format_, "test")
    (tmp_path / "out" / "volumes.csv").unlink()
    with pytest.raises(StaleError, match="gan holds 8 real volumes that are held out"):
        import_samples(tmp_path / "out", tmp_path / "gan", toy)


@pytest.mark.parametrize("scale", [255, 1023])
def test_a_held_out_volume_saved_in_whole_numbers_is_refused(
    toy: DBTDataset, root: Path, tmp_path: Path, scale: int
) -> None:
    (root / "0-lcc.npy").unlink()
    np.save(root / "1-lcc.npy", (read(toy, 28) * scale).astype(np.uint16))
    with pytest.raises(StaleError, match=r"1-lcc\.npy is case 28 \(test, (8|10) bits\)"):
        import_samples(root, tmp_path / "gan", toy, full_scale=scale)
