"""Processes that train together: they are started under torchrun, and join each other.

Processes of one machine meet in a file and exchange over the loopback interface: nothing listens on another.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError
from dbtbench.runtime.distributed import is_launched
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import log
from dbtbench.runtime.signals import TERMINATED, Terminated, exit_with_parent

ERRORS = {kind.exit_code: kind for kind in (DBTBenchError, UsageError, MissingError, StaleError)}
"""Kinds of errors by exit code."""
LOST_SECONDS = 10.0
"""Seconds that a process which lost another one waits for torchrun to end it."""
MEETING_SECONDS = 300.0
"""Seconds that a process waits for the others when no launcher says that it started them."""
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which a launcher gives a process its place."""
FOLDER = "DBTBENCH_MEETING_FOLDER"
"""Variable with the folder in which the processes of `launch` meet, and leave a mark when they are done."""


def launch(
    processes: int,
    argv: Sequence[str],
    program: Sequence[str] = ("-m", "dbtbench"),
    max_restarts: int = 0,
) -> None:
    """Run a program again in several processes under torchrun, and wait for it.

    Nothing is pickled: each process reads the same arguments, and `worker` connects them. A process that dies
    of a signal after all have left `worker` is reported in the log: nothing is lost.

    Args:
        processes: how many.
        argv: the program's arguments.
        program: what `python` runs; each of its processes enters `worker`.
        max_restarts: how often all are started again after one failed.

    Raises:
        DBTBenchError: when a process fails, or ends before it leaves `worker`, naming the first one that did;
            with the exit code and the hint of its error.
        KeyboardInterrupt: when interrupted; the processes are stopped first.
        Terminated: when SIGTERM came; the processes get it and are waited for.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Else `python -m` would import what lies in the current folder, and so whatever somebody put there.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Else torchrun would open a store of its own, on every interface.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with TemporaryDirectory(prefix="dbtbench-") as folder:
        os.environ[FOLDER] = folder
        try:
            _run(processes, argv, program, max_restarts, Path(folder))
        finally:
            del os.environ[FOLDER]


def _run(
    processes: int, argv: Sequence[str], program: Sequence[str], max_restarts: int, folder: Path
) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # torchrun's log repeats every process's exit and signal; the error below says it once.
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={folder / 'torchrun'}", "--rdzv-conf=store_type=file"]
    options = ["--nnodes=1", f"--nproc-per-node={processes}", f"--max-restarts={max_restarts}"]
    asked = parse_args([*meeting, "--local-addr=127.0.0.1", *options, *program])  # type: ignore[no-untyped-call]
    asked.training_script_args += argv  # parsed with the rest, `--n` would be taken for an option of torchrun
    try:
        run(asked)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0 and not _silent(processes, folder):
            # All were done, and none closes before all are: what died had no work left.
            log.warning(f"warning: rank {number} was done, and died while it closed: {failure.signal_name()}")
            return
        if failure.exitcode == TERMINATED:
            raise Terminated from error
        # A dictionary (annotated as text) where `worker` recorded an exception, text where it was killed.
        message: Any = failure.message
        record = message if isinstance(message, dict) else {"message": message}
        if record.get("lost"):
            _check_marks(processes, folder)
        kind = ERRORS.get(record.get("exit_code", 1), DBTBenchError)
        raise kind(
            f"rank {number} of {processes} processes failed: {record['message'].splitlines()[0]}",
            record.get("hint")
            or "the same command continues; with --debug, or on one process, it shows where",
        ) from error
    except SignalException as error:
        raise (KeyboardInterrupt if error.sigval == signal.SIGINT else Terminated) from error
    _check_marks(processes, folder)


def _silent(processes: int, folder: Path) -> list[str]:
    """The ranks of the last attempt that left no mark."""
    attempts = [int(mark.suffix[1:]) for mark in folder.glob("rank-*")]
    last = max(attempts, default=0)
    return [str(rank) for rank in range(processes) if not (folder / f"rank-{rank}.{last}").exists()]


def _check_marks(processes: int, folder: Path) -> None:
    """Check that every process of the last attempt left its mark: an exit code of 0 says nothing."""
    if silent := _silent(processes, folder):
        ranks = ("rank " if len(silent) == 1 else "ranks ") + ", ".join(silent)
        raise DBTBenchError(
            f"{ranks} of {processes} processes ended early, without a result and without an error",
            "something in it ends the process, as sys.exit() does; the same command continues",
        )


def _mark() -> None:
    """Leave this process's mark for `launch`: it is done, or it ends because it lost another one."""
    if folder := os.environ.get(FOLDER):
        (Path(folder) / f"rank-{os.environ['RANK']}.{_attempt()}").touch()


def _close_together() -> None:
    """Leave the mark when every process is done, and close when every one has left it.

    So a process that dies while it closes, as torch's threads may make it, costs no other one its work.
    """
    import torch.distributed as dist

    dist.barrier()
    _mark()
    dist.barrier()


def _attempt() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


@contextmanager
def worker() -> Iterator[None]:
    """Join the other processes when this one was launched as one of several; else do nothing.

    Uses NCCL where there are GPUs and gloo elsewhere. Under torchrun a failure is handed to the parent, which
    reports it once for all; this process then only exits, with the failure's code. A process that only lost
    another one leaves it to torchrun to name that one.

    Raises:
        UsageError: when the process has a rank, and no address of the process to meet, or nobody comes there.
    """
    if not is_launched():
        if found := _found():
            log.info(f"{found}: set in the environment and not used; {_unset()}")
        yield
        return
    _check_place()
    try:
        with exit_with_parent(), _process_group():
            yield
            _close_together()
    except Exception as error:
        lost = _lost_another(error)
        if lost:
            _mark()
            time.sleep(LOST_SECONDS)
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            raise
        _record_failure(error, Path(os.environ["TORCHELASTIC_ERROR_FILE"]), lost)
        raise SystemExit(getattr(error, "exit_code", 1)) from None


def check_count(option: str, count: int) -> None:
    """Check that as many processes are asked for as were launched already, here or in all; if any were.

    Raises:
        UsageError: naming the variables that say otherwise; they may be left from an earlier launch.
    """
    launched = {os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")}
    if is_launched() and str(count) not in launched:
        raise UsageError(f"{option} {count} is given, and {_found()} are set in the environment", _unset())


def _found() -> str:
    """The variables that give a place, as they are set."""
    return ", ".join(f"{name}={os.environ[name]}" for name in PLACE if name in os.environ)


def _unset() -> str:
    return f"`unset {' '.join(name for name in PLACE if name in os.environ)}` when no launcher set them"


def _check_place() -> None:
    """Check that the variables give a place among several processes.

    Raises:
        UsageError: naming them.
    """
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(
            f"RANK and WORLD_SIZE are set in the environment, and {' and '.join(missing)} not",
            "start several processes with torchrun or --processes; for one, `unset RANK WORLD_SIZE`",
        )
    numbers = [os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
    if not all(text.isdecimal() for text in numbers) or int(numbers[0]) >= int(numbers[1]):
        raise UsageError(f"{_found()} in the environment give no place among several processes", _unset())


@contextmanager
def _process_group() -> Iterator[None]:
    import torch
    import torch.distributed as dist
    from monai.utils.dist import RankFilter

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:  # one machine
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ[name] = _find_loopback()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # torchrun of several nodes opens a store of its own; None takes that.
    store = None if "TORCHELASTIC_RUN_ID" in os.environ else _meet(rank, size)
    if folder := os.environ.get(FOLDER):
        store = dist.FileStore(str(Path(folder) / f"store.{_attempt()}"), size)  # type: ignore[attr-defined]
    if store is None:
        rank = size = -1  # read from the environment
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size)
    leader = RankFilter()
    log.addFilter(leader)
    try:
        yield
    finally:
        log.removeFilter(leader)
        dist.destroy_process_group()


def _find_loopback() -> str:
    """Name the interface that no other machine reaches: `lo`, or `lo0` on a Mac."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def _meet(rank: int, size: int) -> Any:
    """Meet the other processes where the environment says, although no launcher says that it set it.

    Raises:
        UsageError: when nobody comes: the variables may be left from an earlier launch.
    """
    import torch.distributed as dist

    log.info(f"{_found()}: waiting for the other processes; {_unset()}")
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return dist.TCPStore(host, port, size, rank == 0, timedelta(seconds=MEETING_SECONDS))  # type: ignore[attr-defined]
    except dist.DistError as error:
        raise UsageError(
            f"{_found()} are set in the environment, and the {size} processes did not meet within "
            f"{MEETING_SECONDS:.0f} s",
            _unset(),
        ) from error


def _lost_another(error: Exception) -> bool:
    """Whether an exchange between processes failed; gloo has no class of errors of its own."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _record_failure(error: Exception, path: Path, lost: bool) -> None:
    """Write an error as torchrun reads it, and with it the hint and the exit code."""
    known = isinstance(error, DBTBenchError)
    message = {
        "message": str(error) if known else f"{type(error).__name__}: {error}",
        "hint": getattr(error, "hint", ""),
        "exit_code": getattr(error, "exit_code", 1),
        "lost": lost,
        "extraInfo": {"py_callstack": traceback.format_exc(), "timestamp": str(int(time.time()))},
    }
    write_text(path, json.dumps({"message": message}))
