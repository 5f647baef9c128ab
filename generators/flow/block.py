"""Autoregressive block: an affine map of each token, of which the numbers follow from the tokens before it.

Token i becomes z_i = (x_i − b_i) exp(−s_i), with shift b_i and log-scale s_i predicted from x_1 … x_{i−1}
and from the conditioning. All tokens are encoded at once. Decoding, x_i = z_i exp(s_i) + b_i, goes token by
token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS

from .transformer import CausalLayer, KeyValueCache

LARGEST_LOG_SCALE = 2.0
"""Bound of the log-scale of a block: a token is scaled by a factor of 7.4 at most."""
POSITION_STD = 0.02


class AutoregressiveBlock(nn.Module):
    """One block of the flow; before training it changes nothing.

    Args:
        tokens: number of tokens, T.
        size: numbers in a token, P.
        width: of the transformer.
        layers: of the transformer.
    """

    def __init__(self, tokens: int, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.token, self.mask = nn.Linear(size, width), nn.Linear(size, width)
        self.first = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(POSITION_STD * torch.randn(tokens, width))
        self.label = nn.Embedding(len(LABELS) + 1, width)
        self.projection = nn.Embedding(len(PROJECTIONS) + 1, width)
        self.layers = nn.ModuleList(CausalLayer(width) for _ in range(layers))
        self.norm, self.affine = nn.LayerNorm(width), nn.Linear(width, 2 * size)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def embed_conditioning(self, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Embed the conditioning of each token: (N, T, width).

        Args:
            label: (N,) int.
            projection: (N,) int.
            mask: (N, T, P) tokens of the lesion mask, in the order of the block. A prediction sees those of
                the token that is predicted and of the tokens before it.
        """
        whole = self.label(label) + self.projection(projection)
        return torch.add(self.mask(mask) + self.position, whole[:, None])

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens.

        Args:
            x: (N, T, P).
            context: what `embed_conditioning` gave.

        Returns:
            (N, T, P) float32, and the logarithm of the Jacobian's determinant, (N,).
        """
        before = torch.cat([self.first.expand(len(x), 1, -1), self.token(x[:, :-1])], dim=1)
        hidden = before + context
        for layer in self.layers:
            hidden = layer(hidden)
        shift, log_scale = self._predict(hidden)
        return (x - shift) * torch.exp(-log_scale), -log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, context: Tensor) -> Tensor:
        """Decode tokens (N, T, P), one after the other; each layer keeps keys and values of those before."""
        tokens = z.shape[1]
        caches = [KeyValueCache(tokens) for _ in self.layers]
        before, decoded = self.first.expand(len(z), 1, -1), []
        for i in range(tokens):
            hidden = before + context[:, i : i + 1]
            for layer, cache in zip(self.layers, caches, strict=True):
                hidden = layer(hidden, cache)
            shift, log_scale = self._predict(hidden)
            x = z[:, i : i + 1] * torch.exp(log_scale) + shift
            decoded.append(x)
            before = self.token(x)
        return torch.cat(decoded, dim=1)

    def _predict(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predict shift and bounded log-scale, in 32 bits."""
        shift, raw = self.affine(self.norm(hidden)).float().chunk(2, dim=-1)
        return shift, LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)
