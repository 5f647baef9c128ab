import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.geometry.boxes import to_grid, to_native

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
