"""What a training is made of: its settings, and the state that it can be continued from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from dbtbench.errors import StaleError
from dbtbench.runtime import distributed
from dbtbench.runtime.files import atomic_path, digest
from dbtbench.training.recipe import TrainingRecipe


class State:
    """Everything that a training needs to go on; the random numbers of a step follow from its number."""

    def __init__(self, net: nn.Module, recipe: TrainingRecipe, seed: int) -> None:
        self.net, self.recipe, self.seed = net, recipe, seed
        self.identity = digest({"recipe": recipe.fit_settings(), "seed": seed})
        self.step = 0
        self.average = AveragedModel(net, multi_avg_fn=_warmed_up_average(recipe.ema))
        self.optimiser = torch.optim.AdamW(
            net.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        self.schedule = _schedule(self.optimiser, recipe)

    def save(self, path: Path) -> None:
        """Write the state, on process 0."""
        if distributed.rank() > 0:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {"identity": self.identity, "step": self.step}
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def resume(self, path: Path) -> None:
        """Take over the state that a killed training left, if there is one."""
        if not path.is_file():
            return
        content = torch.load(path, map_location=distributed.device(), weights_only=True)
        self._check(content["identity"], path)
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.step = content["step"]

    def save_weights(self, path: Path) -> None:
        """Write the averaged weights, on process 0."""
        if distributed.rank() > 0:
            return
        weights = {name: value.contiguous() for name, value in self.average.module.state_dict().items()}
        with atomic_path(path) as temporary:
            # One entry only: safetensors writes several in no fixed order, and the bytes would differ.
            save_file(weights, temporary, {"identity": self.identity})

    def load_weights(self, path: Path) -> nn.Module:
        """Give the network that a finished training left."""
        with safe_open(path, "pt") as file:
            self._check((file.metadata() or {}).get("identity"), path)
        self.net.load_state_dict(load_file(path))
        return self.net.eval()

    def _check(self, identity: str | None, path: Path) -> None:
        if identity != self.identity:
            raise StaleError(f"{path} belongs to another training", "start over with --fresh")

    def _parts(self) -> dict[str, Any]:
        return {
            "net": self.net,
            "average": self.average,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }


def _schedule(optimiser: torch.optim.Optimizer, recipe: TrainingRecipe) -> LRScheduler:
    steps = recipe.steps
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimiser, recipe.lr, total_steps=steps + 1, cycle_momentum=False)
    falling = recipe.schedule == "linear"

    def factor(i: int) -> float:
        return min(1.0, (i + 1) / (recipe.warmup + 1)) * (max(0.0, 1 - i / steps) if falling else 1.0)

    return LambdaLR(optimiser, factor)


def _warmed_up_average(decay: float) -> Callable[[Any, Any, torch.Tensor | int], None]:
    """Moving average with decay min(decay, (1 + i) / (10 + i)), the warm-up of TensorFlow's averages."""

    @torch.no_grad()
    def update(averages: Any, weights: Any, count: torch.Tensor | int) -> None:
        i = int(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + i) / (10 + i)))

    return update
