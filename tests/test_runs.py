from pathlib import Path

import pytest

from dbtbench.errors import DBTBenchError, StaleError
from dbtbench.runs import open_run


def test_the_same_identity_finds_the_finished_run_again(tmp_path: Path) -> None:
    with open_run(tmp_path, {"recipe": {"a": 1, "b": 2}}) as run:
        assert not run.finished
        run.finish(scores={"x": 1.0})
    with open_run(tmp_path, {"recipe": {"b": 2, "a": 1}}) as again:
        assert again.finished
        assert again.path == run.path
        assert again.record()["scores"] == {"x": 1.0}


def test_another_identity_is_another_run(tmp_path: Path) -> None:
    with open_run(tmp_path, {"seed": 0}) as one, open_run(tmp_path, {"seed": 1}) as other:
        assert one.path != other.path


def test_the_record_says_what_made_it(tmp_path: Path) -> None:
    with open_run(tmp_path, {"seed": 0}) as run:
        run.finish()
    record = run.record()
    assert record["seed"] == 0
    assert {"seconds", "dbtbench", "commit", "versions", "device", "created"} <= record.keys()
    assert record["versions"].keys() >= {"python", "torch", "monai"}


def test_fresh_throws_away_what_was_there(tmp_path: Path) -> None:
    with open_run(tmp_path, {}) as run:
        (run.path / "state").write_text("half-done")
        run.finish()
    with open_run(tmp_path, {}, fresh=True) as run:
        assert not run.finished
        assert not (run.path / "state").exists()


def test_two_processes_do_not_work_on_the_same_run(tmp_path: Path) -> None:
    with (
        open_run(tmp_path, {}),
        pytest.raises(DBTBenchError, match="another process"),
        open_run(tmp_path, {}),
    ):
        pass


def test_a_run_that_failed_can_be_opened_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, {}):
        raise ZeroDivisionError
    with open_run(tmp_path, {}) as run:
        assert not run.finished


def test_a_finished_run_needs_no_lock(tmp_path: Path) -> None:
    with open_run(tmp_path, {}) as run:
        run.finish()
    with open_run(tmp_path, {}, fresh=True), pytest.raises(DBTBenchError), open_run(tmp_path, {}):
        pass  # it is being made again
    with open_run(tmp_path, {}) as run:
        run.finish()
    before = sorted(tmp_path.rglob("*"))
    run.path.with_suffix(".lock").unlink(missing_ok=True)
    with open_run(tmp_path, {}) as again:
        assert again.finished
        assert not run.path.with_suffix(".lock").exists()
    assert {path.name for path in before} >= {"run.json"}


def test_what_was_changed_after_a_run_was_finished_is_found_by_its_name(tmp_path: Path) -> None:
    with open_run(tmp_path, {"seed": 0}) as run:
        (run.path / "encoder").mkdir()
        for name in ("weights.safetensors", "encoder/weights.safetensors", "log.txt"):
            (run.path / name).write_bytes(b"\0\1")
        run.finish(scores={"x": 1.0})
    assert run.record()["files"].keys() == {"weights.safetensors", "encoder/weights.safetensors"}
    (run.path / "log.txt").write_text("a log may grow")
    run.check()
    for name in ("weights.safetensors", "encoder/weights.safetensors"):
        (run.path / name).write_bytes(b"\0\2")
        with pytest.raises(StaleError, match=f"{run.path / name} does not match its digest"):
            run.check()
        (run.path / name).unlink()
        with pytest.raises(StaleError, match=f"{run.path / name} is missing"):
            run.check()
        (run.path / name).write_bytes(b"\0\1")
    record = run.path / "run.json"
    text = record.read_text()
    for changed in (text.replace("1.0", "0.0", 1), text.replace("1.0", "NaN", 1), text[:-9], "[]"):
        record.write_text(changed)
        with pytest.raises(StaleError, match=r"run\.json"):
            run.check()


def test_a_run_of_an_earlier_version_has_no_digests_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(tmp_path, {}) as run:
        (run.path / "run.json").write_text('{"seconds": 1}')
        run.check()
    assert "has no digests, as earlier versions wrote it" in capsys.readouterr().err
