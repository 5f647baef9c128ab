"""The rule of `Generator.score_volumes`: losses are finite, in order, and each volume's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dbtbench import plugins
from dbtbench.testing.rules import CheckFailed, disturb_random_state

if TYPE_CHECKING:
    from dbtbench.data.dataset import DBTDataset
    from dbtbench.generator import Generator

SCORED = 5


def check_losses(name: str, generator: Generator[Any], data: DBTDataset) -> str | None:
    """Check that losses of volumes are finite and depend on the volume alone: not on order, batch or luck.

    Args:
        name: of the generator.
        generator: fitted.
        data: volumes to score.

    Returns:
        What the rule does not apply to, if it does not.

    Raises:
        CheckFailed: when the rule is broken.
    """
    some = replace(data, cases=data.cases.iloc[:: len(data) // SCORED][:SCORED].reset_index(drop=True))
    found = _score(name, generator, some)
    if found is None:
        return "it does not claim to score volumes"
    ways: dict[str, Callable[[], NDArray[np.float64] | None]] = {
        "scored again": lambda: _score(name, generator, some),
        "scored in reverse order": lambda: _reverse(
            _score(name, generator, replace(some, cases=some.cases[::-1].reset_index(drop=True)))
        ),
        "scored alone": lambda: _join(
            [_score(name, generator, some[row : row + 1]) for row in range(SCORED)]
        ),
        "scored in two parts": lambda: _join(
            [_score(name, generator, part) for part in (some[:2], some[2:])]
        ),
    }
    for way, score in ways.items():
        disturb_random_state()
        other = score()
        if other is None or other.shape != found.shape or not np.array_equal(other, found):
            raise CheckFailed(
                f"score_volumes gives other losses when volumes are {way}",
                "give one row for each volume, in order; seed what is random from the volume (its sha256), "
                "and let no volume of a batch act on another",
            )
    return None


def _score(name: str, generator: Generator[Any], volumes: DBTDataset) -> NDArray[np.float64] | None:
    """Score volumes, and check shape and numbers."""
    with plugins.blame("generators", name):
        found: Any = generator.score_volumes(volumes)
    if found is None:
        return None
    shape = getattr(found, "shape", None)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != len(volumes) or not found.size:
        what = type(found).__name__ if shape is None else f"{type(found).__name__} of shape {tuple(shape)}"
        raise CheckFailed(
            f"score_volumes gives a {what} for {len(volumes)} volumes",
            "an array (volumes, levels), with one level at least; or None",
        )
    if not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise CheckFailed(
            "score_volumes gives losses that are not finite numbers",
            "floating-point numbers, lower for volumes that the model knows better",
        )
    return found


def _reverse(losses: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if losses is None else losses[::-1]


def _join(parts: list[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """Put losses one below the other; None where some are missing, or have other levels."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.shape[1] for part in known}) > 1:
        return None
    return np.concatenate(known)
