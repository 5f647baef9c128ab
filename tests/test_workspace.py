from pathlib import Path

import pytest

from dbtbench.errors import MissingError, UsageError
from dbtbench.workspace import Workspace


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBTBENCH_WORKSPACE", raising=False)


def test_flag_then_settings_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Workspace.find() == Workspace(Path("dbtbench-work"), "default")
    monkeypatch.setenv("DBTBENCH_WORKSPACE", "/from/environment")
    assert Workspace.find() == Workspace(Path("/from/environment"), "DBTBENCH_WORKSPACE")
    Path("dbtbench.toml").write_text('workspace = "/from/settings"')
    assert Workspace.find() == Workspace(Path("/from/settings"), "dbtbench.toml")
    assert Workspace.find(Path("flag")) == Workspace(Path("flag"), "--workspace")


def test_broken_settings_are_an_error_that_says_what_to_write() -> None:
    Path("dbtbench.toml").write_text("workspace = nowhere")
    with pytest.raises(UsageError, match=r"dbtbench\.toml"):
        Workspace.find()


def test_a_data_set_is_known_once_it_is_finished(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    (work.datasets / ".half.partial").mkdir(parents=True)
    (work.datasets / "whole").mkdir()
    (work.datasets / "whole" / "dataset.json").touch()
    assert work.dataset_names() == ["whole"]
    assert work.dataset_path("whole") == work.datasets / "whole"
    with pytest.raises(MissingError, match="'half'"):
        work.dataset_path("half")
