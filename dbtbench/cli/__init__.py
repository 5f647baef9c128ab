"""The command line: one file per verb; nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from dbtbench.cli import (
    card,
    check_plugin,
    data,
    demo,
    doctor,
    evaluate,
    generate,
    leaderboard,
    listing,
    picture,
    report,
    score,
    show,
    study,
)
from dbtbench.errors import DBTBenchError, explain_file_error
from dbtbench.runtime.signals import handle_sigterm
from dbtbench.runtime.text import one_line, printable_output

INTERRUPTED = 130
CLOSED_PIPE = 128 + 13
"""Exit code of a command whose reader has gone, as `head` goes: that of SIGPIPE."""

app = typer.Typer(
    name="dbtbench",
    help="Does synthetic data help my tomosynthesis detector, and is it any good?",
    epilog="Start with `dbtbench demo`. --debug after any command shows the traceback of an error.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("picture")(picture.picture)
app.add_typer(leaderboard.app, name="leaderboard")
app.command("report")(report.report)
app.command("card")(card.card)
app.add_typer(study.app, name="study")
app.command("score")(score.score)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.command("check-plugin")(check_plugin.check_plugin)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from dbtbench.version import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors become two lines and an exit code, and no text controls the terminal."""
    with printable_output():
        _main()


def _main() -> None:
    # OpenMP's threads spin while they wait: next to other busy processes a training step took five
    # times as long. This many turns cost nothing on an idle machine (sleeping at once costs 70 %).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    arguments, stdout = sys.argv[1:], sys.stdout
    debug = "--debug" in arguments
    try:
        with handle_sigterm(quiet="RANK" in os.environ):  # torchrun's workers leave that line to their parent
            code = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False)
    except SystemExit:
        if sys.stdout is not stdout:  # typer met a closed pipe, and put something quiet in its place
            sys.exit(CLOSED_PIPE)
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()  # in printable text, which the interpreter's own would not be
        code = _report(error)
    if code == INTERRUPTED:
        typer.echo("interrupted: the same command continues", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _command(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "dbtbench"


def _report(error: Exception) -> int:
    """Print `error:` and `hint:`, and give the exit code."""
    if isinstance(error, OSError):
        error = explain_file_error(error) or error
    if isinstance(error, DBTBenchError):
        message, hint, code = str(error), error.hint, error.exit_code
    elif hasattr(error, "format_message"):  # what typer raises for a wrong command line
        message, hint, code = error.format_message(), f"see `{_command(error)} --help`", 2
        if message.startswith("Usage:"):  # a group of commands was named and none of them
            typer.echo(message, err=True)
            return code
    else:
        message = f"{type(error).__name__}: {error}"
        hint = "this is a defect in dbtbench (or in a plug-in); run with --debug and report it"
        code = 1
    typer.echo(f"error: {one_line(message).rstrip('.')}", err=True)
    if hint:
        typer.echo(f"hint: {one_line(hint)}", err=True)
    return code
