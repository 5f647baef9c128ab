"""Every verb, killed at its k-th file operation and started again, ends with the bytes of an undisturbed run.

So it does after a failure of the power there, whatever that leaves of what was not synced (`crashes`).
Operations are counted by an audit hook, so that nothing depends on time. Each run is a fork of one process
that has imported everything, and what SIGKILL or the power leaves is taken from one run for all points, which
makes hundreds of them affordable. A few are tried by pytest; more by

    python tests/test_kill_points.py VERB... [--points 200] [--by POWER] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes import Act, Run, Taking, digest_state, run, take_snapshot
from torch import nn

from dbtbench.runtime import files
from dbtbench.training import loop
from dbtbench.training.recipe import TrainingRecipe

HERE = ["--workspace", "work"]
PHANTOM = ["data", "phantom", "--out", "collection", "--preset", "tiny", "--patients", "4", "--seed", "1"]
SIX = ["data", "phantom", "--out", "collection", "--preset", "tiny", "--patients", "6"]
"""With so many, there are lesions to be learned and to be found."""
IMPORT = ["data", "import", "bcs-dbt", "collection", "--name", "d", "--jobs", "1", *HERE]
CLASSIC = ["generate", "classic", "--data", "d", "--n", "12", *HERE]
EXPORT = ["data", "export", "--data", "d", "--out", "out", *HERE, "--format"]
EVALUATE = ["evaluate", "--data", "d", "--jobs", "1", *HERE, "--task"]
TRAINED = ["--recipe", "smoke", "--set", "steps=3", "--seeds", "1", "--arms", "real"]
REALISM = [*EVALUATE, "realism", "--aug", "classic"]
BOARD = ["leaderboard", *HERE]
DRAWN = [PHANTOM, IMPORT, CLASSIC]
SECOND = [
    [*CLASSIC, "--seed", "1", "--name", "second"],
    [*EVALUATE, "realism", "--aug", "second"],
    ["leaderboard", "--results", "other/results", *HERE],
]
"""Runs that only the second of two boards has."""
VERBS: dict[str, list[list[str]]] = {
    "phantom": [[*PHANTOM, "--patients", "1"]],
    "import": [PHANTOM, IMPORT],
    "import-fresh": [PHANTOM, IMPORT, [*IMPORT, "--fresh"]],
    "classic": [PHANTOM, IMPORT, CLASSIC],
    "classic-fresh": [*DRAWN, [*CLASSIC, "--fresh"]],
    "ddpm": [
        PHANTOM,
        IMPORT,
        ["generate", "ddpm", "--data", "d", "--recipe", "smoke", "--set", "steps=4", "--n", "4", *HERE],
    ],
    "realism": [*DRAWN, REALISM],
    "detection": [SIX, IMPORT, [*EVALUATE, "detection", *TRAINED]],
    "classification": [SIX, IMPORT, [*EVALUATE, "classification", *TRAINED]],
    "leaderboard": [*DRAWN, REALISM, BOARD],
    "add": [*DRAWN, REALISM, BOARD, *SECOND, ["leaderboard", "add", "other/results/runs", *HERE]],
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
    "sheet": [PHANTOM, IMPORT, ["data", "info", "--data", "d", "--sheet", "sheet.png", *HERE]],
}
"""For each verb the commands that come first, and then the one that fails."""
POWER = "POWER"
WAYS = ("SIGKILL", "SIGTERM", POWER)
AGAIN = 1 / 4
"""Share of the runs that fail a second time, at any operation of the next run."""


@dataclass
class Outcome:
    """The figures of one verb and one way to fail.

    Attributes:
        operations: file operations of an undisturbed run.
        points: operations at which it failed; at some of them the next run failed too.
        states: different folders that were left; what follows from one is found out once.
        identical: points after which the next run ended with the bytes of an undisturbed one.
        differing: for the others that ended well, the operations and the files.
        failed: the operations, exit code and last words of next runs that failed.
        ends: how runs that were killed by a signal ended, and how often.
        leftovers: files that an undisturbed run does not leave, and how often.
    """

    verb: str
    operations: int = 0
    points: int = 0
    states: int = 0
    identical: int = 0
    differing: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    leftovers: Counter[str] = field(default_factory=Counter)


def command(words: Sequence[str]) -> Act:
    """Make what runs one command line."""

    def act() -> None:
        from dbtbench.cli import main

        torch.set_num_threads(1)
        # The state of a training is kept after every line of its metrics, else after a minute.
        loop._Keeper.keep_when_due = loop._Keeper.keep  # type: ignore[method-assign]
        sys.argv = ["dbtbench", *words]
        main()

    return act


class Trial:
    """One verb, in a folder that every run sees under the same path.

    Args:
        act: the verb.
        work: an empty folder for the runs.
        way: how it fails, one of `WAYS`.
        seed: of what a failure of the power leaves.
    """

    def __init__(self, act: Act, work: Path, way: str, seed: int) -> None:
        self.act, self.work, self.way, self.seed = act, work, way, seed
        self.here, self.log = work / "here", work / "log"
        self.ends = Counter[str]()

    def run(self, begin: Path, **how: Any) -> Run:
        """Run it in a copy of a folder."""
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(begin, self.here)
        return run(self.act, self.here, self.log, **how)

    def fail(self, begin: Path, points: Sequence[int]) -> Iterator[tuple[int, Path]]:
        """Let it fail at operations; give each with the folder that is left, which the taker removes."""
        left = Path(tempfile.mkdtemp(dir=self.work))
        if self.way == "SIGTERM":  # the process does something before it ends
            for point in points:
                end = self.run(begin, kill_at=point, kill_by=signal.SIGTERM).end
                self.ends[str(end)] += 1
                yield point, self.here.rename(left / str(point))
        else:
            self.run(begin, taking=Taking(set(points), left, self.way == POWER, self.seed))
            for point in points:
                if (left / str(point)).is_dir():  # else this run has fewer operations
                    yield point, left / str(point)
        left.rmdir()


def try_points(verb: str, act: Act, before: Path, work: Path, points: int, way: str, seed: int) -> Outcome:
    """Let something fail at a number of its file operations, and compare what the next run makes of it.

    Args:
        verb: its name.
        act: see `Trial`.
        before: the folder as it is before.
        work: see `Trial`.
        points: how many operations are drawn, all when there are fewer.
        way: see `Trial`.
        seed: of all that is drawn.
    """
    draw, found, trial = random.Random(seed), Outcome(verb), Trial(act, work, way, seed)
    undisturbed = trial.run(before)
    assert undisturbed.end == 0, trial.log.read_text()
    import_all(undisturbed.modules)
    found.operations, whole = undisturbed.operations, take_snapshot(trial.here)
    chosen = draw.sample(range(1, found.operations + 1), min(points, found.operations))
    ends: dict[str, tuple[int | str, str, dict[str, str]]] = {}
    for first, state in trial.fail(before, sorted(chosen)):
        failures, found.points = [first], found.points + 1
        if draw.random() < AGAIN:
            for second, again in trial.fail(state, [draw.randint(1, found.operations)]):
                shutil.rmtree(state)
                again.rename(state)
                failures.append(second)
        key = digest_state(state)
        if key not in ends:
            end = trial.run(state).end
            ends[key] = (end, trial.log.read_text()[-300:], take_snapshot(trial.here) if end == 0 else {})
        shutil.rmtree(state)
        end, said, now = ends[key]
        if end != 0:
            found.failed.append((failures, end, said))
            continue
        differing = [file for file in whole if now.get(file) != whole[file]]
        found.identical += not differing
        if differing:
            found.differing.append((failures, differing[:4], len(differing)))
        found.leftovers.update(
            re.sub(r"[0-9a-f]{12}|\d{2,}", "N", file) for file in now.keys() - whole.keys()
        )
    found.states, found.ends = len(ends), trial.ends
    return found


def import_all(modules: Iterable[str]) -> None:
    """Import what a run imported, so that no other one has to."""
    for module in sorted(modules):
        with suppress(Exception):
            import_module(module)
    gc.collect()
    gc.freeze()  # else every fork copies what its garbage collection looks at


def try_verb(verb: str, work: Path, points: int, way: str, seed: int) -> Outcome:
    """Run the commands that come before a verb, once for all verbs that share them, and try its points."""
    *earlier, last = VERBS[verb]
    before = work / "begin"
    before.mkdir(parents=True, exist_ok=True)
    for number, words in enumerate(earlier, 1):
        name = _name_commands(earlier[:number])
        after, part = work / name, work / f"{name}.{os.getpid()}"
        if not after.is_dir():
            shutil.copytree(before, part)
            done = run(command(words), part, work / f"{name}.log")
            assert done.end == 0, (work / f"{name}.log").read_text()
            part.rename(after)
        before = after
    place = work / f"{verb}-{way}-{os.getpid()}"
    place.mkdir()
    try:
        return try_points(verb, command(last), before, place, points, way, seed)
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


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", POWER])
@pytest.mark.parametrize("verb", ["import", "classic", "npz"])
def test_a_verb_that_fails_ends_with_the_same_bytes(verb: str, way: str, work: Path) -> None:
    found = try_verb(verb, work, 2, way, seed=7)
    assert found.operations > 20
    assert found.points == found.identical == 2, found
    assert way != "SIGTERM" or (found.ends["143"] >= 2 and found.ends.keys() <= {"143", "0"})


def test_a_verb_that_waits_for_no_disk_is_found(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sync", lambda path: None)
    found = try_verb("npz", work, 6, POWER, seed=0)
    assert found.identical < found.points


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
    """Make no second try."""
    Path("begun").mkdir()
    Path("done").touch()


def write_without_sync() -> None:
    """Write as `write_text` does, and wait for no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", lambda path: None)
        for name in ("a", "b", "c"):
            if not Path(name).exists():
                files.write_text(Path(name), name)


def write_well() -> None:
    """Write with `write_text`."""
    for name in ("a", "b", "c"):
        if not Path(name).exists():
            files.write_text(Path(name), name)


def train() -> None:
    """Train a small network."""
    torch.manual_seed(0)

    def loss(net: nn.Module, context: loop.StepContext) -> torch.Tensor:
        x = torch.rand(4, 3, generator=context.generator)[context.part]
        error: torch.Tensor = net(x)[:, 0] - x.sum(1)
        return error.square().mean()

    recipe = TrainingRecipe(steps=5, batch=4, micro_batch=4, lr=1e-2, warmup=0, ema=0.9)
    loop.fit(nn.Linear(3, 1), loss, recipe, Path("training"), seed=0, checkpoint_seconds=0)


@pytest.mark.parametrize(
    ("act", "way", "found_as"),
    [
        (write_carelessly, "SIGKILL", "differing"),
        (fail_if_half_done, "SIGKILL", "failed"),
        (write_without_sync, "SIGKILL", "identical"),
        (write_without_sync, POWER, "differing"),
        (write_well, POWER, "identical"),
        (train, POWER, "identical"),
    ],
)
def test_what_does_not_survive_is_found(tmp_path: Path, act: Act, way: str, found_as: str) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "work").mkdir()
    found = try_points("planted", act, tmp_path / "before", tmp_path / "work", 99, way, 0)
    assert found.points == found.operations
    assert (found.identical == found.points) == (found_as == "identical")
    assert bool(found.differing) == (found_as == "differing")
    assert bool(found.failed) == (found_as == "failed")
    assert act is not train or not found.leftovers


def test_what_a_kill_leaves_is_what_is_taken_without_one(tmp_path: Path) -> None:
    for name in ("before", "work"):
        (tmp_path / name).mkdir()
    trial = Trial(write_carelessly, tmp_path / "work", "SIGKILL", 0)
    for point, state in trial.fail(tmp_path / "before", [1, 2, 3, 4, 5, 6]):
        assert trial.run(tmp_path / "before", kill_at=point).end == "SIGKILL"
        assert digest_state(state) == digest_state(trial.here)
        shutil.rmtree(state)


def main() -> None:
    """Try verbs, and print the figures of each as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verbs", nargs="+", choices=VERBS, metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--by", default="SIGKILL", choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="Folder for what comes before, to be shared by several calls."
    )
    chosen = parser.parse_args()
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # `data phantom` makes no other process
    for module in ("monai", "torchio", "zarr", "sklearn", "scipy.stats", "dbtbench.cli"):
        import_module(module)  # once, for every fork
    well = True
    with tempfile.TemporaryDirectory() as made:
        work = (chosen.keep or Path(made)).resolve()
        for verb in chosen.verbs:
            found = try_verb(verb, work, chosen.points, chosen.by, chosen.seed)
            well &= found.identical == found.points
            sys.stdout.write(json.dumps({"by": chosen.by, **vars(found)}) + "\n")
            sys.stdout.flush()  # else the next fork writes it too
    sys.exit(not well)


if __name__ == "__main__":
    main()
