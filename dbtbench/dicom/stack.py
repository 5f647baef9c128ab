"""The order of slices: frames may be stored in any, and the header says where each lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.elements import Item, get_integer, get_numbers, get_texts
from dbtbench.errors import UnreadableError

NO_ORDER = "frames have no single order"


def place_frames(items: list[Item]) -> NDArray[np.float64] | None:
    """Get the position of each frame's first pixel in the patient, (frames, 3) in mm.

    Returns:
        None where no frame has one, or all have the same.

    Raises:
        UnreadableError: when only some have one.
    """
    positions = [get_numbers(item, "ImagePositionPatient") for item in items]
    if not any(positions):
        return None
    if any(len(position) != 3 for position in positions):
        raise UnreadableError(NO_ORDER, "some have no position")
    places = np.array(positions)
    return places if len(places) > 1 and np.ptp(places, axis=0).max() > 0 else None


def order_frames(items: list[Item], places: NDArray[np.float64] | None) -> tuple[int, ...]:
    """Order frames by their positions: as they are numbered, or as stored if that is in order, else upwards.

    Args:
        items: of each frame, with InStackPositionNumber and StackID.
        places: from `place_frames`.

    Returns:
        The number of the stored frame of every slice. The stored order where nothing speaks against it.

    Raises:
        UnreadableError: when frames are of several stacks, or numbers and positions contradict each other.
    """
    if len({tuple(get_texts(item, "StackID")) for item in items}) > 1:
        raise UnreadableError(NO_ORDER, "they are of several stacks")
    numbers = [get_integer(item, "InStackPositionNumber") for item in items]
    known = [number for number in numbers if number is not None]
    by_number = None
    if len(set(known)) == len(items):
        by_number = tuple(int(k) for k in np.argsort(known, kind="stable"))
    elif len(set(known)) > 1:
        raise UnreadableError(NO_ORDER, "not each has its own number")
    if places is None:
        return by_number or tuple(range(len(items)))
    return _order_by_place(places, by_number)


def _order_by_place(places: NDArray[np.float64], by_number: tuple[int, ...] | None) -> tuple[int, ...]:
    """Order frames along the line on which they lie."""
    offsets = places - places[0]
    axis = offsets[np.argmax(np.linalg.norm(offsets, axis=1))]
    if axis[2] < 0:  # upwards, as slices of a breast on its support are counted
        axis = -axis
    along = offsets @ axis / np.linalg.norm(axis)
    upwards = tuple(int(k) for k in np.argsort(along, kind="stable"))
    if np.diff(along[list(upwards)]).min() <= 1e-3 * np.ptp(along) / (len(along) - 1):
        raise UnreadableError(NO_ORDER, "two lie at the same place")
    downwards = upwards[::-1]
    if by_number is not None:
        if by_number not in (upwards, downwards):
            raise UnreadableError(NO_ORDER, "their numbers contradict their positions")
        return by_number
    return downwards if (np.diff(along) < 0).all() else upwards
