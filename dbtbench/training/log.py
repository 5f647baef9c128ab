"""What a training writes down about itself, for people and for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from dbtbench.errors import MissingError
from dbtbench.runtime import distributed
from dbtbench.runtime.files import write_text
from dbtbench.training.state import State

METRICS = "metrics.jsonl"
TENSORBOARD = "DBTBENCH_TENSORBOARD"
"""Environment variable: with 1, the metrics also go to TensorBoard's events in the same folder."""
METRIC_LINES = 200


class MetricsLogger:
    """`metrics.jsonl`: a line every few steps, with the mean loss since the last line, over all processes.

    Args:
        folder: where it lies, and TensorBoard's events where they are asked for.
        state: the training's.

    Raises:
        MissingError: when TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self.path, self.state = folder / METRICS, state
        self.events = _tensorboard(folder, state.step)
        self.every = max(1, state.recipe.steps // METRIC_LINES)
        self.first, self.started = state.step, time.monotonic()
        self.losses: list[float] = []
        if distributed.rank() == 0:
            write_text(self.path, "".join(self._lines_until(state.step)))

    def _lines_until(self, step: int) -> Iterator[str]:
        """Lines up to a step: what was logged after the state was kept is going to be logged again."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                yield line

    def speed(self) -> float:
        """Volumes a second since this process began."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return (self.state.step - self.first) * self.state.recipe.batch / seconds

    def add(self, loss: float) -> None:
        """Take the loss of a step."""
        self.losses.append(loss)

    def note(self) -> str:
        """What progress shows beside the bar."""
        return f"loss {self.losses[-1]:.4f}, {self.speed():.3g} volumes/s"

    def written(self) -> bool:
        """Write a line when it is due; whether it was."""
        state = self.state
        if state.step % self.every and state.step < state.recipe.steps:
            return False
        losses = torch.tensor(self.losses, device=distributed.device())
        self.losses = []
        if distributed.size() > 1:
            from monai.utils.dist import evenly_divisible_all_gather

            losses = evenly_divisible_all_gather(losses, concat=True)
        if distributed.rank() == 0:
            line = {
                "step": state.step,
                "loss": float(losses.mean()),
                "lr": state.schedule.get_last_lr()[0],
                "seconds": round(time.monotonic() - self.started, 1),
                "volumes_per_second": round(self.speed(), 2),
                "processes": distributed.size(),
            }
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._to_tensorboard(line)
        return True

    def _to_tensorboard(self, line: Mapping[str, Any]) -> None:
        if self.events:
            for name in ("loss", "lr", "volumes_per_second"):
                self.events.add_scalar(name, line[name], line["step"])
            self.events.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self.events:
            self.events.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """TensorBoard's writer where it is asked for, on process 0; it hides what was logged after the step."""
    if os.environ.get(TENSORBOARD, "0") in ("", "0"):
        return None
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingError(
            f"{TENSORBOARD} is set, and tensorboard is not installed", "pip install tensorboard"
        )
    if distributed.rank() > 0:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=step + 1)
