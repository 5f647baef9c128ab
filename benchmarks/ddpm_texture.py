"""Where the DDPM's texture goes wrong: `python benchmarks/ddpm_texture.py WORKSPACE DATA [RECIPE [VOLUMES]]`.

Draws from a trained DDPM without guidance: with several samplers and numbers of steps, and from noisy
training volumes instead of from noise. Compares each set with the validation split: roughness and power in
the plane by band, as ratios to it, and the area under the ROC curve of a classifier that separates the two.
Prints a Markdown table, whose first row is real training volumes: the floor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.diffusion.names import SamplerName
from dbtbench.diffusion.process import add_noise
from dbtbench.diffusion.sampling import SAMPLERS
from dbtbench.generator import Layout
from dbtbench.generators.ddpm import DDPM
from dbtbench.geometry.views import Volume
from dbtbench.metrics.spectrum import BANDS
from dbtbench.metrics.two_sample import c2st_auc, standardise
from dbtbench.pipeline.generate import fit
from dbtbench.tasks.realism.table import Table, measure_arrays
from dbtbench.training.denoising import make_denoise
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.workspace import Workspace

BATCH = 16
SETTINGS: tuple[dict[str, Any], ...] = (
    {"sampler": "dpm++", "steps": 20, "linear": True},
    {"sampler": "dpm++", "steps": 20},
    {"sampler": "heun", "steps": 20},
    {"sampler": "ddim", "steps": 20},
    {"sampler": "ancestral", "steps": 20},
    {"sampler": "dpm++", "steps": 10, "snr": 0.1},
    {"sampler": "dpm++", "steps": 10, "snr": 1.0},
    {"sampler": "dpm++", "steps": 10, "snr": 10.0},
    {"sampler": "dpm++", "steps": 50},
    {"sampler": "heun", "steps": 50},
)


class Zero(torch.nn.Module):
    """A network whose output is 0: with preconditioning, the best linear prediction."""

    def forward(self, x: Tensor, *conditioning: Tensor) -> Tensor:
        """Give zeros in the shape of x."""
        return torch.zeros_like(x)


def draw(
    generator: DDPM,
    train: DBTDataset,
    sampler: SamplerName,
    steps: int,
    snr: float = 0.0,
    linear: bool = False,
) -> Volume:
    """Draw volumes (N, 1, D, H, W) with the conditioning of the training volumes.

    Args:
        generator: fitted.
        train: training volumes.
        sampler: name of the sampler.
        steps: calls of the network for each volume.
        snr: signal-to-noise ratio of the noisy training volumes that sampling starts from; 0 for noise.
        linear: the network's output is left out.
    """
    left = LeftBreasts(train)
    model: Any = generator.model
    network = model.net
    drawn: list[Tensor] = []
    for layouts in batches(train):
        rows = torch.tensor([layout.index for layout in layouts])
        conditioning = left.conditioning[rows]
        noise = LayoutNoise(layouts, train.grid)
        alpha_bar, x = model.alpha_bar, noise()
        if snr:
            t = int((alpha_bar / (1 - alpha_bar) - snr).abs()[1:].argmin()) + 1
            x = add_noise(alpha_bar, model.intensities(left.volumes[rows]), x, torch.full((len(x),), t))
            alpha_bar = alpha_bar[: t + 1]
        model.net = Zero() if linear else network
        with torch.inference_mode():
            denoise = make_denoise(generator.recipe, model, conditioning)
            values = SAMPLERS[sampler](denoise, x, alpha_bar, steps, noise)
            drawn.append(model.intensities.inverse(values))
        model.net = network
    return torch.cat(drawn).numpy()


def batches(train: DBTDataset) -> Iterator[list[Layout]]:
    """Make layouts of training volumes, a batch at a time."""
    cases = list(train.cases.itertuples())
    for start in range(0, len(cases), BATCH):
        yield [
            Layout(start + row, start + row, case.label, case.View, train.boxes_of(case.case), int(case.case))
            for row, case in enumerate(cases[start : start + BATCH])
        ]


def compare(own: Table, real: Table) -> list[str]:
    """Compare two sets: ratios of roughness and of power by band, and the classifier's area."""
    texture, reference = own.texture.mean(), real.texture.mean()
    ratios = [texture["roughness"] / reference["roughness"]]
    ratios += [np.exp(texture[f"power_{band}"] - reference[f"power_{band}"]) for band in BANDS]
    x, y = standardise(own.features, real.features)
    area = c2st_auc(x, y, own.patients, real.patients)
    return [*(f"{ratio:.2f}" for ratio in ratios), f"{area:.2f}"]


def measure(volumes: Volume, name: str) -> Table:
    """Measure volumes without their lesions."""
    return measure_arrays(volumes, [], name)


def main(workspace: str, data: str, recipe: str = "demo", volumes: str = "48") -> None:
    """Print the table, a row at a time."""
    n = int(volumes)
    space = Workspace(Path(workspace))
    real = DBTDataset.open(space.datasets / data)
    fitted = fit(space, "ddpm", real, recipe, {"guidance_scale": "1"})
    generator = fitted.generator
    assert isinstance(generator, DDPM)
    train = real.select("train")
    train = train.take(np.isin(np.arange(len(train)), np.random.default_rng(0).permutation(len(train))[:n]))
    reference = measure(LeftBreasts(real.select("validation")).volumes.numpy(), "validation")
    columns = ["drawn with", "calls", "roughness", *BANDS, "C2ST"]
    print_row(columns)
    print_row(["---"] * len(columns))
    print_row(
        [
            "real training volumes",
            "",
            *compare(measure(LeftBreasts(train).volumes.numpy(), "train"), reference),
        ]
    )
    for settings in SETTINGS:
        words = str(settings["sampler"])
        if "snr" in settings:
            words += f", from training volumes at SNR {settings['snr']:g}"
        if "linear" in settings:
            words += ", without the network"
        table = measure(draw(generator, train, **settings), "drawn")
        print_row([words, str(settings["steps"]), *compare(table, reference)])


def print_row(cells: list[str]) -> None:
    """Print a row of the table."""
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
