"""The names that recipes use for schedules, targets, losses and samplers; this file imports no torch."""

from __future__ import annotations

from typing import Literal

ScheduleName = Literal["linear", "rescaled-linear", "cosine", "straight"]
TimeDistribution = Literal["uniform", "logit-normal"]
Target = Literal["noise", "v", "data", "flow"]
Loss = Literal["mse", "mae", "huber"]
SamplerName = Literal["ancestral", "ddim", "heun", "dpm++"]
