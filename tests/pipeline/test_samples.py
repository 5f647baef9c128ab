"""The gate to the store: a wrong sample is refused by name, one of another number type is converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import DBTBenchError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.pipeline import generate
from dbtbench.pipeline.samples import SampleError, check_sample, draw_samples
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.signals import Terminated
from dbtbench.workspace import Workspace

GRID = (4, 8, 16)
BOX = np.array([[1, 2, 3, 3, 6, 9]], np.float32)
NONE = np.zeros((0, 6), np.float32)


def grey(layout: Layout, grid: tuple[int, int, int] = GRID) -> Any:
    return np.random.default_rng(layout.seed).random(grid).astype(np.float32)


def ask(label: str = "cancer", boxes: Any = BOX) -> Layout:
    return Layout(7, 1, label, "lcc", boxes, 0)


def check(volume: Any, boxes: Any = BOX, label: str | None = None, layout: Layout | None = None) -> Sample:
    return check_sample("mine", Sample(volume, boxes, label), layout or ask(), GRID)


def refuse(*arguments: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(SampleError) as caught:
        check(*arguments, **more)
    assert caught.value.exit_code == 1
    message, start = str(caught.value), "generator mine, layout 7: "
    assert message.startswith(start)
    assert caught.value.hint
    return message.removeprefix(start), caught.value.hint


VOLUME = grey(ask())


@pytest.mark.parametrize(
    ("volume", "message", "hint"),
    [
        (np.full(GRID, np.nan), "512 of the volume's 512 values are NaN", "diverged"),
        (np.where(VOLUME > 0.5, np.inf, VOLUME), "values are infinite", "diverged"),
        (VOLUME * 2 - 1, "values run from −0.99", "return (x + 1) / 2"),
        ((VOLUME * 2 - 1).astype(np.float16), "values run from −0.99", "return (x + 1) / 2"),
        (torch.from_numpy(VOLUME * 2 - 1), "values run from −0.99", "return (x + 1) / 2"),
        (VOLUME * 255, "values run from 0.", "volume.astype(np.float32) / 255"),
        ((VOLUME * 255).astype(np.uint8), "values are whole numbers (uint8) from 0 to 25", "/ 255"),
        ((VOLUME * 1000).astype(int), "whole numbers (int64)", "/ 1023"),
        (torch.from_numpy((VOLUME * 65535).astype(np.int32)), "whole numbers (int32)", "/ 65535"),
        (VOLUME > 0.5, "whole numbers (bool) from 0 to 1", "in [0, 1]"),
        (VOLUME * 2000 - 1000, "values run from −99", "scale all volumes alike"),
        (VOLUME * 1.1, "values run from", ".clip(0, 1)"),
        (VOLUME - 0.1, "values run from", ".clip(0, 1)"),
        (VOLUME.transpose(1, 2, 0), "shape is (8, 16, 4)",
         "(rows, columns, slices): return volume.transpose((2, 0, 1)"),
        (VOLUME.transpose(2, 1, 0), "shape is (16, 8, 4)",
         "(columns, rows, slices): return volume.transpose((2, 1, 0)"),
        (VOLUME[None], "shape is (1, 4, 8, 16)", "volume.reshape((4, 8, 16))"),
        (VOLUME[:, :4], "shape is (4, 4, 16)", "train.grid"),
        (VOLUME[0], "shape is (8, 16)", "train.grid"),
        (VOLUME + 0j, "is numpy.ndarray, not numbers", "float32"),
        (None, "the volume is None", "float32"),
        ([[1.0], [1.0, 2.0]], "cannot become an array", "numpy array"),
    ],
)  # fmt: skip
def test_a_wrong_volume_is_refused(volume: Any, message: str, hint: str) -> None:
    found, advice = refuse(volume)
    assert message in found
    assert hint in advice


@pytest.mark.parametrize(
    ("boxes", "message", "hint"),
    [
        (BOX + 100, "box [101, 102, 103, 103, 106, 109] lies outside the grid (4, 8, 16)", "clip"),
        (BOX - [0, 2.01, 0, 0, 0, 0], "lies outside the grid", "clip"),
        (BOX[:, [3, 4, 5, 0, 1, 2]], "has no size along the slices", "low corner"),
        (BOX[:, [0, 1, 2, 3, 1, 5]], "has no size along the rows", "low corner"),
        (BOX * np.nan, "is not finite", "leave out"),
        (BOX[:, :4], "numpy.ndarray of shape (1, 4), not (n, 6)", "[z0, y0, x0, z1, y1, x1]"),
        (BOX[0], "of shape (6,), not (n, 6)", "one row for each lesion"),
        (None, "NoneType", "np.zeros((0, 6))"),
        ([["a"] * 6], "list of shape (1, 6), not (n, 6) numbers", "one row"),
    ],
)
def test_wrong_boxes_are_refused(boxes: Any, message: str, hint: str) -> None:
    found, advice = refuse(VOLUME, boxes)
    assert message.replace("NoneType", "None") in found
    assert hint in advice


@pytest.mark.parametrize(
    "sample", [VOLUME, (VOLUME, BOX), None, {"volume": VOLUME, "boxes": BOX}, torch.zeros(GRID)]
)
def test_what_is_no_sample_is_refused(sample: Any) -> None:
    with pytest.raises(SampleError, match=r"generator mine, layout 7: .* instead of a Sample") as caught:
        check_sample("mine", sample, ask(), GRID)
    assert caught.value.hint == "yield Sample(volume, boxes)"


@pytest.mark.parametrize(
    ("volume", "tolerance"),
    [
        (VOLUME.astype(np.float64), 0),
        (VOLUME.astype(np.float16), 5e-4),
        (torch.from_numpy(VOLUME), 0),
        (torch.from_numpy(VOLUME).requires_grad_(), 0),
        (torch.from_numpy(VOLUME).to(torch.bfloat16), 4e-3),
        (VOLUME.tolist(), 0),
        (VOLUME[::-1, ::-1][::-1, ::-1], 0),
    ],
)
def test_numbers_of_other_types_are_converted_without_loss(volume: Any, tolerance: float) -> None:
    sample = check(volume, BOX.tolist())
    assert sample.volume.dtype == sample.boxes.dtype == np.float32
    np.testing.assert_allclose(sample.volume, VOLUME, atol=tolerance, rtol=0)
    np.testing.assert_array_equal(sample.boxes, BOX)


@pytest.mark.parametrize(
    ("kind", "beyond", "accepted"),
    [
        (np.float64, 9e-7, True), (np.float64, 2e-6, False),
        (np.float32, 9e-7, True), (np.float32, 2e-6, False),
        (np.float16, 9.7e-4, True), (np.float16, 3e-3, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", [0, 1])
def test_values_may_leave_the_range_by_rounding_of_their_type(
    kind: type, beyond: float, accepted: bool, side: int
) -> None:
    volume = VOLUME.astype(kind)
    volume[0, 0, 0] = 1 + beyond if side else -beyond
    if accepted:
        stored = check(volume).volume
        assert 0 <= stored.min() <= stored.max() <= 1
    else:
        refuse(volume)


def test_a_box_may_leave_the_grid_by_rounding() -> None:
    edge = np.array([[0, 0, 0, 4.0005, 8, 16]])
    np.testing.assert_allclose(check(VOLUME, edge).boxes, edge)


@pytest.mark.parametrize("boxes", [[], NONE, torch.zeros(0, 6), ()])
def test_no_boxes_may_be_written_in_many_ways(boxes: Any) -> None:
    assert check(VOLUME, boxes).boxes.shape == (0, 6)


def test_a_sample_without_a_label_has_the_layouts() -> None:
    assert check(VOLUME).label == "cancer"
    assert check(VOLUME, label="benign").label == "benign"
    assert check(VOLUME, NONE).label == "cancer"  # a lesion need not be seen in every view


def test_boxes_in_a_volume_that_is_called_normal_are_refused() -> None:
    message, hint = refuse(VOLUME, layout=ask("normal", NONE))
    assert "1 boxes and the label normal" in message
    assert 'label="cancer"' in hint
    assert check(VOLUME, label="cancer", layout=ask("normal", NONE)).label == "cancer"
    refuse(VOLUME, label="normal")


def test_an_unknown_label_is_refused() -> None:
    assert refuse(VOLUME, label="malignant")[0] == "'malignant' is no label"


class Scripted(Generator[Recipe]):
    """Gives what `script` makes of each call."""

    script: ClassVar[Callable[[Any, Sequence[Layout]], Any]]

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.grid = train.grid

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        made: Iterator[Sample] = type(self).script(self, layouts)
        return made


def scripted(script: Callable[[Any, Any], Any]) -> Scripted:
    made: Scripted = type("Mine", (Scripted,), {"script": script})(Recipe())
    return made


def each(change: Callable[[Scripted, Layout], Any]) -> Scripted:
    return scripted(lambda self, layouts: (change(self, layout) for layout in layouts))


def good(self: Scripted, layout: Layout) -> Sample:
    return Sample(grey(layout, self.grid), layout.boxes)


def boom(self: Scripted, layout: Layout) -> Sample:
    raise ValueError("boom")


LAYOUTS = [Layout(index, index, "cancer", "lcc", BOX, 0) for index in range(3, 6)]


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (scripted(lambda self, layouts: [good(self, x) for x in layouts[:-1]]),
         "generator mine, layout 5: no sample; sample() gave 2 for 3 layouts"),
        (scripted(lambda self, layouts: [good(self, x) for x in (*layouts, layouts[0])]),
         "generator mine: sample() gives more than 3 samples for 3 layouts"),
        (scripted(lambda self, layouts: None), "generator mine: sample() returns None, not samples"),
        (scripted(lambda self, layouts: good(self, layouts[0])),
         "returns dbtbench.generator.Sample, not samples"),
        (scripted(boom), r"generator mine failed at .*test_samples.py:\d+: ValueError: boom"),
        (each(boom), r"generator mine failed at .*test_samples.py:\d+: ValueError: boom"),
    ],
)  # fmt: skip
def test_a_wrong_number_of_samples_and_a_failure_are_named(generator: Scripted, message: str) -> None:
    generator.grid = GRID
    with pytest.raises(DBTBenchError, match=message.replace("()", r"\(\)")):
        list(draw_samples(generator, "mine", LAYOUTS, GRID))


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_ctrl_c_and_sigterm_are_no_failure_of_a_generator(error: type[BaseException]) -> None:
    def stop(self: Scripted, layout: Layout) -> Sample:
        raise error

    with pytest.raises(error):
        list(draw_samples(each(stop), "mine", LAYOUTS, GRID))


def draw(work: Workspace, data: DBTDataset, generator: Scripted, n: int = 6) -> DBTDataset:
    return generate.draw(work, generate.fit_configured(work, "mine", generator, data), n)


def late(change: Callable[[Sample], Sample]) -> Scripted:
    """Right up to layout 3, which is changed."""
    return each(lambda self, x: change(good(self, x)) if x.index == 3 else good(self, x))


WRONG: dict[str, Callable[[Sample], Any]] = {
    "NaN": lambda s: Sample(s.volume * np.float32("nan"), s.boxes),
    "inf": lambda s: Sample(s.volume + np.float32("inf"), s.boxes),
    "[-1, 1]": lambda s: Sample(s.volume * 2 - 1, s.boxes),
    "0-255": lambda s: Sample((s.volume * 255).round(), s.boxes),
    "(H, W, D)": lambda s: Sample(s.volume.transpose(1, 2, 0), s.boxes),
    "boxes outside": lambda s: Sample(s.volume, BOX + 1000, "cancer"),
    "boxes swapped": lambda s: Sample(s.volume, BOX[:, [3, 4, 5, 0, 1, 2]], "cancer"),
    "too few": lambda s: None,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_generator_leaves_nothing_and_the_corrected_one_then_works(
    name: str, toy: DBTDataset, tmp_path: Path
) -> None:
    """Though it has the same name and version, and three right volumes were drawn before the wrong one."""
    work, change = Workspace(tmp_path / "work"), WRONG[name]
    with pytest.raises(SampleError, match=r"generator mine, layout 3: "):
        draw(work, toy, late(change))
    assert work.dataset_names() == []
    assert {path.suffix for path in work.datasets.rglob("*") if path.is_file()} == {".lock"}
    asked: list[int] = []

    def corrected(self: Scripted, layout: Layout) -> Sample:
        asked.append(layout.index)
        return good(self, layout)

    made = draw(work, toy, each(corrected))
    assert asked == list(range(6))
    assert made.fingerprint == draw(Workspace(tmp_path / "other"), toy, each(good)).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda s: Sample(s.volume.astype(np.float16), s.boxes),
        lambda s: replace(
            s, volume=torch.from_numpy(s.volume).requires_grad_(), boxes=torch.from_numpy(s.boxes)
        ),
    ],
    ids=["float16", "torch tensors"],
)
def test_half_precision_and_tensors_are_stored_as_what_they_mean(
    change: Callable[[Sample], Sample], toy: DBTDataset, tmp_path: Path
) -> None:
    made = draw(Workspace(tmp_path / "work"), toy, each(lambda self, x: change(good(self, x))))
    expected = draw(Workspace(tmp_path / "other"), toy, each(good))
    np.testing.assert_allclose(made.volumes(), expected.volumes(), atol=6e-4)
    assert made.boxes.equals(expected.boxes)


def test_a_failure_of_the_generators_code_keeps_what_was_drawn(toy: DBTDataset, tmp_path: Path) -> None:
    """Such as a GPU that is out of memory: the same command continues."""
    work = Workspace(tmp_path)
    with pytest.raises(DBTBenchError, match="generator mine failed"):
        draw(work, toy, late(lambda s: boom(scripted(boom), ask())))
    asked: list[int] = []

    def again(self: Scripted, layout: Layout) -> Sample:
        asked.append(layout.index)
        return good(self, layout)

    draw(work, toy, each(again))
    assert asked == [3, 4, 5]


@pytest.mark.parametrize("error", [SystemExit(), ValueError("boom")])
def test_a_generator_whose_fit_fails_is_named(toy: DBTDataset, tmp_path: Path, error: BaseException) -> None:
    class Leaves(Scripted):
        def fit(self, train: DBTDataset, run: Run) -> None:
            raise error

    with pytest.raises(DBTBenchError, match="generator mine failed at"):
        generate.fit_configured(Workspace(tmp_path), "mine", Leaves(Recipe()), toy)


def test_a_label_of_its_own_is_stored(toy: DBTDataset, tmp_path: Path) -> None:
    made = draw(
        Workspace(tmp_path), toy, each(lambda self, x: Sample(grey(x, self.grid), BOX, "benign")), n=3
    )
    assert set(made.cases["label"]) == {"benign"}
    assert set(made.boxes["Class"]) == {"benign"}
