"""Causal transformer layers, with a cache of keys and values for prediction token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 32


class KeyValueCache:
    """Keys and values of one layer for the tokens that were predicted so far.

    Args:
        length: tokens in all.
    """

    def __init__(self, length: int) -> None:
        self.length, self.filled = length, 0
        self.stored: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Take keys and values (N, heads, t, width) of the next t tokens; gives those of all so far."""
        if self.stored is None:
            batch, heads, _, width = key.shape
            self.stored = key.new_empty(2, batch, heads, self.length, width)
        end = self.filled + key.shape[2]
        self.stored[0, :, :, self.filled : end], self.stored[1, :, :, self.filled : end] = key, value
        self.filled = end
        return self.stored[0, :, :, :end], self.stored[1, :, :, :end]


class CausalLayer(nn.Module):
    """One transformer layer in which a token sees itself and those before it (normalised first).

    Args:
        width: features of a token, a multiple of `HEAD_WIDTH`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Compute (N, T, width) from all tokens; with a cache, (N, 1, width) from the next one."""
        projected = self.query_key_value(self.attention_norm(x))
        query, key, value = projected.unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.append(key, value)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        return torch.add(x, self.mlp(self.mlp_norm(x)))
