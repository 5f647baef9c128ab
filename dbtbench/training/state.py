"""The state of a training: its networks, their optimisers and averages, and the step it has come to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from dbtbench.errors import StaleError
from dbtbench.runtime import distributed
from dbtbench.runtime.files import atomic_path, digest
from dbtbench.training.network import Network
from dbtbench.training.recipe import Schedule, TrainingRecipe


class Learner:
    """A network in training, with its optimiser, its learning rate and its moving average.

    Attributes:
        net: the module as a loss calls it: over all processes once the training has begun.
    """

    def __init__(self, name: str, network: Network, recipe: TrainingRecipe) -> None:
        lr = recipe.lr if network.lr is None else network.lr
        ema = recipe.ema if network.ema is None else network.ema
        self.name, self.network, self.module = name, network, network.module
        self.net = self.module
        self.trainable = [weight for weight in self.module.parameters() if weight.requires_grad]
        self.clip = recipe.clip if network.clip is None else network.clip
        self.average = AveragedModel(self.module, multi_avg_fn=_warmed_up_average(ema))
        first, second = map(float, network.betas)  # AdamW takes no whole numbers, such as 0
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(),
            lr=lr,
            betas=(first, second),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.schedule = _schedule(self.optimiser, lr, network.schedule or recipe.schedule, recipe)

    def qualify(self, key: str, separator: str = ".") -> str:
        """A key with the network's name in front; as it is for the only network, which has no name."""
        return f"{self.name}{separator}{key}" if self.name else key

    def parts(self) -> dict[str, Any]:
        """Everything with a state dict, by the key that it is kept under."""
        own = {
            "net": self.module,
            "average": self.average,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }
        return {self.qualify(key): part for key, part in own.items()}

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Copy the weights and the optimiser's state."""
        return copy.deepcopy((self.module.state_dict(), self.optimiser.state_dict()))

    def restore(self, snapshot: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Go back to a snapshot."""
        weights, moments = snapshot
        self.module.load_state_dict(weights)
        self.optimiser.load_state_dict(
            copy.deepcopy(moments)
        )  # else it would go on in the snapshot's tensors


class State:
    """Everything that a training needs to go on; the random numbers of a step follow from its number.

    Args:
        networks: what is trained, by name and in order. The only network may have the empty name.
        recipe: settings of the training.
        seed: seed of everything random in it.

    Raises:
        ValueError: when two networks share a parameter, or a name cannot begin a key.
    """

    def __init__(self, networks: Mapping[str, Network], recipe: TrainingRecipe, seed: int) -> None:
        self.recipe, self.seed, self.step = recipe, seed, 0
        names = {} if list(networks) == [""] else {"networks": list(networks)}
        self.identity = digest({"recipe": recipe.fit_settings(), "seed": seed, **names})
        self.learners = [Learner(name, network, recipe) for name, network in networks.items()]
        self.modules = {learner.name: learner.module for learner in self.learners}
        weights = [id(weight) for learner in self.learners for weight in learner.trainable]
        if len(weights) != len(set(weights)):
            raise ValueError("two networks share a parameter: only one of them can train it")
        if any("." in name or not name for name in networks) and len(networks) > 1:
            raise ValueError(f"names of networks are words without dots: {list(networks)}")

    def averages(self) -> dict[str, nn.Module]:
        """The averaged networks by name, in evaluation mode and frozen."""
        return {
            learner.name: learner.average.module.eval().requires_grad_(False) for learner in self.learners
        }

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
        weights = {
            learner.qualify(key): value.contiguous()
            for learner in self.learners
            for key, value in learner.average.module.state_dict().items()
        }
        with atomic_path(path) as temporary:
            # One entry only: safetensors writes several in no fixed order, and the bytes would differ.
            save_file(weights, temporary, {"identity": self.identity})

    def load_weights(self, path: Path) -> dict[str, nn.Module]:
        """Load the networks of a finished training; gives them by name, in evaluation mode and frozen.

        Raises:
            StaleError: when they are another training's, or are damaged.
        """
        try:
            with safe_open(path, "pt") as file:
                self._check((file.metadata() or {}).get("identity"), path)
            weights = load_file(path)
            for learner in self.learners:
                own = {key: weights[learner.qualify(key)] for key in learner.module.state_dict()}
                learner.module.load_state_dict(own)
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise StaleError(f"{path} is damaged: {str(error)[:200]}", "start over with --fresh") from error
        return {name: module.eval().requires_grad_(False) for name, module in self.modules.items()}

    def _check(self, identity: str | None, path: Path) -> None:
        if identity != self.identity:
            raise StaleError(f"{path} belongs to another training", "start over with --fresh")

    def _parts(self) -> dict[str, Any]:
        return {name: part for learner in self.learners for name, part in learner.parts().items()}


def _schedule(
    optimiser: torch.optim.Optimizer, lr: float, kind: Schedule, recipe: TrainingRecipe
) -> LRScheduler:
    steps = recipe.steps
    if kind == "one-cycle":
        return OneCycleLR(optimiser, lr, total_steps=steps + 1, cycle_momentum=False)
    falling = kind == "linear"

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
