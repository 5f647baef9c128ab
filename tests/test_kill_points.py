"""Every verb, killed at its k-th file operation and started again, ends with the bytes of an undisturbed run.

The operation is counted by an audit hook, so that no kill depends on time. Each run is a fork of one process
that has imported everything, which makes hundreds of kills affordable. A few are made by pytest; more by

    python tests/test_kill_points.py VERB [--points 200] [--signal SIGTERM] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

Act = Callable[[], object]
HERE = ["--workspace", "work"]
PHANTOM = ["data", "phantom", "--out", "collection", "--preset", "tiny", "--patients", "6"]
IMPORT = ["data", "import", "bcs-dbt", "collection", "--name", "d", "--jobs", "1", *HERE]
CLASSIC = ["generate", "classic", "--n", "12", *HERE]
EXPORT = ["data", "export", "--data", "d", "--out", "out", *HERE, "--format"]
EVALUATE = ["evaluate", "--aug", "classic", "--jobs", "1", *HERE, "--task"]
TRAINED = ["--recipe", "smoke", "--seeds", "1", "--arms", "classic:normals-only"]
REALISM = [*EVALUATE, "realism"]
BOARD = ["leaderboard", *HERE]
ADDED = ["leaderboard", "add", "other/results/runs", *HERE]
DRAWN = [PHANTOM, IMPORT, CLASSIC]
VERBS: dict[str, list[list[str]]] = {
    "phantom": [[*PHANTOM[:-1], "2"]],
    "import": [PHANTOM, IMPORT],
    "import-fresh": [PHANTOM, IMPORT, [*IMPORT, "--fresh"]],
    "classic": [PHANTOM, IMPORT, CLASSIC],
    "classic-fresh": [*DRAWN, [*CLASSIC, "--fresh"]],
    "ddpm": [PHANTOM, IMPORT, ["generate", "ddpm", "--recipe", "smoke", "--n", "4", *HERE]],
    "realism": [*DRAWN, REALISM],
    "detection": [*DRAWN, [*EVALUATE, "detection", *TRAINED]],
    "classification": [*DRAWN, [*EVALUATE, "classification", *TRAINED]],
    "leaderboard": [*DRAWN, REALISM, BOARD],
    "dicom": [PHANTOM, IMPORT, [*EXPORT, "dicom"]],
    "nifti": [PHANTOM, IMPORT, [*EXPORT, "nifti"]],
    "npz": [PHANTOM, IMPORT, [*EXPORT, "npz"]],
    "volumes": [
        PHANTOM,
        IMPORT,
        [*EXPORT, "npz", "--split", "train"],
        ["data", "import", "volumes", "out", "--name", "mine", "--data", "d", *HERE],
    ],
    "picture": [*DRAWN, ["picture", "picture.png", "--aug", "classic", *HERE]],
    "sheet": [PHANTOM, IMPORT, ["data", "info", "--sheet", "sheet.png", *HERE]],
    "add": [*DRAWN, REALISM, BOARD, ["MOVE", "work/results", "other/results"], ADDED],
}
"""For each verb the commands that come first, and then the one that is killed."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
TIMES = {"seconds", "created", "per_second", "volumes_per_second", "steps_per_second", "time", "sha256"}
LIMIT = 400
"""Seconds that a run may take before it counts as hanging."""


@dataclass
class Outcome:
    """The figures of one verb.

    Attributes:
        operations: file operations of an undisturbed run.
        kills: runs that were killed, some of them twice.
        identical: those after which the next run ended with the bytes of an undisturbed one.
        differing: for the others that ended well, the operation and the files.
        failed: the operation, exit code and last words of next runs that failed.
        ends: how the killed runs ended, and how often.
        leftovers: files that an undisturbed run does not leave, and how often.
    """

    verb: str
    operations: int = 0
    kills: int = 0
    identical: int = 0
    differing: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    leftovers: Counter[str] = field(default_factory=Counter)


def run(
    act: Act, folder: Path, log: Path, kill_at: int = 0, kill_by: signal.Signals = signal.SIGKILL
) -> tuple[int | str, int]:
    """Run something in a fork that works in a folder.

    Args:
        act: to be done there.
        folder: operations below it are counted.
        log: takes its output.
        kill_at: the file operation, from 1, right before which it is killed; 0 never.
        kill_by: the signal.

    Returns:
        How it ended (exit code, or the signal), and its number of file operations.
    """
    log.unlink(missing_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child(act, folder, log, kill_at, kill_by, writing)
    os.close(writing)
    limit, done, status = time.monotonic() + LIMIT, 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return "hangs", 0
        time.sleep(0.01)
    counted = int(os.read(reading, 20) or b"0")
    os.close(reading)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name, counted
    return os.WEXITSTATUS(status), counted


def _be_the_child(
    act: Act, folder: Path, log: Path, kill_at: int, kill_by: signal.Signals, report: int
) -> None:
    code: Any = 99
    try:
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        counted, me = 0, os.getpid()

        def count(event: str, arguments: Any) -> None:
            nonlocal counted
            if (
                event not in ("open", *CHANGING)
                or os.getpid() != me
                or not isinstance(arguments[0], str | bytes | Path)
            ):
                return
            if event == "open" and not arguments[2] & WRITING:
                return
            path = os.fsdecode(arguments[0])
            if path.startswith("/") and not path.startswith(f"{folder}/"):
                return
            counted += 1
            if counted == kill_at:
                os.kill(me, kill_by)

        sys.addaudithook(count)
        act()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(report, str(counted).encode())
        os._exit(code)


def command(words: Sequence[str]) -> Act:
    """Make what runs one command line, or moves a folder."""

    def act() -> None:
        import torch

        from dbtbench.cli import main

        torch.set_num_threads(1)
        if words[0] == "MOVE":
            Path(words[2]).parent.mkdir(parents=True)
            Path(words[1]).rename(words[2])
            return
        sys.argv = ["dbtbench", *words]
        main()

    return act


def read_without_times(path: Path) -> bytes:
    """Read a file without the times that a run takes."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(_drop_times(json.loads(content))).encode()
    if path.suffix == ".jsonl":
        content = json.dumps([_drop_times(json.loads(line)) for line in content.splitlines()]).encode()
    if path.name == "leaderboard.csv":
        content = re.sub(rb",[\d.e-]+,20\d\d-\d\d-\d\d", b"", content)
    return content


def _drop_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_times(part) for key, part in value.items() if key not in TIMES}
    return value


def take_snapshot(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file below a folder, without times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(read_without_times(path)).hexdigest()
        for path in files
    }


def try_points(
    verb: str, act: Act, before: Path, work: Path, points: int, kill_by: signal.Signals, seed: int
) -> Outcome:
    """Kill something at a number of its file operations, and compare what the next run makes of it.

    Args:
        verb: its name.
        act: to be killed.
        before: the folder as it is before; it is copied.
        work: an empty folder for the runs, each of which sees the same path.
        points: how many operations are drawn, all when there are fewer.
        kill_by: the signal.
        seed: of the draw; a third of the runs are killed twice.
    """
    draw, found = random.Random(seed), Outcome(verb)
    here, log = work / "here", work / "log"

    def start_over() -> None:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(before, here)

    start_over()
    end, found.operations = run(act, here, log)
    assert end == 0, log.read_text()
    whole = take_snapshot(here)
    for first in sorted(draw.sample(range(1, found.operations + 1), min(points, found.operations))):
        start_over()
        kills = [first] + ([draw.randint(1, found.operations)] if draw.random() < 1 / 3 else [])
        for kill_at in kills:
            found.ends[str(run(act, here, log, kill_at, kill_by)[0])] += 1
        found.kills += 1
        end, _ = run(act, here, log)
        if end != 0:
            found.failed.append((kills, end, log.read_text()[-300:]))
            continue
        now = take_snapshot(here)
        differing = [file for file in whole if now.get(file) != whole[file]]
        found.identical += not differing
        if differing:
            found.differing.append((kills, differing[:4], len(differing)))
        found.leftovers.update(re.sub(r"[0-9a-f]{12}|\d{2,}", "N", file) for file in now if file not in whole)
    return found


def try_verb(verb: str, work: Path, points: int, kill_by: signal.Signals, seed: int) -> Outcome:
    """Run the commands that come before a verb, once for all verbs that share them, and try its points."""
    *earlier, last = VERBS[verb]
    before = work / "begin"
    before.mkdir(parents=True, exist_ok=True)
    for number, words in enumerate(earlier, 1):
        name = _name_commands(earlier[:number])
        after, part = work / name, work / f"{name}.{os.getpid()}"
        if not after.is_dir():
            shutil.copytree(before, part)
            end, _ = run(command(words), part, work / f"{name}.log")
            assert end == 0, (work / f"{name}.log").read_text()
            part.rename(after)
        before = after
    place = work / f"{verb}-{kill_by.name}-{os.getpid()}"
    place.mkdir()
    try:
        return try_points(verb, command(last), before, place, points, kill_by, seed)
    finally:
        shutil.rmtree(place)


def _name_commands(commands: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(commands).encode()).hexdigest()[:8]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, collection: Path) -> Path:
    """A folder where the first command is done already: it has a collection."""
    made = tmp_path_factory.mktemp("kills")
    shutil.copytree(collection, made / _name_commands([PHANTOM]) / "collection")
    return made


@pytest.mark.parametrize("kill_by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["import", "classic", "npz"])
def test_a_killed_verb_ends_with_the_same_bytes(verb: str, kill_by: signal.Signals, work: Path) -> None:
    found = try_verb(verb, work, 2, kill_by, seed=7)
    assert found.operations > 20
    assert found.kills == found.identical == 2, found
    assert sum(found.ends.values()) - found.ends["0"] > 0, found  # it really was killed


def write_carelessly() -> None:
    """Take any file that is there for a finished one."""
    for name in ("a", "b", "c"):
        if not Path(name).exists():
            with Path(name).open("w") as file:
                file.write(name)
                file.flush()
                Path(f"{name}.seen").touch()
                file.write(name)


def fail_if_half_done() -> None:
    Path("begun").mkdir()
    Path("done").touch()


def test_what_does_not_survive_is_found(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    for number, act in enumerate((write_carelessly, fail_if_half_done)):
        work = tmp_path / str(number)
        work.mkdir()
        found = try_points("planted", act, tmp_path / "before", work, 9, signal.SIGKILL, 0)
        assert found.ends["SIGKILL"]
        assert found.identical < found.kills
        assert bool(found.differing) == (act is write_carelessly)
        assert bool(found.failed) == (act is fail_if_half_done)


def main() -> None:
    """Try one verb, and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--signal", default="SIGKILL", choices=("SIGKILL", "SIGTERM", "SIGINT"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="Folder for what comes before, to be shared by several calls."
    )
    chosen = parser.parse_args()
    for module in ("monai", "torchio", "zarr", "sklearn", "scipy.stats", "dbtbench.cli"):
        import_module(module)  # once, for every fork
    with tempfile.TemporaryDirectory() as made:
        work = (chosen.keep or Path(made)).resolve()
        found = try_verb(chosen.verb, work, chosen.points, signal.Signals[chosen.signal], chosen.seed)
    sys.stdout.write(json.dumps({"signal": chosen.signal, **vars(found)}) + "\n")
    sys.exit(found.identical != found.kills)


if __name__ == "__main__":
    main()
