"""What the file system refuses is reported as that, and finished work needs nothing of it but reading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dbtbench.cli import _report
from dbtbench.cli.listing import list_
from dbtbench.data.dataset import DBTDataset
from dbtbench.pipeline import evaluate, generate
from dbtbench.workspace import Workspace

READ_ONLY = """
import errno, json, os, sys

from dbtbench.cli import main

folder, *calls = json.loads(sys.argv[1])

def refuse(event, words):
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
    if event == "open":
        changes = bool(words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    there = event == "os.mkdir" and os.path.isdir(words[0])  # as Linux answers
    if changes and str(words[0]).startswith(folder) and not there:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(words[0]))

sys.addaudithook(refuse)
for call in calls:
    sys.argv = ["dbtbench", *call]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""
"""Runs commands with a folder that behaves as on a read-only file system, also for root."""


@pytest.fixture
def work(toy: DBTDataset, tmp_path: Path) -> Workspace:
    """A workspace in which `classic` drew four volumes and their realism was measured."""
    work = Workspace(tmp_path / "work")
    shutil.copytree(toy.path, work.datasets / "toy")
    data = DBTDataset.open(work.datasets / "toy")
    generate.draw(work, generate.fit(work, "classic", data), 4)
    evaluate.evaluate(work, "realism", data, ["classic"])
    return work


def test_finished_work_is_found_in_a_workspace_that_cannot_be_written(
    work: Workspace, tmp_path: Path, start_program: Any
) -> None:
    place = ["--data", "toy", "--workspace", str(work.root)]
    calls = [
        ["generate", "classic", "--n", "4", *place],
        ["evaluate", "--task", "realism", "--aug", "classic", "--jobs", "1", *place],
        ["generate", "classic", "--n", "5", *place],
    ]
    program = tmp_path / "read_only.py"
    program.write_text(READ_ONLY)
    done = start_program(program, json.dumps([str(work.root), *calls])).wait()
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 0",
        "exit 1",
    ]
    assert "classic-toy-" in done.stdout
    assert "W1 of" in done.stdout
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith(f"error: {work.datasets}")
    assert error.endswith("cannot be written: its file system is read-only")
    assert hint == "hint: choose another place, such as another --workspace"


def test_a_workspace_that_is_a_file_is_wrong_usage(tmp_path: Path, start_command: Any) -> None:
    (tmp_path / "file").touch()
    words = ["data", "phantom", "--patients", "1", "--out", tmp_path / "file" / "x"]
    done = start_command(*words).wait()
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert "defect" not in done.stderr


def test_anything_else_is_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(ZeroDivisionError("division by zero")) == 1
    assert capsys.readouterr().err == (
        "error: ZeroDivisionError: division by zero\n"
        "hint: this is a defect in dbtbench (or in a plug-in); run with --debug and report it\n"
    )
    assert _report(OSError("not a picture")) == 1
    assert "defect" in capsys.readouterr().err


DAMAGED = [
    b"[]",
    b"\xed\xff",
    b'{"source": null}',
    b"[" * 300,
    b"\xef\xbb\xbf{}",
    b"",
    b'{"source": {"kind": "a"}, "cases": 1}',
]


def test_one_damaged_file_does_not_keep_the_others_from_being_listed(
    tmp_path: Path, toy: DBTDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (*enumerate(DAMAGED), ("toy", (toy.path / "dataset.json").read_bytes())):
        (tmp_path / "datasets" / str(name)).mkdir(parents=True)
        (tmp_path / "datasets" / str(name) / "dataset.json").write_bytes(content)
        run = tmp_path / "evaluations" / "realism" / f"00000000000{str(name)[0]}"
        run.mkdir(parents=True)
        (run / "run.json").write_bytes(content)
    for kind, damaged in (("datasets", len(DAMAGED)), ("runs", 5)):
        list_(kind, workspace=tmp_path)
        said = capsys.readouterr().out
        assert said.count(" cannot be read") == damaged
        assert len(said.splitlines()) == 2 + len(DAMAGED)
