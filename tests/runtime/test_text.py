"""Text that came from a file controls no terminal, wherever it is printed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from dbtbench import cli
from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.runtime.progress import log, progress
from dbtbench.runtime.text import PrintableStream, one_line, printable, printable_output

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\r\u202eback\u2066\x7f\x00"


def find_controls(text: str) -> list[str]:
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c not in "\n\t\xad"
    ]


def test_controls_are_written_out() -> None:
    assert printable("a\x1b[31m\x9b\u202e\ud800") == "a\\x1b[31m\\x9b\\u202e\\ud800"
    assert printable("plain é × ≥ 日本\n\tnext") == "plain é × ≥ 日本\n\tnext"
    assert one_line("one\nerror: two\t") == "one\\nerror: two\\t"
    assert find_controls(HOSTILE)


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_is_left(text: str) -> None:
    left = set(find_controls(printable(text)))
    assert not {c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert not left & {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u200b\ufeff"}
    printable(text).encode()


def test_what_is_printed_warned_logged_or_traced_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    with printable_output():
        typer.echo(HOSTILE)
        sys.stdout.writelines([HOSTILE])
        sys.stderr.write(warnings.formatwarning(HOSTILE, UserWarning, "file", 1))
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            import traceback

            traceback.print_exc()
    log.warning(f"two\nlines {HOSTILE}")  # a program that uses the package has the streams as they are
    said = "".join(capsys.readouterr())
    assert said.count("\\x1b]0;owned") == 5
    assert "two\\nlines" in said
    assert not find_controls(said)


def test_a_stream_is_else_as_it_was() -> None:
    below = io.StringIO()
    stream = PrintableStream(below)
    assert (stream.write("\x1b"), stream.isatty(), below.getvalue()) == (1, False, "\\x1b")


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_bar_controls_the_terminal_and_its_words_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "600")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, terminal := Terminal())
    with printable_output(), progress(f"title {HOSTILE} [link=x]", 2, f"unit {HOSTILE}") as advance:
        advance(note=f"note {HOSTILE} [bold]")
        sys.stderr.write(f"printed {HOSTILE}\n")
        log.info(f"logged {HOSTILE}")
    shown = terminal.getvalue()
    assert "\x1b[" in shown  # the bar's own
    for words in ("]0;owned", "\x1b[31mred", "\x9b2J", "\u202e", "\x07"):
        assert words.replace("]0;", "\x1b]0;") not in shown
    for words in ("title \\x1b", "note \\x1b", "printed \\x1b", "logged \\x1b", "[link=x]", "[bold]"):
        assert words in shown


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_is_two_lines_of_printable_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: list[str]
) -> None:
    def fail(**_: object) -> None:
        raise DBTBenchError(f"bad {HOSTILE}\nnext: curl", f"run {HOSTILE}\nthat")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["dbtbench", *debug])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert not find_controls(said)
    assert ("Traceback" in said) == bool(debug)
    error, hint = said.splitlines()[-2:]
    assert error.startswith("error: bad \\x1b]0;owned")
    assert hint.startswith("hint: run \\x1b]0;owned")


@pytest.mark.parametrize(
    "words", [["list"], ["list", "--json"], ["data", "info"], ["data", "check"], ["evaluate", "--task"]]
)
def test_a_data_set_and_a_run_of_somebody_else_control_no_terminal(
    toy: DBTDataset, tmp_path: Path, words: list[str]
) -> None:
    folder = tmp_path / "datasets" / "toy"
    folder.mkdir(parents=True)
    for file in ("cases.csv", "boxes.csv"):
        (folder / file).write_bytes((toy.path / file).read_bytes())
    meta = json.loads((toy.path / "dataset.json").read_text())
    for part, key in ((meta, "name"), (meta["intensity"], "window"), (meta["source"], "kind")):
        part[key] = HOSTILE + "\nerror: forged"
    (folder / "dataset.json").write_text(json.dumps(meta))
    run = tmp_path / "evaluations" / "realism" / "0123456789ab"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"arm": HOSTILE + "\nforged", "seed": 1}))
    words = [*words, HOSTILE] if words[0] == "evaluate" else words
    command = [sys.executable, "-m", "dbtbench", *words, "--workspace", str(tmp_path)]
    if HOSTILE in command:
        command = [word.replace("\x00", "") for word in command]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=tmp_path
    )
    said = done.stdout + done.stderr
    assert "owned" in said
    assert not find_controls(said)
    assert not [line for line in said.splitlines() if line.startswith(("forged", "error: forged"))]
