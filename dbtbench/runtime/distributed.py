"""Processes and devices: which GPUs there are, and what the processes of one training exchange.

Everything else asks `device()`, `rank()` and `size()` and works the same on one process and on many.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dbtbench.errors import MissingError
from dbtbench.runtime.progress import Advance, progress

if TYPE_CHECKING:  # commands that train nothing need not wait for torch
    import torch
    from torch import nn

Item = TypeVar("Item")


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
    """The value that process 0 has, as JSON brings it: a tuple arrives as a list. Every process must ask."""
    return value if size() == 1 else _read(_all_texts(_write(value) if rank() == 0 else b"")[0])


def to_leader(value: Any) -> list[Any]:
    """The values of all processes, by rank, on process 0; nothing on the others. Every process must ask.

    They travel as JSON, as in `from_leader`.
    """
    if size() == 1:
        return [value]
    texts = _all_texts(_write(value))
    return [_read(text) for text in texts] if rank() == 0 else []


def _write(value: Any) -> bytes:
    return json.dumps(value).encode()


def _read(text: bytes) -> Any:
    return json.loads(text)


def _all_texts(mine: bytes) -> list[bytes]:
    """The bytes of every process, by rank, as tensors: torch's own exchange of objects unpickles."""
    import torch
    import torch.distributed as dist

    here = device()
    lengths = [torch.zeros(1, dtype=torch.int64, device=here) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(mine)], device=here))
    longest = max(1, *map(int, lengths))
    padded = torch.frombuffer(bytearray(mine.ljust(longest, b"\0")), dtype=torch.uint8).to(here)
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return [part[: int(length)].cpu().numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


@contextmanager
def leader_progress(title: str, total: int, unit: str = "volumes", done: int = 0) -> Iterator[Advance]:
    """`dbtbench.runtime.progress.progress` on process 0; the others say nothing."""
    if rank() > 0:
        yield lambda n=1, note="": None
        return
    with progress(title, total, unit, done) as advance:
        yield advance
