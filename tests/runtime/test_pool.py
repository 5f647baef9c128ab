from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dbtbench.errors import MissingError, UsageError
from dbtbench.runtime import pool as parallel
from dbtbench.runtime.pool import Pool

WORK = """
import os, signal, time


def square(x):
    return x * x


def note(folder, x):
    (folder / f"{x}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return x


def die_on(folder, bad, x):
    note(folder, x)
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def die_once(folder, x):
    if x == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail_on(bad, x):
    if x == bad:
        raise ValueError(f"cannot do {x}")
    return x
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The functions above in a module of their own: workers cannot import this one."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "parallel_work.py").write_text(WORK)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("parallel_work")
    sys.path.remove(str(folder))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_is_done_once(work: Any, jobs: int) -> None:
    with Pool(jobs) as pool:
        assert sorted(pool.run(work.square, range(20))) == [(x, x * x) for x in range(20)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_the_function_raises_ends_the_run(work: Any, jobs: int) -> None:
    with Pool(jobs) as pool, pytest.raises(ValueError, match="cannot do 3"):
        list(pool.run(partial(work.fail_on, 3), range(10)))


def test_work_is_done_by_several_processes_and_not_by_this_one(work: Any, tmp_path: Path) -> None:
    with Pool(2) as pool:
        list(pool.run(partial(work.note, tmp_path), range(30)))
    pids = {file.name.split("-")[1] for file in tmp_path.iterdir()}
    assert str(os.getpid()) not in pids
    assert 1 <= len(pids) <= 2


def test_a_worker_that_is_killed_costs_nothing_when_it_was_an_accident(work: Any, tmp_path: Path) -> None:
    with Pool(2) as pool:
        assert sorted(pool.run(partial(work.die_once, tmp_path), range(12))) == [(x, x) for x in range(12)]
    assert (tmp_path / "died").exists()


def test_an_item_that_kills_its_worker_twice_is_given_up_and_all_others_are_done(
    work: Any, tmp_path: Path
) -> None:
    with Pool(2) as pool:
        results = dict(pool.run(partial(work.die_on, tmp_path, 5), range(12)))
    assert results == {x: None if x == 5 else x for x in range(12)}
    assert len(list(tmp_path.glob("5-*"))) == 2


def test_fewer_than_one_job_is_an_error() -> None:
    with pytest.raises(UsageError, match="0 jobs"):
        Pool(0)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\nfrom functools import partial\nfrom pathlib import Path\n"
        "from dbtbench.runtime.pool import Pool\n"
        "def slow(folder, x):\n"
        "    (Path(folder) / str(os.getpid())).touch()\n    time.sleep(120)\n    return x\n"
        "if __name__ == '__main__':\n"
        f"    list(Pool(2).run(partial(slow, {str(tmp_path / 'pids')!r}), range(4)))\n"
    )
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while (
        len(pids := [int(p.name) for p in (tmp_path / "pids").iterdir()]) < 2 and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster(work: Any) -> Iterator[str]:
    """A Dask scheduler on this machine with two worker processes; it blames a dead one's items at once.

    By default it tries an item on four workers, and each new worker imports for seconds.
    """
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with (
        importlib.import_module("dask").config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as made,
    ):
        yield made.scheduler_address


def test_a_dask_cluster_does_the_same(work: Any, cluster: str, tmp_path: Path) -> None:
    with Pool(dask=cluster) as pool:
        assert sorted(pool.run(work.square, range(20))) == [(x, x * x) for x in range(20)]


def test_a_cluster_gives_up_only_what_kills_its_workers(work: Any, cluster: str, tmp_path: Path) -> None:
    with Pool(dask=cluster) as pool:
        results = dict(pool.run(partial(work.die_on, tmp_path, 5), range(8)))
    assert results == {x: None if x == 5 else x for x in range(8)}


def test_what_a_cluster_s_worker_raises_ends_the_run(work: Any, cluster: str) -> None:
    with Pool(dask=cluster) as pool, pytest.raises(ValueError, match="cannot do 3"):
        list(pool.run(partial(work.fail_on, 3), range(10)))


def test_an_address_where_nothing_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    monkeypatch.setattr(parallel, "SECONDS", 1)
    with pytest.raises(MissingError, match=r"tcp://127\.0\.0\.1:9"):
        Pool(dask="tcp://127.0.0.1:9")


def test_workers_of_another_version_are_not_used(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "__version__", "999")
    with pytest.raises(MissingError, match=r"need dbtbench 999: \d"):
        Pool(dask=cluster)


def test_a_cluster_without_workers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    monkeypatch.setattr(parallel, "SECONDS", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(MissingError, match="no worker"),
    ):
        Pool(dask=empty.scheduler_address)


SCRIPT = """
import sys
from dbtbench.errors import DBTBenchError
from dbtbench.runtime.pool import Pool
with open({log!r}, "a") as log:
    log.write("run\\n")
if {condition}:
    try:
        with Pool(2) as pool:
            print(sorted(pool.run(abs, range(4))))
    except DBTBenchError as error:
        print(f"{{error}}: {{error.hint}}")
        sys.exit(error.exit_code)
"""


def run_script(folder: Path, condition: str) -> tuple[int, str, int]:
    """Exit code, last line of stdout, and how often the script's top level was run."""
    script, log = folder / "script.py", folder / "log"
    script.write_text(SCRIPT.format(log=str(log), condition=condition))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1], len(log.read_text().splitlines())


def test_a_script_without_a_main_guard_is_an_error_at_once(tmp_path: Path) -> None:
    """It runs once, and at most once in each of the two workers: none is started again."""
    code, last, runs = run_script(tmp_path, "True")
    assert code == UsageError.exit_code
    assert last.startswith("no worker process came to its first item: in a script, put the call under")
    assert '`if __name__ == "__main__":`' in last
    assert runs <= 3


def test_the_same_script_with_a_main_guard_works(tmp_path: Path) -> None:
    code, last, runs = run_script(tmp_path, "__name__ == '__main__'")
    assert (code, last) == (0, "[(0, 0), (1, 1), (2, 2), (3, 3)]")
    assert 2 <= runs <= 3
