"""Processes and devices: which GPUs there are, training on several of them under torchrun, or on the CPU.

Everything else asks `device()`, `rank()` and `size()` and works the same on one process and on many.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import Advance, log, progress
from dbtbench.runtime.signals import TERMINATED, Terminated, exit_with_parent

if TYPE_CHECKING:  # commands that train nothing need not wait for torch
    import torch
    from torch import nn

Item = TypeVar("Item")

ERRORS = {kind.exit_code: kind for kind in (DBTBenchError, UsageError, MissingError, StaleError)}
"""Kinds of errors by exit code."""
LOST_SECONDS = 10.0
"""Seconds that a process which lost another one waits for torchrun to end it."""


def _get_group() -> Any:
    """Give `torch.distributed` when this process has joined others, which needs torch imported; else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None


def rank() -> int:
    """Number of this process, from 0; process 0 alone writes."""
    dist = _get_group()
    return int(dist.get_rank()) if dist else 0


def size() -> int:
    """Number of processes that train together."""
    dist = _get_group()
    return int(dist.get_world_size()) if dist else 1


def device() -> torch.device:
    """Get the device of this process: its own GPU where there is one, else the CPU."""
    import torch

    if _get_group():
        from monai.utils.dist import get_dist_device

        return torch.device(get_dist_device())  # type: ignore[no-untyped-call]
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def data_device(nbytes: int) -> torch.device:
    """Choose the device that training data are kept on.

    Args:
        nbytes: size of the data.

    Returns:
        `device()`; the CPU when the data would fill more than half of the GPU's free memory.
    """
    import torch

    here = device()
    crowded = here.type == "cuda" and 2 * nbytes > torch.cuda.mem_get_info(here)[0]
    return torch.device("cpu") if crowded else here


def autocast() -> torch.autocast:
    """Mixed precision where it pays: bfloat16 on a GPU, float32 on the CPU."""
    import torch

    return torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda")


def compiles() -> bool:
    """Whether networks that say so are compiled: never on the CPU, where the bits must stay the same."""
    return device().type == "cuda"


def check_gpus(gpus: int) -> None:
    """Check that a number of GPUs is there; 0 hides them all, so that this process computes on the CPU.

    Raises:
        MissingError: when fewer are visible.
    """
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    import torch

    visible = torch.cuda.device_count()
    if visible < gpus:
        one = "`--gpus 1` trains the same global batch by accumulation, " if visible and gpus > 1 else ""
        noun = "GPU" if gpus == 1 else "GPUs"
        raise MissingError(
            f"{gpus} {noun} asked for, {visible} visible", f"{one}`--gpus 0` computes on the CPU"
        )


def is_launched() -> bool:
    """Whether torchrun (or accelerate, or torchx) started this process as one of several.

    RANK and WORLD_SIZE=1 without an address are not a launch: some job systems set them for every process.
    """
    alone = os.environ.get("WORLD_SIZE") == "1" and "MASTER_ADDR" not in os.environ
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and not alone


def is_restart() -> bool:
    """Whether torchrun started this process again after a failure: it continues, whatever was asked for."""
    return is_launched() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; every process must ask."""
    if size() == 1:
        return flag
    import torch
    import torch.distributed as dist

    flags = torch.tensor(float(flag), device=device())
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def data_parallel(net: nn.Module) -> nn.Module:
    """The network as all processes train it together; itself when this process is alone."""
    if size() == 1:
        return net
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(net)
    if device().type == "cpu":
        wrapped.register_comm_hook(None, lambda _, bucket: _mean_in_rank_order(bucket.buffer()))
    return wrapped


def _mean_in_rank_order(mine: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    """Mean over all processes, added up by rank.

    gloo adds the values in an order that depends on their place in the bucket, and DDP rearranges its buckets
    after the first step: with more than two processes a continued training would end with other bits.
    """
    import torch
    import torch.distributed as dist

    parts = [torch.empty_like(mine) for _ in range(size())]
    dist.all_gather(parts, mine)
    mean: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    # Not by a callback: gloo's threads would still hold Python objects when the process ends, and abort it.
    mean.set_result(functools.reduce(torch.add, parts).div_(size()))
    return mean


def mean(value: float) -> float:
    """Average a number over all processes; every process must ask."""
    if size() == 1:
        return value
    import torch
    import torch.distributed as dist

    total = torch.tensor(value, device=device(), dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / size()


def copy_from_leader(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors by those of process 0; every process must ask, for all in the same order."""
    for tensor in tensors if size() > 1 else ():
        _get_group().broadcast(tensor, 0)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Every N-th item, of N processes, from this one's number on; there are as many items or more."""
    if size() == 1:
        return items
    from monai.data.utils import partition_dataset

    parts: list[list[Item]] = partition_dataset(items, num_partitions=size())
    return parts[rank()]


def from_leader(value: Any) -> Any:
    """The value that process 0 has; every process must ask."""
    if size() == 1:
        return value
    box = [value]
    _get_group().broadcast_object_list(box)
    return box[0]


def to_leader(value: Any) -> list[Any]:
    """The values of all processes, by rank, on process 0; nothing on the others. Every process must ask."""
    if size() == 1:
        return [value]
    values: list[Any] | None = [None] * size() if rank() == 0 else None
    _get_group().gather_object(value, values)
    return values or []


@contextmanager
def worker() -> Iterator[None]:
    """Join the other processes when this one was launched as one of several; else do nothing.

    Uses NCCL where there are GPUs and gloo elsewhere. Under torchrun a failure is handed to the parent, which
    reports it once for all; this process then only exits, with the failure's code. A process that only lost
    another one leaves it to torchrun to name that one.

    Raises:
        UsageError: when the process has a rank, and no address of the process to meet.
    """
    if not is_launched():
        yield
        return
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(
            f"RANK and WORLD_SIZE are set in the environment, and {' and '.join(missing)} not",
            "start several processes with torchrun or --processes; for one, `unset RANK WORLD_SIZE`",
        )
    try:
        with exit_with_parent(), _process_group():
            yield
    except Exception as error:
        if _lost_another(error):
            time.sleep(LOST_SECONDS)
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            raise
        _record_failure(error, Path(os.environ["TORCHELASTIC_ERROR_FILE"]))
        raise SystemExit(getattr(error, "exit_code", 1)) from None


def _record_failure(error: Exception, path: Path) -> None:
    """Write an error as torchrun reads it, and with it the hint and the exit code."""
    known = isinstance(error, DBTBenchError)
    message = {
        "message": str(error) if known else f"{type(error).__name__}: {error}",
        "hint": getattr(error, "hint", ""),
        "exit_code": getattr(error, "exit_code", 1),
        "extraInfo": {"py_callstack": traceback.format_exc(), "timestamp": str(int(time.time()))},
    }
    write_text(path, json.dumps({"message": message}))


@contextmanager
def _process_group() -> Iterator[None]:
    import torch
    import torch.distributed as dist
    from monai.utils.dist import RankFilter

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    leader = RankFilter()
    log.addFilter(leader)
    try:
        yield
    finally:
        log.removeFilter(leader)
        dist.destroy_process_group()


@contextmanager
def leader_progress(title: str, total: int, unit: str = "volumes", done: int = 0) -> Iterator[Advance]:
    """`dbtbench.runtime.progress.progress` on process 0; the others say nothing."""
    if rank() > 0:
        yield lambda n=1, note="": None
        return
    with progress(title, total, unit, done) as advance:
        yield advance


def _lost_another(error: Exception) -> bool:
    """Whether an exchange between processes failed; gloo has no class of errors of its own."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def launch(
    processes: int,
    argv: Sequence[str],
    program: Sequence[str] = ("-m", "dbtbench"),
    max_restarts: int = 0,
) -> None:
    """Run a program again in several processes under torchrun, and wait for it.

    Nothing is pickled: each process reads the same arguments, and `worker` connects them.

    Args:
        processes: how many.
        argv: the program's arguments.
        program: what `python` runs.
        max_restarts: how often all are started again after one failed.

    Raises:
        DBTBenchError: when a process fails, naming the first one that did; with the exit code and the hint
            of its error.
        KeyboardInterrupt: when interrupted; the processes are stopped first.
        Terminated: when SIGTERM came; the processes get it and are waited for.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Else `python -m` would import what lies in the current folder, and so whatever somebody put there.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Else the processes of a second attempt find each other's addresses of the first in torchrun's own store.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # Its log repeats every process's exit and signal; the error below says it once.
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={max_restarts}"]
    asked = parse_args([*options, *program])  # type: ignore[no-untyped-call]
    asked.training_script_args += argv  # parsed with the rest, `--n` would be taken for an option of torchrun
    try:
        run(asked)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode == TERMINATED:
            raise Terminated from error
        # A dictionary (annotated as text) where `worker` recorded an exception, text where it was killed.
        message: Any = failure.message
        record = message if isinstance(message, dict) else {"message": message}
        kind = ERRORS.get(record.get("exit_code", 1), DBTBenchError)
        raise kind(
            f"rank {number} of {processes} processes failed: {record['message'].splitlines()[0]}",
            record.get("hint")
            or "the same command continues; with --debug, or on one process, it shows where",
        ) from error
    except SignalException as error:
        raise (KeyboardInterrupt if error.sigval == signal.SIGINT else Terminated) from error
