"""Processes that are launched: they listen to this machine only, unpickle nothing, and are done or named."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.runtime import distributed, launching

LISTENING = """
import os, socket, struct
from pathlib import Path

def find_listeners(pid):
    "Addresses, as /proc writes them, at which a process listens."
    opened = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            opened.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass
    rows = [line.split() for kind in ("tcp", "tcp6") for line in open(f"/proc/net/{kind}").readlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in opened]
"""
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and the first one within IPv6, as /proc writes them."""
PROGRAM = (
    LISTENING
    + """
import json, sys
from dbtbench.runtime import distributed, launching

folder, ending = Path(sys.argv[1]), sys.argv[2]
launching.LOST_SECONDS = 0.1

def forbid(event, arguments):
    if event == "pickle.find_class":
        raise AssertionError(f"{arguments} is unpickled")

def fail(*_):
    raise AssertionError("an object is exchanged")

with launching.worker():
    rank = distributed.rank()
    if ending == "early" and rank == 0:
        sys.exit(0)
    if ending in ("early", "lost") and rank == 1:
        os._exit(0)
    if ending == "abort" and rank == 1:
        os.abort()
    import torch
    sys.addaudithook(forbid)
    torch.distributed.distributed_c10d._object_to_tensor = fail
    net = distributed.data_parallel(torch.nn.Linear(2, 1))
    net(torch.ones(3, 2)).sum().backward()
    value = {"rank": rank, "text": "\\u00e9" * 1000 * rank, "empty": [None, 0.5, float("inf")]}
    seen = {
        "listening": find_listeners(os.getpid()) + find_listeners(os.getppid()),
        "to_leader": distributed.to_leader(value),
        "from_leader": distributed.from_leader(["leader", 1] if rank == 0 else None),
    }
    (folder / f"{rank}.json").write_text(json.dumps(seen))
if rank == 1:
    os.abort()
"""
)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return (str(path),)


def test_processes_of_one_machine_exchange_json_over_loopback(
    tmp_path: Path, program: tuple[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither they nor their launcher listens elsewhere, and no object is pickled for another process.

    That one dies when all are done, as torch's threads may make it, is said, and takes no result away.
    """
    launching.launch(2, [str(tmp_path), "well"], program)
    said = capsys.readouterr().err
    assert said.endswith("warning: rank 1 was done, and died while it closed: SIGABRT\n")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    expected = [{"rank": r, "text": "é" * 1000 * r, "empty": [None, 0.5, float("inf")]} for r in (0, 1)]
    assert (first["to_leader"], second["to_leader"]) == (expected, [])
    assert first["from_leader"] == second["from_leader"] == ["leader", 1]
    addresses = {*first["listening"], *second["listening"]}
    assert addresses  # gloo does listen
    assert addresses <= {*LOOPBACK}
    assert launching.FOLDER not in os.environ


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are read from Linux's /proc")
def test_a_process_that_listens_on_every_interface_is_found() -> None:
    found: dict[str, object] = {}
    exec(LISTENING, found)
    find = found["find_listeners"]
    assert callable(find)
    before = find(os.getpid())
    for host, address in (("0.0.0.0", "00000000"), ("127.0.0.1", LOOPBACK[0])):
        with socket.create_server((host, 0)):
            now = find(os.getpid())
            assert sorted(now) == sorted([*before, address])


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("early", "ranks 0, 1 of 2 processes ended early, without a result and without an error"),
        ("lost", "rank 1 of 2 processes ended early, without a result and without an error"),
        ("abort", r"rank 1 of 2 processes failed: Signal 6 \(SIGABRT\) received by PID \d+"),
    ],
)
def test_a_process_that_ends_before_it_is_done_has_failed(
    tmp_path: Path, program: tuple[str], ending: str, message: str
) -> None:
    """Whether all end by sys.exit(0) and os._exit(0), one leaves the others waiting, or one aborts."""
    with pytest.raises(DBTBenchError) as caught:
        launching.launch(2, [str(tmp_path), ending], program)
    assert re.fullmatch(message, str(caught.value))
    assert ("sys.exit()" in caught.value.hint) == (ending != "abort")


def set_places(monkeypatch: pytest.MonkeyPatch, **places: object) -> None:
    for name in (*launching.PLACE, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in places.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("places", [{"RANK": 1}, {"LOCAL_RANK": 0, "MASTER_ADDR": "node7"}])
def test_a_place_that_is_left_over_and_not_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], places: dict[str, object]
) -> None:
    set_places(monkeypatch, **places)
    with launching.worker():
        assert distributed.size() == 1
    said = capsys.readouterr().err
    assert all(f"{name}={value}" in said for name, value in places.items())
    assert f"`unset {' '.join(places)}`" in said


def test_nothing_is_said_where_nothing_is_left_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_places(monkeypatch)
    with launching.worker():
        assert capsys.readouterr().err == ""


def test_a_place_at_which_nobody_comes_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    set_places(monkeypatch, RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    monkeypatch.setattr(launching, "MEETING_SECONDS", 1)
    with pytest.raises(UsageError, match="did not meet within 1 s") as caught, launching.worker():
        pass
    for said in (str(caught.value), capsys.readouterr().err):
        assert f"RANK=0, WORLD_SIZE=2, MASTER_ADDR=127.0.0.1, MASTER_PORT={port}" in said
    assert "`unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT`" in caught.value.hint


@pytest.mark.parametrize("places", [{"RANK": 2}, {"RANK": "first"}, {"RANK": -1}, {"MASTER_PORT": ""}])
def test_a_place_that_is_none_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, places: dict[str, object]
) -> None:
    right = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    set_places(monkeypatch, **(right | places))
    ((name, value),) = places.items()
    with pytest.raises(UsageError, match=f"{name}={value}.* give no place") as caught, launching.worker():
        pass
    assert name in caught.value.hint


def test_processes_that_the_environment_contradicts_are_refused(tmp_path: Path) -> None:
    places = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    words = ["generate", "ddpm", "--processes", "4", "--workspace", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "dbtbench", *words],
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: --processes 4 is given, and RANK=0, WORLD_SIZE=2, MASTER_ADDR=127.0.0.1, MASTER_PORT=1 are "
        "set in the environment\nhint: `unset RANK"
    )
