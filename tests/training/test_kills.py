"""Real processes, really killed: what they leave is continued to the same bits, and none stays behind."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dbtbench.errors import DBTBenchError
from dbtbench.runtime import launching
from dbtbench.runtime.signals import TERMINATED
from dbtbench.training.log import METRICS
from dbtbench.training.loop import STATE, WEIGHTS

STEPS = 60
PROGRAM = f"""
import os, signal, sys, time
from pathlib import Path

import torch
from torch import nn

from dbtbench.runtime import distributed, launching
from dbtbench.training.loop import fit
from dbtbench.training.recipe import TrainingRecipe
from dbtbench.runtime.signals import handle_sigterm

folder, step, victim, pause = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
recipe = TrainingRecipe(steps={STEPS}, batch=8, micro_batch=2, lr=1e-2, warmup=2, ema=0.9)

def network():
    torch.manual_seed(0)
    hidden = (nn.Linear(64, 64), nn.Dropout(0.1), nn.SiLU())
    return nn.Sequential(nn.Linear(4, 64), nn.SiLU(), *hidden, nn.Linear(64, 1))

def loss(net, context):
    time.sleep(pause)
    if context.step == step and distributed.rank() == victim and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.rand(8, 4, generator=context.generator)[context.part]
    return (net(x)[:, 0] - x.sum(1)).square().mean()

folder.mkdir(parents=True, exist_ok=True)
with handle_sigterm(quiet=distributed.is_launched()), launching.worker():
    (folder / f"{{distributed.rank()}}.pid").write_text(str(os.getpid()))
    fit(network(), loss, recipe, folder, seed=0, checkpoint_seconds=0)
"""
GAN = """
import os, signal, sys
from pathlib import Path

import torch
from torch import autograd, nn
from torch.nn import functional as F

from dbtbench.runtime import distributed, launching
from dbtbench.training.loop import Network, fit_networks
from dbtbench.training.recipe import TrainingRecipe

folder, step = Path(sys.argv[1]), int(sys.argv[2])
recipe = TrainingRecipe(steps=20, batch=8, micro_batch=2, lr=1e-2, ema=0.9)
torch.manual_seed(0)
hidden = (nn.Linear(16, 16), nn.Dropout(0.1), nn.SiLU())
critic = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), *hidden, nn.Linear(16, 1))
generator = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
generator.register_buffer("measured", torch.zeros(1))

def draw(context):
    real = 3 + torch.randn(8, 1, generator=context.generator)[context.part]
    return real, torch.randn(8, 2, generator=context.generator)[context.part]

def critic_loss(critic, context):
    real, noise = draw(context)
    scores, penalty = [], 0
    for x in (real, context.networks["generator"](noise)):
        scores.append(critic(x.requires_grad_()))
        (slope,) = autograd.grad(scores[-1].sum(), x, create_graph=True)
        penalty = penalty + slope.square().mean()
    return F.softplus(scores[1] - scores[0]).mean() + 0.05 * penalty

def generator_loss(generator, context):
    if context.step == step and distributed.rank() == 1 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    real, noise = draw(context)
    critic = context.networks["critic"]
    return F.softplus(critic(real) - critic(generator(noise))).mean()

def half(generator, context):
    return generator_loss(generator, context) / 2

def fitness(generator, context):
    return context.networks["critic"](generator(draw(context)[1])).mean()

def measure(networks):
    assert distributed.rank() == 0
    networks["generator"].measured += 7

folder.mkdir(parents=True, exist_ok=True)
networks = dict(
    critic=Network(critic, critic_loss, betas=(0, 0.99), ema=0),
    generator=Network(generator, dict(plain=generator_loss, half=half), fitness, betas=(0, 0.99)),
)
with launching.worker():
    trained = fit_networks(networks, recipe, folder, seed=0, measure=measure, checkpoint_seconds=0)
    assert trained["generator"].measured == 7
"""
LAUNCHER = """
import sys
from dbtbench.runtime import launching
from dbtbench.runtime.signals import handle_sigterm
with handle_sigterm():
    launching.launch(2, sys.argv[2:], (sys.argv[1],))
"""


Start = Callable[..., Any]
"""`start_program` or `run_ranks` of tests/conftest.py."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def launcher(program: Path) -> Path:
    path = program.with_name("launcher.py")
    path.write_text(LAUNCHER)
    return path


@pytest.fixture(scope="module")
def whole(program: Path, run_ranks: Start) -> Path:
    """Weights that one process trained and nobody disturbed."""
    run_ranks(1, program, program.parent, -1, 0, 0)
    return program.with_name(WEIGHTS)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def steps_done(folder: Path) -> int:
    path = folder / METRICS
    return len(path.read_text().splitlines()) if path.is_file() else 0


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def alive(folder: Path) -> list[int]:
    """Process ids of the ranks that still run."""

    def runs(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    return [pid for file in folder.glob("*.pid") if runs(pid := int(file.read_text()))]


def test_killed_at_any_moment_it_ends_with_the_same_bits(
    program: Path, whole: Path, tmp_path: Path, start_program: Start, run_ranks: Start
) -> None:
    moments = random.Random(7)
    folder = tmp_path / "killed"
    for least in (1, 15, 35):
        killed = start_program(program, folder, -1, 0, 0.003)
        wait_until(lambda least=least: steps_done(folder) >= least)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.05))
        killed.process.kill()
        assert killed.wait().returncode == -signal.SIGKILL
        assert not (folder / WEIGHTS).exists()
    run_ranks(1, program, folder, -1, 0, 0)
    assert (folder / WEIGHTS).read_bytes() == whole.read_bytes()


def test_sigterm_keeps_the_step_and_exits_with_143(
    program: Path, whole: Path, tmp_path: Path, start_program: Start, run_ranks: Start
) -> None:
    folder = tmp_path / "terminated"
    terminated = start_program(program, folder, -1, 0, 0.003)
    wait_until(lambda: steps_done(folder) >= 5)
    terminated.process.terminate()
    done = terminated.wait()
    err = done.stderr
    assert done.returncode == TERMINATED == 143
    kept = torch.load(folder / STATE, weights_only=True)["step"]
    assert kept == steps_done(folder)
    assert f"training: state kept at step {kept} of {STEPS}\n" in err
    assert err.endswith("terminated: the same command continues\n")
    assert "Traceback" not in err
    run_ranks(1, program, folder, -1, 0, 0)
    assert (folder / WEIGHTS).read_bytes() == whole.read_bytes()


def test_four_processes_train_what_one_trains(
    program: Path, whole: Path, tmp_path: Path, run_ranks: Start
) -> None:
    """To rounding; and to the bit when one of them is killed, the others fail, and all are started again."""
    four, restarted = tmp_path / "four", tmp_path / "restarted"
    run_ranks(4, program, four, -1, 0, 0)
    weights = load_file(four / WEIGHTS)
    for name, value in load_file(whole).items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4, msg=name)
    with pytest.raises(AssertionError, match="-9"):
        run_ranks(4, program, restarted, 7, 2, 0)
    assert (restarted / "killed").exists()
    assert not (restarted / WEIGHTS).exists()
    run_ranks(4, program, restarted, 7, 2, 0)
    assert (restarted / WEIGHTS).read_bytes() == (four / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_two_processes_train_two_networks_as_one_does(tmp_path: Path, run_ranks: Start) -> None:
    """With gradients of gradients, a choice of the fittest and a measurement.

    To the bit when one of them is killed once and torchrun starts all again.
    """
    program = tmp_path / "gan.py"
    program.write_text(GAN)
    one, two, restarted = (tmp_path / name for name in ("one", "two", "restarted"))
    for ranks, folder in ((1, one), (2, two)):
        run_ranks(ranks, program, folder, -1)
    weights = load_file(two / WEIGHTS)
    for name, value in load_file(one / WEIGHTS).items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4, msg=name)
    launching.launch(2, [str(restarted), "7"], (str(program),), max_restarts=1)
    assert (restarted / "killed").exists()
    assert (restarted / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_killed_rank_is_named_with_its_signal_and_no_other_stays(program: Path, tmp_path: Path) -> None:
    with pytest.raises(DBTBenchError, match=r"^rank 1 of 2 processes failed: Signal 9 \(SIGKILL\)"):
        launching.launch(2, [str(tmp_path), "7", "1", "0"], (str(program),))
    assert alive(tmp_path) == []


@pytest.mark.slow
def test_every_rank_stops_at_the_same_step_on_sigterm_and_goes_on(
    program: Path, launcher: Path, tmp_path: Path, start_program: Start, run_ranks: Start
) -> None:
    stopped, undisturbed = tmp_path / "stopped", tmp_path / "undisturbed"
    started = start_program(launcher, program, stopped, -1, 0, 0.02)
    wait_until(lambda: steps_done(stopped) >= 3)
    started.process.terminate()
    done = started.wait()
    err = done.stderr
    assert done.returncode == TERMINATED
    assert err.count("state kept at step") == err.count("the same command continues") == 1
    assert "torch" not in err
    assert "Traceback" not in err
    assert alive(stopped) == []
    for folder in (stopped, undisturbed):
        run_ranks(2, program, folder, -1, 0, 0)
    assert (stopped / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_no_rank_outlives_a_killed_launcher(
    program: Path, launcher: Path, tmp_path: Path, start_program: Start
) -> None:
    started = start_program(launcher, program, tmp_path, -1, 0, 0.5)
    wait_until(lambda: steps_done(tmp_path) >= 1)
    assert len(alive(tmp_path)) == 2
    started.process.kill()
    wait_until(lambda: alive(tmp_path) == [])
    started.wait()
