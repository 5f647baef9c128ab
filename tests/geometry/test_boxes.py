import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.geometry.boxes import rotate_box, to_grid, to_native, touches_volume

SIZE, GRID = (60, 2457, 1890), (8, 64, 64)


@given(
    st.integers(8, 51),
    st.integers(0, 1800),
    st.integers(0, 1200),
    st.integers(1, 600),
    st.integers(1, 600),
)
def test_a_native_box_comes_back_with_its_centre_on_its_slice(
    slice_: int, y: int, x: int, w: int, h: int
) -> None:
    box = {"Slice": slice_, "X": x, "Y": y, "Width": w, "Height": h}
    placed = np.array([to_grid(box, SIZE, GRID)], np.float32)
    assert (placed[:, :3] >= 0).all()
    assert (placed[:, 3:] <= GRID).all()
    back = to_native(placed, SIZE, GRID).iloc[0]
    for name in ("X", "Y", "Width", "Height"):
        assert back[name] == pytest.approx(box[name], abs=0.01)
    assert back["Z"] + back["Depth"] / 2 == pytest.approx(slice_, abs=0.01)


def test_a_box_at_the_end_of_the_stack_is_cut_off_there() -> None:
    box = {"Slice": 59, "X": 0, "Y": 0, "Width": 10, "Height": 10}
    assert to_grid(box, SIZE, GRID)[3] == GRID[0]


def test_no_boxes_are_an_empty_table() -> None:
    assert to_native(np.zeros((0, 6), np.float32), SIZE, GRID).shape == (0, 6)


def test_a_box_rotates_with_its_volume() -> None:
    size = (1, 7, 9)
    box = {"Slice": 0, "X": 2, "Y": 1, "Width": 3, "Height": 4}
    drawn = np.zeros(size)
    drawn[:, 1:5, 2:5] = 1
    turned = box | rotate_box(box, size)
    rows, columns = (slice(turned[at], turned[at] + turned[n]) for at, n in (("Y", "Height"), ("X", "Width")))
    assert drawn[:, ::-1, ::-1][:, rows, columns].all()
    assert box | rotate_box(turned, size) == box


@pytest.mark.parametrize(
    ("change", "touches"),
    [
        ({}, True),
        ({"X": -9}, True),
        ({"X": -10}, False),
        ({"X": 1889}, True),
        ({"X": 1890}, False),
        ({"Y": -10}, False),
        ({"Y": 2457}, False),
        ({"Slice": -1}, False),
        ({"Slice": 60}, False),
    ],
)
def test_a_box_touches_its_volume_or_lies_outside(change: dict[str, int], touches: bool) -> None:
    box = {"Slice": 0, "X": 0, "Y": 0, "Width": 10, "Height": 10} | change
    assert touches_volume(box, SIZE) is touches
