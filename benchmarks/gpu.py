"""Benchmark of the networks on one GPU, in one call: `python benchmarks/gpu.py`.

It measures training steps (bfloat16, channels last, fused AdamW) and DDIM sampling of 8 x 64 x 64 volumes.
The networks are that of the recipe `default`, and, with the channels of the CPU benchmark, ours, MONAI's and
the video U-Net where it is installed; each with and without compiling. With --train MINUTES it also measures
the realism of `generate ddpm` on a phantom at rising numbers of steps. The table goes to stdout; the JSON is
written again after each row.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peers import GRID, INSTALL, Network, Settings, build_own, build_video
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dbtbench.diffusion.process import make_schedule, predict_x0
from dbtbench.diffusion.sampling import SAMPLERS
from dbtbench.generators.ddpm import DDPMRecipe
from dbtbench.runtime.files import write_json
from dbtbench.runtime.progress import log

NUM_TIMESTEPS, SAMPLE_STEPS = 1000, 50
SHARES = (0.1, 0.3, 1.0)
"""Parts of the minutes of --train; each is a separate training, whose learning rate falls to 0."""
REALISM = ["w1_intensity", "air_mode_mass", "rms_contrast", "volume_mean_sd", "lesion_cnr"]


@dataclass(frozen=True)
class Row:
    """Measurements of a network.

    Attributes:
        network: its name.
        compiled: whether it was compiled by torch.compile.
        parameters: number of parameters.
        batch: volumes per step; the requested number is halved until they fit.
        gflop: 10^9 operations per volume of a training step, counted before compiling.
        trained: volumes per second in training.
        share: the training's part of the measured matrix rate; above 1 on a CPU that has no bfloat16.
        memory: peak GiB; NaN on the CPU.
        drawn: volumes per second in sampling, with `SAMPLE_STEPS` network calls each.
        failed: reason why there is no measurement.
    """

    network: str
    compiled: bool
    parameters: int
    batch: int = 0
    gflop: float = float("nan")
    trained: float = float("nan")
    share: float = float("nan")
    memory: float = float("nan")
    drawn: float = float("nan")
    failed: str = ""


class Bench:
    """A device and its way of measuring.

    Args:
        device: cuda or cpu.
        batch: volumes per step.
        quick: measure briefly, and compile without generating code, which takes minutes.
    """

    def __init__(self, device: str, batch: int, quick: bool) -> None:
        self.device, self.batch = torch.device(device), batch
        self.seconds, self.backend = (0.05, "aot_eager") if quick else (5.0, "inductor")
        self.cuda = self.device.type == "cuda"
        self.rate = self._matrix_rate()

    def _matrix_rate(self) -> float:
        """Measure the operations per second of a large bfloat16 matrix product.

        A CPU without instructions for bfloat16 multiplies it more slowly than the convolutions compute.
        """
        n = 8192 if self.cuda else 512
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        return 2 * n**3 / self.seconds_of(lambda: a @ b)

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Measure the mean seconds of a call, after two calls to warm up."""
        for _ in range(2):
            work()
        self._wait()
        start, calls = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < self.seconds or not calls:
            for _ in range(max(1, calls)):  # reading the clock waits for the GPU: do it ever more rarely
                work()
            calls += max(1, calls)
            self._wait()
        return (time.perf_counter() - start) / calls if calls else passed

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def measure(self, name: str, network: Network, compiled: bool) -> Row:
        """Measure one row, at the largest batch that fits."""
        log.info(f"{name}{', compiled' if compiled else ''}")
        network.net.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        batch = self.batch
        while True:
            try:
                return self._measure(name, network, compiled, batch)
            except torch.OutOfMemoryError:
                batch //= 2
                if not batch:
                    return Row(name, compiled, network.parameters, failed="not one volume fits")
            except Exception as error:  # a peer that cannot be compiled must not end the others' run
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                return Row(name, compiled, network.parameters, failed=reason)

    def _measure(self, name: str, network: Network, compiled: bool, batch: int) -> Row:
        x, t = torch.randn(batch, 1, *GRID, device=self.device), torch.rand(batch, device=self.device)
        optimiser = torch.optim.AdamW(network.net.parameters(), fused=True)
        network.net.train()

        def step() -> None:
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = (network.call(x, t).float() - x).square().mean()
            torch.autograd.backward(loss)
            optimiser.step()
            optimiser.zero_grad()

        with FlopCounterMode(display=False) as counter:
            step()
        flop = counter.get_total_flops() / batch
        if compiled:
            network.net.compile(backend=self.backend)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        trained = batch / self.seconds_of(step)
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.cuda else float("nan")
        drawn = batch / self._sampling_seconds(network, x)
        share = trained * flop / self.rate
        return Row(name, compiled, network.parameters, batch, flop / 1e9, trained, share, memory, drawn)

    def _sampling_seconds(self, network: Network, x: Tensor) -> float:
        """Measure the seconds of unguided DDIM sampling of a batch; on the CPU from a few of its steps."""
        steps = SAMPLE_STEPS if self.cuda else 2
        network.net.eval()
        alpha_bar = make_schedule("cosine", NUM_TIMESTEPS, zero_terminal=True).to(self.device)

        def denoise(xt: Tensor, t: int) -> Tensor:
            timesteps = torch.full((len(xt),), t, device=xt.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                predicted = network.call(xt, timesteps / NUM_TIMESTEPS).float()
            x0: Tensor = predict_x0("v", alpha_bar, xt, predicted, timesteps)
            return x0.clamp(-1, 1)

        def draw() -> None:
            with torch.inference_mode():
                SAMPLERS["ddim"](denoise, x, alpha_bar, steps, lambda: torch.randn_like(x))

        return self.seconds_of(draw) * SAMPLE_STEPS / steps


def networks(quick: bool) -> Iterator[tuple[str, Callable[[], Network]]]:
    """List the networks to measure, by name."""
    if quick:
        yield "ours, 8 wide", lambda: build_own(Settings("unet", 4, 8, (1, 2), 1))
        yield "MONAI, 8 wide", lambda: build_own(Settings("monai", 4, 8, (1, 2), 1))
        return
    recipe = DDPMRecipe()
    default = Settings(
        recipe.backbone,
        recipe.unshuffle,
        recipe.base_channels,
        recipe.channel_mults,
        recipe.blocks,
        recipe.factorised,
    )
    yield "ours, recipe default", lambda: build_own(default)
    yield "ours, 32 wide", lambda: build_own(Settings())
    yield "ours, 32 wide, unshuffle 2", lambda: build_own(Settings(unshuffle=2))
    yield "MONAI DiffusionModelUNet, 32 wide", lambda: build_own(Settings("monai"))
    yield "video-diffusion-pytorch Unet3D, 32 wide", build_video


def realism(asked: argparse.Namespace, volumes_a_second: float) -> dict[str, Any]:
    """Fit and draw on a phantom with rising numbers of steps, and measure realism.

    The measured speed and each part of the minutes give a number of steps.

    Returns:
        The table of `generate --sweep` as records, the real training split first, and the total seconds.
    """
    most = 60 * asked.train * volumes_a_second / DDPMRecipe().batch / sum(SHARES)
    steps = sorted({max(1, round(most * share)) for share in SHARES})
    root, work = str(asked.out / "phantom"), ["--workspace", str(asked.out / "work")]
    preset = ["--preset", "tiny" if asked.quick else "small", "--patients", str(asked.patients)]
    dbtbench("data", "phantom", "--out", root, *preset)
    dbtbench("data", "import", "bcs-dbt", root, "--name", "phantom", *work)
    recipe = ["--recipe", "smoke", "--n", "8"] if asked.quick else []
    sweep = ["--sweep", f"steps={','.join(map(str, steps))}"]
    start = time.monotonic()
    dbtbench("generate", "ddpm", "--data", "phantom", *recipe, *sweep, *work)
    seconds = time.monotonic() - start
    newest = max((asked.out / "work" / "sweeps").glob("*.csv"), key=lambda path: path.stat().st_mtime)
    return {"seconds": seconds, "rows": records(pd.read_csv(newest)[["arm", "steps", *REALISM]])}


def dbtbench(*words: str) -> None:
    """Run the command line with its output on stderr."""
    subprocess.run([sys.executable, "-m", "dbtbench", *words], check=True, stdout=sys.stderr)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert rows to JSON values; a missing one is None."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Format records as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: Any) -> str:
    """Format a value as text; a missing one is empty."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch", type=int, default=64, help="volumes per step")
    parser.add_argument("--quick", action="store_true", help="small networks and short measurements")
    parser.add_argument("--train", type=float, metavar="MINUTES", help="also train on a phantom for MINUTES")
    parser.add_argument(
        "--patients", type=int, default=100, help="patients of that phantom; four volumes each"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"), help="folder of results and work")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu --quick runs everything on the CPU")
    return asked


def main() -> None:
    """Measure, print and write."""
    asked = arguments()
    torch.manual_seed(0)
    bench = Bench(asked.device, asked.batch, asked.quick)
    device = torch.cuda.get_device_name() if bench.cuda else f"{platform.machine()} CPU"
    result: dict[str, Any] = {"device": device, "torch": torch.__version__, "tflops": bench.rate / 1e12}
    sys.stdout.write(f"{device}, torch {torch.__version__}, {bench.rate / 1e12:.4g} TFLOP/s in bfloat16\n\n")
    rows: list[Row] = []
    for compiled in (False, True):
        for name, make in networks(asked.quick):
            try:
                rows.append(bench.measure(name, make(), compiled))
            except ModuleNotFoundError as error:
                rows.append(Row(name, compiled, 0, failed=f"{error}: {INSTALL}"))
            result["networks"] = records(pd.DataFrame(map(asdict, rows)))
            write_json(asked.out / "gpu.json", result)
    sys.stdout.write(markdown(result["networks"]) + "\n")
    if asked.train:
        ours = [row.trained for row in rows if row.network == rows[0].network and not row.failed]
        result["realism"] = realism(asked, max(ours))
        write_json(asked.out / "gpu.json", result)
        sys.stdout.write("\n" + markdown(result["realism"]["rows"]) + "\n")


if __name__ == "__main__":
    main()
