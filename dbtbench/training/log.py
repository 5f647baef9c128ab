"""The metrics of a training, written for people and for TensorBoard."""

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
from dbtbench.runtime.files import sync, write_text
from dbtbench.training.state import State
from dbtbench.training.step import name_metric

METRICS = "metrics.jsonl"
TENSORBOARD = "DBTBENCH_TENSORBOARD"
"""Environment variable: with 1, the metrics also go to TensorBoard's events in the same folder."""
METRIC_LINES = 200


class MetricsLogger:
    """`metrics.jsonl`: a line every few steps, with means since the last line, over all processes.

    A training of several networks has a learning rate `lr_NAME` for each, and the metrics of `train_step`.

    Args:
        folder: takes the file, and TensorBoard's events if they are asked for.
        state: of the training.

    Raises:
        MissingError: when TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self.path, self.state = folder / METRICS, state
        self.events = _tensorboard(folder, state.step)
        self.every = max(1, state.recipe.steps // METRIC_LINES)
        self.first, self.started = state.step, time.monotonic()
        self.steps: list[dict[str, float]] = []
        if distributed.rank() == 0:
            write_text(self.path, "".join(self._lines_until(state.step)))

    def _lines_until(self, step: int) -> Iterator[str]:
        """Lines up to a step: what was logged after the state was kept is going to be logged again."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        for line in text.splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    yield line
            except ValueError:  # zeros where the power failed: it was written after the state was kept
                return

    def speed(self) -> float:
        """Count the volumes a second since this process began."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return (self.state.step - self.first) * self.state.recipe.batch / seconds

    def add(self, metrics: dict[str, float]) -> None:
        """Take the metrics of a step; every step has the same."""
        self.steps.append(metrics)

    def note(self) -> str:
        """Give the text next to the progress bar."""
        metrics = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.steps[-1].items()]
        return ", ".join([*metrics, f"{self.speed():.3g} volumes/s"])

    def write_when_due(self) -> bool:
        """Write a line when it is due; gives whether it was."""
        state = self.state
        if state.step % self.every and state.step < state.recipe.steps:
            return False
        means = self._means()
        self.steps = []
        if distributed.rank() == 0:
            rates = {
                name_metric("lr", learner.name): float(learner.schedule.get_last_lr()[0])
                for learner in state.learners
            }
            speed = round(self.speed(), 2)
            line = {
                "step": state.step,
                **means,
                **rates,
                "seconds": round(time.monotonic() - self.started, 1),
                "volumes_per_second": speed,
                "processes": distributed.size(),
            }
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._to_tensorboard(state.step, means | rates | {"volumes_per_second": speed})
        return True

    def _means(self) -> dict[str, float]:
        """Mean of each metric over the steps since the last line and over all processes."""
        values = torch.tensor([list(step.values()) for step in self.steps], device=distributed.device())
        if distributed.size() > 1:
            from monai.utils.dist import evenly_divisible_all_gather

            values = evenly_divisible_all_gather(values, concat=True)
        return dict(zip(self.steps[0], values.mean(0).tolist(), strict=True))

    def _to_tensorboard(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.events:
            for name, value in metrics.items():
                self.events.add_scalar(name, value, step)
            self.events.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self.events:
            self.events.close()


def sync_metrics(folder: Path) -> None:
    """Wait until the metrics of a training are on the disk; process 0 alone has them."""
    if distributed.rank() == 0:
        sync(folder / METRICS)


def _tensorboard(folder: Path, step: int) -> Any:
    """TensorBoard's writer if it is asked for, on process 0; it hides what was logged after the step."""
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
