"""Text for a terminal: what came from a file, a table or a plug-in never controls it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Controls but line feed and tab, signs that turn or hide text, and halves of a character."""


def printable(text: str) -> str:
    r"""Write out what a terminal would obey, or hide: an escape becomes the four characters `\x1b`."""
    return _UNPRINTABLE.sub(_write_out, text)


def one_line(text: str) -> str:
    """Do the same with line feeds and tabs: one row, or one message, stays one."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _write_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


class PrintableStream:
    """A stream that writes `printable` text, and is as the given one in everything else.

    Attributes:
        terminal: the given stream, for what may control it: a bar of progress.
    """

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        """Write text; gives the number of characters that were given."""
        self.terminal.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` write printable text: prints, warnings and tracebacks as well."""
    before = sys.stdout, sys.stderr
    make_output_printable()
    made = sys.stdout, sys.stderr
    try:
        yield
    finally:  # what somebody else put there meanwhile stays, as for a reader that has gone
        sys.stdout = before[0] if sys.stdout is made[0] else sys.stdout
        sys.stderr = before[1] if sys.stderr is made[1] else sys.stderr


def make_output_printable() -> None:
    """Do so until this process ends."""
    sys.stdout, sys.stderr = (cast("TextIO", PrintableStream(s)) for s in (sys.stdout, sys.stderr))


def find_terminal(stream: TextIO) -> TextIO:
    """The stream below those that write printable text."""
    while isinstance(stream, PrintableStream):
        stream = stream.terminal
    return stream
