"""Lesions anywhere: in the breast, of sizes like the training lesions', and the same for every generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import UsageError
from dbtbench.generator import Layout
from dbtbench.geometry.views import laterality, mirror_boxes
from dbtbench.layouts import draw_layouts
from dbtbench.lesions.anywhere import Anywhere, SizeDistribution
from dbtbench.lesions.hosts import HostReader
from dbtbench.lesions.places import plane_distance
from dbtbench.pipeline.request import GenerationRequest
from dbtbench.workspace import Workspace


@pytest.fixture(scope="module")
def train(toy: DBTDataset) -> DBTDataset:
    return toy.select("train")


@pytest.fixture(scope="module")
def known(train: DBTDataset) -> list[Layout]:
    return draw_layouts(train, 120, 0, 0.8)


@pytest.fixture(scope="module")
def anywhere(train: DBTDataset) -> list[Layout]:
    return draw_layouts(train, 120, 0, 0.8, places="anywhere")


def centres(layouts: list[Layout], width: int) -> np.ndarray:
    """Centres as in a left breast, (n, 3)."""
    boxes = [mirror_boxes(one.boxes, width) if laterality(one.view) == "r" else one.boxes for one in layouts]
    found = np.concatenate(boxes)
    return (found[:, :3] + found[:, 3:]) / 2


def test_only_the_boxes_are_others(known: list[Layout], anywhere: list[Layout]) -> None:
    for one, other in zip(known, anywhere, strict=True):
        assert len(one.boxes) == len(other.boxes)
        assert not len(one.boxes) or (one.boxes != other.boxes).any()
        same = replace(other, boxes=one.boxes)
        assert {**vars(same), "boxes": 0} == {**vars(one), "boxes": 0}


def test_the_whole_lesion_lies_where_one_can_lie_in_its_host(
    train: DBTDataset, anywhere: list[Layout]
) -> None:
    hosts, (slices, _, width) = HostReader(train, "test"), train.grid
    for layout in anywhere:
        free = hosts.read_host(layout).free
        boxes = mirror_boxes(layout.boxes, width) if laterality(layout.view) == "r" else layout.boxes
        for box in boxes:
            assert free[plane_distance(box, free.shape) <= 0.95].all()
            assert 0 <= box[0] < box[3] <= slices + 1e-4


def test_they_spread_over_the_breast_and_the_known_ones_do_not(
    train: DBTDataset, known: list[Layout], anywhere: list[Layout]
) -> None:
    hosts, width = HostReader(train, "test"), train.grid[2]
    inside = np.mean([hosts.read(int(case))[0].free for case in train.cases["case"]], axis=0) > 0.5
    spread = np.argwhere(inside).std(axis=0)
    near, far = centres(known, width)[:, 1:].std(axis=0), centres(anywhere, width)[:, 1:].std(axis=0)
    assert (near < 0.6 * spread).all()
    assert far == pytest.approx(spread * (0.8, 0.75), rel=0.2), "a little less: lesions end at the outline"
    assert centres(anywhere, width)[:, 0].std() > 1.5 * centres(known, width)[:, 0].std()


def test_layout_i_depends_on_nothing_but_i(train: DBTDataset, anywhere: list[Layout]) -> None:
    (alone,) = draw_layouts(train, 1, 0, 0.8, first=7, places="anywhere")
    assert alone.boxes.tobytes() == anywhere[7].boxes.tobytes()


def test_several_lesions_do_not_overlap(train: DBTDataset, known: list[Layout]) -> None:
    layout = next(one for one in known if len(one.boxes))
    many = replace(layout, boxes=np.repeat(layout.boxes, 4, axis=0))
    boxes = Anywhere(train).draw(many, np.random.default_rng(0))
    assert np.sum([plane_distance(box, train.grid[1:]) <= 1 for box in boxes], axis=0).max() == 1


def test_a_lesion_too_large_for_the_breast_stays_where_it_was(train: DBTDataset, known: list[Layout]) -> None:
    layout = next(one for one in known if len(one.boxes))
    drawer = Anywhere(train)
    drawer.sizes = SizeDistribution(np.array([[0, 0, 0, 1, 400, 400]], np.float32))
    np.testing.assert_allclose(drawer.draw(layout, np.random.default_rng(0)), layout.boxes, atol=1e-4)


def test_sizes_have_the_mean_spread_and_correlation_of_the_training_boxes() -> None:
    rng = np.random.default_rng(0)
    logs = rng.multivariate_normal([2, 2.2], [[0.2, 0.12], [0.12, 0.15]], 400)
    boxes = np.concatenate([np.zeros((400, 3)), np.ones((400, 1)), np.exp(logs)], axis=1).astype(np.float32)
    sizes = SizeDistribution(boxes)
    drawn = np.log([sizes.draw(rng) for _ in range(2000)])
    np.testing.assert_allclose(drawn.mean(axis=0), logs.mean(axis=0), atol=0.04)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(logs.T), atol=0.03)
    assert (drawn >= logs.min(axis=0) - 1e-5).all()
    assert (drawn <= logs.max(axis=0) + 1e-5).all()


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), min_size=1, max_size=4), st.integers(0, 9))
def test_any_boxes_give_sizes_between_the_smallest_and_the_largest(
    sizes: list[tuple[float, float]], seed: int
) -> None:
    boxes = np.array([[0, 0, 0, 1, *size] for size in sizes], np.float32)
    drawn = SizeDistribution(boxes).draw(np.random.default_rng(seed))
    low, high = np.maximum(boxes[:, 4:], 1e-3).min(axis=0), np.maximum(boxes[:, 4:], 1e-3).max(axis=0)
    assert (drawn >= low * 0.999).all()
    assert (drawn <= high * 1.001).all()


def test_a_request_says_so_and_one_without_is_as_it_was(toy: DBTDataset, tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    usual = GenerationRequest("paste", toy, n=6, positives=1.0).run(work)
    other = GenerationRequest("paste", toy, n=6, positives=1.0, places="anywhere").run(work)
    assert "places" not in usual.meta["source"]
    assert other.meta["source"]["places"] == "anywhere"
    assert other.name != usual.name
    moved = (other.boxes[GRID_BOX].to_numpy() != usual.boxes[GRID_BOX].to_numpy()).any(axis=1)
    assert moved.all()


def test_unknown_places_are_an_error(train: DBTDataset) -> None:
    with pytest.raises(UsageError, match="no places 'everywhere' for lesions"):
        draw_layouts(train, 1, 0, 1.0, places="everywhere")  # type: ignore[arg-type]
