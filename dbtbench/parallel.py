"""The same work on many items: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from dbtbench.errors import MissingError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items given out for each worker, so that none waits for its next one."""
SECONDS = 10
"""How long a Dask scheduler may take to answer."""


class Pool:
    """Workers for `run`; used in a `with` statement.

    Args:
        jobs: how many processes; with 1 the work is done in this one.
        dask: address of a Dask scheduler, `tcp://HOST:PORT`; its workers are used instead of own processes.

    Raises:
        UsageError: for a number of processes below 1.
        MissingError: when `distributed` is not installed or no scheduler answers.
    """

    def __init__(self, jobs: int = 1, dask: str | None = None) -> None:
        if jobs < 1:
            raise UsageError(f"{jobs} jobs are too few", "use --jobs 1 or more")
        self.jobs = jobs
        self._client = _connect(dask) if dask else None

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
        they are tried once more, one by one, and what kills its process again is given up. Dask itself gives
        a dead worker's items to others, and gives up what has killed several.

        Args:
            function: one that can be imported by its name, or a `functools.partial` of one.
            items: each is pickled.

        Yields:
            The item and what the function returned; None where its worker died.

        Raises:
            Exception: whatever `function` raises; nothing more is begun then.
        """
        if self._client is not None:
            yield from _on_cluster(self._client, function, items)
        elif self.jobs == 1:
            yield from ((item, function(item)) for item in items)
        else:
            for suspect in (yield from _in_processes(function, items, self.jobs)):
                for lost in (yield from _in_processes(function, [suspect], 1)):
                    yield lost, None


def _in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Generator[tuple[Item, Result], None, list[Item]]:
    """Results of all items but those that were given out when a process died; these are returned."""
    waiting, lost = deque(items), list[Item]()
    while waiting:
        running: dict[Future[Result], Item] = {}
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(jobs, len(waiting)), context, _begin)
        try:
            yield from _results(executor, function, waiting, running, AHEAD * jobs)
        except BrokenProcessPool:
            lost += running.values()
        finally:
            executor.shutdown(cancel_futures=True)
    return lost


def _on_cluster(
    client: Any, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result | None]]:
    from distributed import KilledWorker

    ahead = AHEAD * max(sum(client.nthreads().values()), 1)
    executor = client.get_executor(pure=False)
    try:
        yield from _results(executor, function, deque(items), {}, ahead, KilledWorker)
    finally:
        executor.shutdown(wait=False)


def _results(
    executor: Executor,
    function: Callable[[Item], Result],
    waiting: deque[Item],
    running: dict[Future[Result], Item],
    ahead: int,
    given_up: type[Exception] | tuple[()] = (),
) -> Iterator[tuple[Item, Any]]:
    """Keep `ahead` items given out; None is the result of one that ended with the exception `given_up`."""
    while waiting or running:
        while waiting and len(running) < ahead:
            running[executor.submit(function, waiting[0])] = waiting[0]
            waiting.popleft()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            try:
                result = future.result()
            except given_up:
                result = None
            yield running.pop(future), result


def _begin() -> None:
    """Leave Ctrl-C to the parent, and die with it: an orphan would wait for its next item for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
        return Client(address, timeout=SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise MissingError(
            f"no Dask scheduler answers at {address}: {error}",
            "start one with `dask scheduler` and its workers with `dask worker tcp://HOST:PORT`",
        ) from error
