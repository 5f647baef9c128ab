"""The names that recipes use for networks, and what their settings must fit; this file imports no torch."""

from __future__ import annotations

from typing import Literal

Backbone = Literal["unet", "monai"]
NUM_GROUPS = 8
"""Groups of every GroupNorm; channels are a multiple of it."""
