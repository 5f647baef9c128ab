"""Processes and devices: which GPUs there are, training on several of them under torchrun, or on the CPU.

Everything else asks `device()`, `rank()` and `size()` and works the same on one process and on many.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from dbtbench.errors import DBTBenchError, MissingError


def rank() -> int:
    """Number of this process, from 0; process 0 alone writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Where this process computes: its own GPU where there is one, else the CPU."""
    if dist.is_initialized():
        from monai.utils.dist import get_dist_device

        return torch.device(get_dist_device())  # type: ignore[no-untyped-call]
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """Mixed precision where it pays: bfloat16 on a GPU, float32 on the CPU."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda")


def check_gpus(gpus: int) -> None:
    """Check that so many GPUs are there; 0 hides them all, so that this process computes on the CPU.

    Raises:
        MissingError: when fewer are visible.
    """
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    visible = torch.cuda.device_count()
    if visible < gpus:
        one = "`--gpus 1` trains the same global batch by accumulation, " if visible and gpus > 1 else ""
        noun = "GPU" if gpus == 1 else "GPUs"
        raise MissingError(
            f"{gpus} {noun} asked for, {visible} visible", f"{one}`--gpus 0` computes on the CPU"
        )


def launched() -> bool:
    """Whether torchrun (or accelerate, or torchx) started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def worker() -> Iterator[None]:
    """Join the other processes when this one was launched as one of several; else do nothing.

    Uses NCCL where there are GPUs and gloo elsewhere. Under torchrun a failure is handed to the parent, which
    reports it once for all; this process then only exits, with the failure's code.
    """
    if not launched():
        yield
        return
    try:
        with _process_group():
            yield
    except Exception as error:
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            raise
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
        raise SystemExit(getattr(error, "exit_code", 1)) from None


@contextmanager
def _process_group() -> Iterator[None]:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def launch(processes: int, argv: Sequence[str], program: Sequence[str] = ("-m", "dbtbench")) -> None:
    """Run a program again in several processes under torchrun, and wait for it.

    Nothing is pickled: each process reads the same arguments, and `worker` connects them.

    Args:
        processes: how many.
        argv: the program's arguments.
        program: what `python` runs.

    Raises:
        DBTBenchError: when a process fails: the first one that did, and why.
        KeyboardInterrupt: when interrupted; the processes are stopped first.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Its log repeats every process's exit; the error below says it once.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(parse_args(["--standalone", f"--nproc-per-node={processes}", *program, *argv]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        # A dictionary (annotated as text) where `worker` recorded an exception, text where it was killed.
        message: Any = failure.message
        cause = message["message"] if isinstance(message, dict) else message
        raise DBTBenchError(
            f"rank {number} of {processes} processes failed: {cause.splitlines()[0]}",
            "run it again with --debug, or --gpus 1, to see where",
        ) from error
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise DBTBenchError(f"stopped by {error.sigval.name}", "run it again: it continues") from error
