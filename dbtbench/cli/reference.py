"""The reference of the command line: `python -m dbtbench.cli.reference > docs/commands.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from dbtbench.cli import app

HEAD = """\
# Commands

Written by `python -m dbtbench.cli.reference > docs/commands.md` from what `--help` prints. Every command also
takes `-h` or `--help`, and `--debug`, which shows the traceback of an error. Results go to stdout, progress
and log to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is missing (data, plug-in,
device), 4 out of date or not comparable, 130 interrupted, 141 the reader of the output has gone, 143
terminated.
"""


def write_reference() -> str:
    """Describe every command with its arguments and options, as Markdown."""
    return "\n".join([HEAD, *_describe(typer.main.get_command(app), "dbtbench")])


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk through a command and all below it, each with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def _describe(root: Any, name: str) -> Iterator[str]:
    for path, command in commands(root, name):
        shown = [p for p in command.params if p.name != "help"]
        arguments = [p for p in shown if p.param_type_name == "argument"]
        names = [_name(p) if p.required else f"[{_name(p)}]" for p in arguments]
        yield f"## {' '.join([path, *names])}\n"
        yield re.sub("Example: (.+)", r"Example: `\1`", command.help.replace("<", "&lt;")) + "\n"
        for parameter in shown:
            yield f"- {_line(parameter)}"
        if shown:
            yield ""


def _line(parameter: Any) -> str:
    """One parameter: how it is typed, what it is, and whether it is needed or what it is by default."""
    if parameter.param_type_name == "argument":
        typed = _name(parameter)
    else:
        typed = parameter.opts[0] + ("" if parameter.is_flag else f" {_name(parameter)}")
    known = parameter.default is not None and parameter.default is not False and not parameter.required
    note = " Required." if parameter.required else f" Default: `{parameter.default}`." if known else ""
    return f"`{typed}`: {(parameter.help or '').rstrip('.')}.{note}"


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.opts[0].lstrip("-").upper())


if __name__ == "__main__":
    typer.echo(write_reference(), nl=False)
