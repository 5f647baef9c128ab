"""Functional groups: an attribute of a multi-frame file is a list over its frames (PS3.3 C.7.6.16)."""

from __future__ import annotations

import math
from typing import TypeVar

from dbtbench.dicom.elements import Item
from dbtbench.errors import UnreadableError

Value = TypeVar("Value", bound=tuple[object, ...])


def find_frame_items(root: Item, frames: int) -> list[Item]:
    """Find the functional groups of each frame; empty ones where the file has none of any frame.

    Raises:
        UnreadableError: when there are groups of fewer or more frames.
    """
    items: list[Item] = root.get("PerFrameFunctionalGroupsSequence", [])
    if items and len(items) != frames:
        raise UnreadableError(
            "functional groups differ from the frames", f"{len(items)} of them, and {frames} frames"
        )
    if len(root.get("SharedFunctionalGroupsSequence", ())) > 1:
        raise UnreadableError("broken header", "several shared functional groups")
    return items or [{}] * frames


def choose_macros(root: Item, frames: list[Item], sequence: str, *needed: str) -> list[Item]:
    """Choose each frame's item of a functional group: the shared one, else its own, else the root.

    Args:
        root: of the file.
        frames: from `find_frame_items`.
        sequence: keyword of the group.
        needed: keywords that the item must have values of; an item without them is passed over.

    Returns:
        One item for each frame; an empty one where none has the values.

    Raises:
        UnreadableError: when a frame's own values are not the shared ones.
    """
    shared: Item = next(iter(root.get("SharedFunctionalGroupsSequence", [])), {})
    common = _get_macro(shared, sequence, needed)
    fallback = root if _has_all(root, needed) else {}
    chosen = []
    for frame in frames:
        own = _get_macro(frame, sequence, needed)
        if common and own and any(common.get(key) != own.get(key) for key in (*needed, "VOILUTFunction")):
            raise UnreadableError("frames differ from what they share", sequence)
        chosen.append(common or own or fallback)
    return chosen


def get_common(values: list[Value], name: str) -> Value:
    """Get the value that all frames have.

    Raises:
        UnreadableError: when they differ; numbers may do so by a thousandth.
    """
    first = values[0]
    for value in values:
        if value is not first and value != first and not _is_close(value, first):
            raise UnreadableError("frames differ", f"in their {name}")
    return first


def _get_macro(group: Item, sequence: str, needed: tuple[str, ...]) -> Item:
    return next((item for item in group.get(sequence, []) if _has_all(item, needed)), {})


def _has_all(item: Item, needed: tuple[str, ...]) -> bool:
    return all(item.get(keyword) for keyword in needed)


def _is_close(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return len(a) == len(b) and all(
        isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=1e-3, abs_tol=1e-3)
        for x, y in zip(a, b, strict=True)
    )
