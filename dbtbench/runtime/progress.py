"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dbtbench.runtime.text import find_terminal, one_line, printable_output

PLAIN_SECONDS = 10.0

Advance = Callable[..., None]
"""`advance(n=1, note="")`: n more units are done; the note is shown next to the bar."""


log = logging.getLogger("dbtbench")
"""The log of dbtbench. It goes to stderr, unless a program that uses the package gives it another handler.
Of several processes that train together, process 0 alone writes it."""


class _Stderr(logging.Handler):
    """A handler that looks up `sys.stderr` for each message: a run in a sweep has a file of its own there."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(one_line(self.format(record)) + "\n")
        sys.stderr.flush()


log.addHandler(_Stderr())
log.setLevel(logging.INFO)
log.propagate = False


@contextmanager
def progress(title: str, total: int, unit: str = "volumes", done: int = 0) -> Iterator[Advance]:
    """Show the progress of a long piece of work.

    Args:
        title: name of the work.
        total: number of units in all.
        unit: name of the units.
        done: units that an earlier run finished.
    """
    with (_bar if sys.stderr.isatty() else _lines)(title, total, unit, done) as advance:
        yield advance


@contextmanager
def _bar(title: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(one_line(unit), markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # The bar controls the terminal; what others print while it is shown does not.
    with Progress(*columns, console=Console(file=find_terminal(sys.stderr))) as bar, printable_output():
        task = bar.add_task(one_line(title), total=total, completed=done, note="")

        def advance(n: int = 1, note: str = "") -> None:
            bar.update(task, advance=n, note=one_line(note))

        yield advance


@contextmanager
def _lines(title: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    first = done

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            log.info(f"{title}: {done}/{total} {unit}, about {left:.0f} s left{', ' + note if note else ''}")

    yield advance
    if done > first:
        log.info(f"{title}: {done}/{total} {unit} in {time.monotonic() - start:.1f} s")
