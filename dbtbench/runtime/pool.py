"""The same work on many items: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from dbtbench.errors import MissingError, UsageError
from dbtbench.runtime.text import make_output_printable
from dbtbench.version import __version__

_number = 0

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items given out for each worker, so that none waits for its next one."""
SECONDS = 10
"""Longest time that a Dask scheduler may take to answer."""
GUARD = 'put the call under `if __name__ == "__main__":`'
"""A script's other lines are run by every worker, before its first item."""


class Pool:
    """Workers for `run`; used in a `with` statement.

    A worker first imports the script that made the pool. So a script makes it under
    `if __name__ == "__main__":`, or each worker would make a pool of its own.

    Args:
        jobs: how many processes; with 1 the work is done in this one.
        dask: address of a Dask scheduler, `tcp://HOST:PORT`; its workers are used instead of own processes.

    Raises:
        UsageError: for a number of processes below 1, or in a worker that is importing the script.
        MissingError: when `distributed` is not installed, no scheduler answers, or its workers lack dbtbench.
    """

    def __init__(self, jobs: int = 1, dask: str | None = None) -> None:
        if jobs < 1:
            raise UsageError(f"{jobs} jobs are too few", "use --jobs 1 or more")
        if jobs > 1 and getattr(multiprocessing.current_process(), "_inheriting", False):
            raise UsageError("a worker ran the script that it was started from", GUARD)
        self.jobs = jobs
        self._client = _connect(dask) if dask else None

    @property
    def here(self) -> bool:
        """True when the work is done in this process."""
        return self._client is None and self.jobs == 1

    @property
    def threaded(self) -> bool:
        """True when several pieces of work may run in one process, as a Dask worker's threads do."""
        return self._client is not None and any(n > 1 for n in self._client.nthreads().values())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | None]]:
        """Call `function` on every item; results come as they are finished, in any order.

        A process that dies (killed, out of memory, a crash in a decoder) costs only the items it was given:
        they are tried once more, one by one, and what kills its process again is given up. (Dask itself tries
        an item on several workers first, and blames each item that a dead worker had.)

        Args:
            function: one that can be imported by its name, or a `functools.partial` of one.
            items: each is pickled.

        Yields:
            The item and what the function returned; None where its worker died.

        Raises:
            Exception: whatever `function` raises; nothing more is begun then.
            UsageError: when no process lived to begin, as in a script that makes its pool outside of
                `if __name__ == "__main__":`.
        """
        if self.here:
            yield from ((item, function(item)) for item in items)
            return
        for suspect in (yield from self._spread(function, items)):
            for lost in (yield from self._spread(function, [suspect])):
                yield lost, None

    def _spread(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[Item, Result], None, list[Item]]:
        if self._client is None:
            return (yield from _in_processes(function, items, self.jobs))
        return (yield from _on_cluster(self._client, function, items))


def _in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Generator[tuple[Item, Result], None, list[Item]]:
    """Results of all items but those that were given out when a process died; these are returned."""
    waiting, lost = deque(items), list[Item]()
    context = multiprocessing.get_context("spawn")
    while waiting:
        running: dict[Future[Result], Item] = {}
        begun = context.Value("i")
        executor = ProcessPoolExecutor(min(jobs, len(waiting)), context, _begin, (begun,))
        try:
            for item, future in _yield_finished(executor, function, waiting, running, AHEAD * jobs):
                yield item, future.result()
        except BrokenProcessPool as error:
            if not begun.value:
                raise UsageError(
                    "no worker process came to its first item", f"in a script, {GUARD}; else use --jobs 1"
                ) from error
            lost += running.values()
        finally:
            executor.shutdown(cancel_futures=True)
    return lost


def _on_cluster(
    client: Any, function: Callable[[Item], Result], items: Sequence[Item]
) -> Generator[tuple[Item, Result], None, list[Item]]:
    """Results of all items but those that Dask gave up; these are returned."""
    from distributed import KilledWorker

    lost = list[Item]()
    ahead = AHEAD * max(sum(client.nthreads().values()), 1)
    executor = client.get_executor(pure=False)
    try:
        for item, future in _yield_finished(executor, function, deque(items), {}, ahead):
            try:
                result = future.result()
            except KilledWorker:
                lost.append(item)
            else:
                yield item, result
    finally:
        executor.shutdown(wait=False)
    return lost


def _yield_finished(
    executor: Executor,
    function: Callable[[Item], Result],
    waiting: deque[Item],
    running: dict[Future[Result], Item],
    ahead: int,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Keep `ahead` items given out; `waiting` and `running` say at any time which are not done."""
    while waiting or running:
        while waiting and len(running) < ahead:
            running[executor.submit(function, waiting[0])] = waiting[0]
            waiting.popleft()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running[future], future
            del running[future]


def cores_or_gpus() -> int:
    """Count the pieces of heavy work that this machine does at a time: one per GPU, else one per core."""
    import torch
    from joblib import cpu_count

    gpus: int = torch.cuda.device_count()
    return gpus or int(cpu_count())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: sums in another order, on other cores, would have other last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def worker_number() -> int:
    """Number of this process among the workers of its pool, from 0; 0 in a process that is no worker."""
    return _number


def _begin(begun: Synchronized[int]) -> None:
    """Leave Ctrl-C to the parent, and die with it: an orphan would wait for its next item for ever."""
    global _number
    with begun.get_lock():
        _number = begun.value
        begun.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make_output_printable()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise MissingError(
            "a Dask cluster cannot be used: distributed is not installed", "pip install 'dbtbench[cluster]'"
        ) from None
    try:
        client: Any = Client(address, timeout=SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise MissingError(
            f"no Dask scheduler answers at {address}: {error}",
            "start one with `dask scheduler` and its workers with `dask worker tcp://HOST:PORT`",
        ) from error
    try:
        _check_workers(address, client)
    except BaseException:
        client.close()
        raise
    return client


def _check_workers(address: str, client: Any) -> None:
    """See that there are workers, and that they have this version: one that lacks it would never answer."""
    versions = set()
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=SECONDS)
    for worker in client.nthreads():
        asked = client.submit(importlib.metadata.version, "dbtbench", workers=[worker], pure=False)
        try:
            versions.add(asked.result(timeout=SECONDS))
        except importlib.metadata.PackageNotFoundError:
            versions.add("one has none")
        except TimeoutError:  # it died meanwhile
            continue
    if versions != {__version__}:
        raise MissingError(
            f"the workers of {address} need dbtbench {__version__}: "
            + (", ".join(sorted(versions)) or "no worker"),
            "start workers with `dask worker tcp://HOST:PORT`, each with this version installed",
        )
