"""Several processes: asked-for GPUs, training on the same numbers, and one error for all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.runtime import distributed, launching
from dbtbench.version import __version__

PROGRAM = """
import sys
from pathlib import Path

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError
from dbtbench.runtime.progress import log
from dbtbench.runs import Run
from dbtbench.runtime import distributed, launching

data, folder, failing = sys.argv[1:]
with launching.worker():
    if distributed.rank() == int(failing):
        raise MissingError("the detector fell off", "screw it on")
    from dbtbench.generators.ddpm import DDPM, DDPMRecipe

    recipe = DDPMRecipe(
        steps=4, batch=4, micro_batch=2, lr=2e-4, warmup=0,
        base_channels=8, channel_mults=(1, 2), blocks=1, unshuffle=4, factorised=True,
    )
    DDPM(recipe).fit(DBTDataset.open(Path(data)).select("train"), Run(Path(folder), {}))
    log.info(f"{distributed.rank()} of {distributed.size()} has {distributed.share(range(5))}")
"""

COMPILED = """
import sys
from pathlib import Path

import torch
from torch import nn

from dbtbench.runtime import distributed, launching
from dbtbench.training import loop
from dbtbench.training.recipe import TrainingRecipe

folder, compiled = Path(sys.argv[1]), sys.argv[2] == "compiled"
graphs = []

def keep(graph, inputs):
    graphs.append(graph)
    return graph.forward

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x)

def loss(net, context):
    x = torch.rand(8, 4, generator=context.generator)[context.part]
    return (net(x)[:, 0] - x.sum(1)).square().mean()

in_place = nn.Module.compile
nn.Module.compile = lambda net: in_place(net, backend=keep)
distributed.compiles = lambda: True
loop.COMPILED_STEPS = 1
torch.manual_seed(0)
with launching.worker():
    recipe = TrainingRecipe(steps=6, batch=8, micro_batch=2, lr=1e-2, ema=0.9)
    loop.fit(Net(), loss, recipe, folder, seed=0, compiled=compiled)
    assert bool(graphs) == compiled
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return (str(path),)


def test_two_processes_train_what_one_trains(
    toy: DBTDataset, tmp_path: Path, program: tuple[str], run_ranks: Callable[..., str]
) -> None:
    """To rounding: each takes its share of the same global batch. Process 0 alone speaks."""
    said = "".join(run_ranks(n, Path(*program), toy.path, tmp_path / str(n), -1) for n in (1, 2))
    one, two = (
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("1", "2")
    )
    assert [line["processes"] for line in two] == [2] * 4
    assert "0 of 1 has range(0, 5)\n" in said
    assert "0 of 2 has [0, 2, 4]\n" in said
    assert "1 of 2" not in said
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    first, second = (load_file(tmp_path / n / "weights.safetensors") for n in ("1", "2"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-4, msg=name)


def test_a_failing_process_is_named_once_with_its_cause(
    toy: DBTDataset, tmp_path: Path, program: tuple[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """With its exit code and its hint."""
    with pytest.raises(MissingError) as caught:
        launching.launch(2, [str(toy.path), str(tmp_path / "run"), "1"], program)
    assert str(caught.value) == "rank 1 of 2 processes failed: the detector fell off"
    assert caught.value.hint == "screw it on"
    assert "Traceback" not in capfd.readouterr().err


def test_processes_import_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What lies where one works, a `dbtbench` of its own or a `json.py`, is not executed."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dbtbench").mkdir()
    planted = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
    for name in ("dbtbench/__init__.py", "dbtbench/__main__.py", "json.py"):
        (tmp_path / name).write_text(planted)
    subprocess.run([sys.executable, "-m", "dbtbench"], check=True)
    assert (tmp_path / "executed").exists()  # `-m` alone does execute it
    (tmp_path / "executed").unlink()
    with pytest.raises(DBTBenchError, match="without a result"):  # no worker has made anything
        launching.launch(2, ["--version"])
    assert not (tmp_path / "executed").exists()
    assert capfd.readouterr().out.count(__version__) == 2


@pytest.mark.slow
def test_processes_that_compile_train_the_same_under_the_same_names(
    tmp_path: Path, run_ranks: Callable[..., str]
) -> None:
    path = tmp_path / "compiled.py"
    path.write_text(COMPILED)
    for name in ("plain", "compiled"):
        run_ranks(2, path, tmp_path / name, name)
    plain, compiled = (load_file(tmp_path / name / "weights.safetensors") for name in ("plain", "compiled"))
    assert sorted(compiled) == ["net.0.bias", "net.0.weight", "net.2.bias", "net.2.weight"]
    torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("gpus", [1, 4])
def test_more_gpus_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus - 1)
    with pytest.raises(MissingError, match=f"{gpus} GPUs? asked for, {gpus - 1} visible") as caught:
        distributed.check_gpus(gpus)
    assert "--gpus 0" in caught.value.hint
    assert ("--gpus 1" in caught.value.hint) == (gpus > 1)
    assert caught.value.exit_code == 3


def test_a_process_that_was_not_launched_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with launching.worker():
        assert (distributed.rank(), distributed.size()) == (0, 1)


def test_a_rank_of_one_process_that_nothing_launched_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some job systems set both for every process."""
    set_ranks(monkeypatch, 1)
    assert not distributed.is_launched()
    with launching.worker():
        assert (distributed.rank(), distributed.size()) == (0, 1)


def test_a_rank_without_an_address_is_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ranks(monkeypatch, 2)
    with pytest.raises(UsageError, match="MASTER_ADDR and MASTER_PORT not") as caught, launching.worker():
        pass
    assert "torchrun" in caught.value.hint
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UsageError, match="and MASTER_PORT not"), launching.worker():
        pass


def set_ranks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(size))


@pytest.mark.parametrize(
    ("kind", "free", "home"), [("cuda", 200, "cuda"), ("cuda", 199, "cpu"), ("cpu", 0, "cpu")]
)
def test_data_lie_on_the_device_unless_they_need_half_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, kind: str, free: int, home: str
) -> None:
    monkeypatch.setattr(distributed, "device", lambda: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 1000))
    assert distributed.data_device(100).type == home
