"""The contact sheet: a few dozen volumes that stand for a data set, in one picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image

from dbtbench.data.dataset import LABELS, DBTDataset
from dbtbench.data.store import VolumeStore
from dbtbench.errors import UsageError
from dbtbench.figures.comparison import BOX, tile
from dbtbench.figures.contact_sheet import TILES, choose, draw_contact_sheet
from dbtbench.geometry.views import Volume


@pytest.fixture(autouse=True)
def _any_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of these rows only give them an order."""
    monkeypatch.setattr(VolumeStore, "read", lambda self, case, sha256: np.asarray(self.array[case]))


META = {"name": "made", "grid": [1, 2, 2], "intensity": {"window": "dicom"}}


def table(
    views: list[str], labels: list[str], splits: list[str], size: tuple[int, int] = (2, 2)
) -> pd.DataFrame:
    n = len(views)
    numbers = np.random.default_rng(0).permutation(n)
    columns: dict[str, Any] = {"case": range(n), "PatientID": [f"P{i:05d}" for i in range(n)], "View": views}
    columns |= {"label": labels, "split": splits, "rows": size[0], "columns": size[1]}
    return pd.DataFrame(columns | {"sha256": [f"{i:064x}" for i in numbers]})


def dataset_of(
    path: Path, cases: pd.DataFrame, grid: tuple[int, int, int], with_boxes: list[int]
) -> DBTDataset:
    """Volumes are black; every box is the whole grid."""
    zarr.create_array(path / "volumes.zarr", shape=(len(cases), *grid), chunks=(1, *grid), dtype="uint16")
    faces = dict(zip(("z0", "y0", "x0", "z1", "y1", "x1"), (0, 0, 0, *grid), strict=True))
    boxes = pd.DataFrame({"case": with_boxes}).assign(**faces)
    return DBTDataset(path, META | {"grid": list(grid)}, cases, boxes)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def screening(tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """22,032 volumes with the frequencies of BCS-DBT; some views and combinations exist once."""
    n = 22_032
    views = [("lcc", "lmlo", "rcc", "rmlo")[i % 4] for i in range(n)]
    labels = ["normal"] * n
    splits = ["train"] * 19_148 + ["validation"] * 1_163 + ["test"] * 1_721
    for i in range(0, 1_120 * 19, 19):
        labels[i] = "actionable"
    for i in range(5, 223 * 19, 19):
        labels[i] = "benign"
    for i in range(7, 173 * 19, 19):
        labels[i] = "cancer"
    for i, view in enumerate(("lcc2", "rmlo1", "lmlo3", "rcc12")):
        views[20_000 + i] = view
    boxes = [i for i in range(n) if labels[i] in ("benign", "cancer") and i % 2]
    path = tmp_path_factory.mktemp("screening")
    return dataset_of(path, table(views, labels, splits), (1, 2, 2), boxes)


def test_every_class_view_and_split_of_a_large_set_is_there(screening: DBTDataset) -> None:
    shown = choose(screening)
    assert len(shown) == TILES == len({row.case for row in shown})
    assert {row.label for row in shown} == set(LABELS)
    assert {row.View for row in shown} == set(screening.cases["View"])
    assert {row.split for row in shown} == set(screening.cases["split"])


def test_volumes_with_lesions_come_first_and_the_gravest_of_them(screening: DBTDataset) -> None:
    shown = choose(screening)
    lesions = [row.case in set(screening.boxes["case"]) for row in shown]
    assert lesions == sorted(lesions, reverse=True)
    assert lesions.count(True) >= 8
    graveness = [LABELS.index(row.label) for row, lesion in zip(shown, lesions, strict=True) if lesion]
    assert graveness == sorted(graveness, reverse=True)


def test_a_volume_with_a_lesion_is_preferred_within_its_class_and_view(tmp_path: Path) -> None:
    cases = table(["lcc"] * 60, ["cancer"] * 60, ["train"] * 60)
    dataset = dataset_of(tmp_path, cases, (1, 2, 2), [59])
    assert choose(dataset, 1)[0].case == 59


def test_the_choice_does_not_depend_on_the_order_of_the_rows(screening: DBTDataset) -> None:
    mixed = screening.cases.sample(frac=1, random_state=1).reset_index(drop=True)
    turned = DBTDataset(screening.path, screening.meta, mixed, screening.boxes)
    assert choose(turned) == choose(screening)


def test_only_what_is_shown_is_read_and_the_bytes_are_always_the_same(
    screening: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    volumes = DBTDataset.volumes

    def noted(self: DBTDataset, cases: Any = None) -> Volume:
        read.extend(cases)
        return volumes(self, cases)

    monkeypatch.setattr(DBTDataset, "volumes", noted)
    for name in ("a.png", "b.png"):
        draw_contact_sheet(screening, tmp_path / name)
    assert len(read) == 2 * TILES
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 1, 7), (8, 32, 32)])
@pytest.mark.parametrize("cases", [0, 1, 5])
def test_any_grid_and_number_of_volumes_can_be_drawn(
    tmp_path: Path, grid: tuple[int, int, int], cases: int
) -> None:
    rows = table(["lcc"] * cases, ["benign"] * cases, ["train"] * cases, (7, 5))
    draw_contact_sheet(dataset_of(tmp_path, rows, grid, [0][:cases]), tmp_path / "sheet.png")
    picture = pixels(tmp_path / "sheet.png")
    assert (picture == BOX).all(axis=-1).any() == (cases > 0)


@pytest.mark.parametrize("size", [(2457, 1890), (1996, 2457), (100, 3000), (3000, 1), (0, 5)])
def test_volumes_have_the_shape_of_the_original_not_of_the_grid(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    dataset = dataset_of(tmp_path, table(["lcc"], ["normal"], ["train"], size), (2, 16, 16), [])
    draw_contact_sheet(dataset, tmp_path / "sheet.png")
    black = (pixels(tmp_path / "sheet.png") == 0).all(axis=-1)
    high, wide = black.any(axis=1).sum(), black.any(axis=0).sum()
    expected = max(size[0], 1) / size[1]
    assert max(high, wide) >= 150
    assert abs(high - expected * wide) <= max(expected, 1) or min(high, wide) == 1


def test_hostile_names_do_not_hinder_it(tmp_path: Path) -> None:
    cases = table(["lcc", "rmlo\n2"], ["cancer", "?"], ["train", ""])
    cases["PatientID"] = ["x" * 100_000, "a\nb\x00\u202e\U0001f600"]
    draw_contact_sheet(dataset_of(tmp_path, cases, (1, 2, 2), []), tmp_path / "sheet.png")
    assert pixels(tmp_path / "sheet.png").shape[1] < 2_000


def test_a_tile_shows_the_slice_through_the_lesion_and_the_boxes_it_cuts(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, table(["lcc"], ["cancer"], ["train"], (80, 40)), (8, 20, 20), [0, 0])
    store = zarr.open_array(tmp_path / "volumes.zarr", mode="r+")
    store[0, 6] = 65535 // 2
    dataset.boxes.loc[0, ["z0", "y0", "x0", "z1", "y1", "x1"]] = [5, 2, 10, 8, 6, 15]
    dataset.boxes.loc[1, ["z0", "y0", "x0", "z1", "y1", "x1"]] = [0, 12, 0, 6, 20, 10]
    picture = np.asarray(tile(dataset, 0, (40, 80)))
    outlined = (picture == BOX).all(axis=-1)
    rows, columns = np.flatnonzero(outlined.any(axis=1)), np.flatnonzero(outlined.any(axis=0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (8, 24, 20, 30)
    assert set(np.unique(picture[~outlined])) == {127}


@pytest.mark.parametrize(("suffix", "start"), [(".jpg", b"\xff\xd8"), (".pdf", b"%PDF"), (".svg", b"<svg")])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    cases = table(["lcc"], ["cancer"], ["train"])
    cases["PatientID"] = ["P<7>&"]
    dataset = dataset_of(tmp_path, cases, (1, 2, 2), [0])
    for name in ("a", "b"):
        draw_contact_sheet(dataset, tmp_path / f"{name}{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content.startswith(start)
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".svg":
        assert b">P&lt;7&gt;&amp;</text>" in content


def test_another_suffix_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, table(["lcc"], ["cancer"], ["train"]), (1, 2, 2), [])
    with pytest.raises(UsageError, match=r"sheet\.gif: a picture's suffix is its format"):
        draw_contact_sheet(dataset, tmp_path / "sheet.gif")


def test_without_lesions_the_middle_slice_is_shown(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, table(["lcc"], ["normal"], ["train"]), (9, 4, 4), [])
    zarr.open_array(tmp_path / "volumes.zarr", mode="r+")[0, 4] = 65535
    assert (np.asarray(tile(dataset, 0, (4, 4))) == 255).all()


def test_a_toy_data_set_is_drawn_whole(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy", 2)
    assert sorted(row.case for row in choose(toy)) == list(range(8))
    assert [row.label for row in choose(toy)] == ["cancer"] * 4 + ["normal"] * 4
