"""Handling of SIGTERM, which a cluster sends before it kills: finished work is kept; the exit code is 143."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dbtbench.runtime.progress import log

TERMINATED = 128 + signal.SIGTERM
"""Exit code, by the convention of shells."""

WATCH_SECONDS = 0.5


class Terminated(SystemExit):
    """The exception for SIGTERM; finished work is kept."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@contextmanager
def handle_sigterm(quiet: bool = False) -> Iterator[None]:
    """Let SIGTERM unwind the program, and log that the same command continues.

    Args:
        quiet: do not log it, because another process does.

    Raises:
        Terminated: when SIGTERM came.
    """
    try:
        with _handle_with(_raise):
            yield
    except Terminated:
        if not quiet:
            log.info("terminated: the same command continues")
        raise


@contextmanager
def defer_sigterm() -> Iterator[Callable[[], bool]]:
    """Put SIGTERM off; yield a function that returns whether it has come.

    Raises:
        Terminated: at the end, when SIGTERM came; also instead of an error, since after SIGTERM the usual
            error is that other processes have left.
    """
    came = threading.Event()
    try:
        with _handle_with(lambda *_: came.set()):
            yield came.is_set
    finally:
        if came.is_set():
            raise Terminated


@contextmanager
def _handle_with(handler: Callable[..., Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(*_: object) -> None:
    raise Terminated


@contextmanager
def exit_with_parent() -> Iterator[None]:
    """End this process when its parent is gone: torchrun's workers get no signal when it is killed."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if os.getppid() != parent:
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
