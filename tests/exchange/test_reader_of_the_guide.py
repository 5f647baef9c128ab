"""The reader that CONTRIBUTING.md shows is run as it stands, on phantom files with its kind of table."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pydicom
import pytest
from pydicom import uid

from dbtbench.data.check import check_dataset
from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def code_of_the_guide() -> str:
    blocks = GUIDE.read_text(encoding="utf-8").split("```python\n")[1:]
    [code] = [block.split("```")[0] for block in blocks if "import_collection" in block]
    return code


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module of the guide."""
    file = tmp_path_factory.mktemp("guide") / "embed.py"
    file.write_text(code_of_the_guide(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("embed_of_the_guide", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def phantom(
    collection: Path, store_dicom: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> DBTDataset:
    """Phantom patients, imported as BCS-DBT; the file of a volume with a lesion is stored rotated by 180°."""
    top = tmp_path_factory.mktemp("phantom")
    shutil.copytree(collection, top / "files")
    boxes = pd.read_csv(top / "files" / "BCS-DBT-boxes-train-v2.csv")
    paths = pd.read_csv(top / "files" / "BCS-DBT-file-paths-train-v2.csv")
    file = top / "files" / boxes.head(1).merge(paths, on=KEY)["classic_path"][0]
    frames = pydicom.dcmread(file).pixel_array
    store_dicom(file, frames[:, ::-1, ::-1], uid.ExplicitVRLittleEndian)
    return import_bcs_dbt(top / "files", top / "phantom", ImportSettings())


@pytest.fixture
def root(phantom: DBTDataset) -> Path:
    return phantom.path.parent / "files"


@pytest.fixture
def metadata(phantom: DBTDataset, root: Path) -> pd.DataFrame:
    """The same patients as one table, with regions in pixels of the files as they are stored."""
    cases, boxes = phantom.cases, phantom.boxes.set_index("case")
    table = pd.DataFrame(
        {
            "empi_anon": cases["PatientID"],
            "acc_anon": cases["StudyUID"],
            "ImageLateralityFinal": cases["View"].str[0].str.upper(),
            "ViewPosition": cases["View"].str[1:].str.upper(),
            "anon_dicom_path": cases["file"],
            "finding": cases["label"].str.capitalize(),
            **dict.fromkeys(["roi_slice", "roi_x0", "roi_y0", "roi_x1", "roi_y1"], ""),
        }
    )
    for row, case in cases.iterrows():
        if case["case"] in boxes.index:
            box = boxes.loc[case["case"]]
            x, y = box["X"] + pd.Series([0, box["Width"]]), box["Y"] + pd.Series([0, box["Height"]])
            if case["flipped"]:
                x, y = case["columns"] - x[::-1], case["rows"] - y[::-1]
            table.loc[row, "roi_slice":] = [str(n) for n in (box["Slice"], *x[:1], *y[:1], *x[1:], *y[1:])]
    return table


Importer = Callable[[pd.DataFrame], DBTDataset]


@pytest.fixture
def import_table(embed: ModuleType, root: Path, tmp_path: Path) -> Importer:
    """`import_table(table)`: write the table next to the files, and import it as the data set `embed`."""

    def run(table: pd.DataFrame) -> DBTDataset:
        table.to_csv(root / "metadata.csv", index=False)
        made: DBTDataset = embed.import_embed(root, tmp_path / "embed", ImportSettings())
        return made

    return run


def test_the_reader_is_short_and_uses_public_names_only() -> None:
    code = code_of_the_guide()
    assert len(code.splitlines()) <= 55
    assert not re.search(r"import .*\b_|\._", code)


def test_the_reader_makes_the_same_data_set_as_that_of_bcs_dbt(
    phantom: DBTDataset, metadata: pd.DataFrame, import_table: Importer
) -> None:
    rotated = phantom.cases.loc[phantom.cases["flipped"], "case"]
    assert phantom.boxes["case"].isin(rotated).nunique() == 2  # boxes of both kinds of files
    made = import_table(metadata)
    assert [check.name for check in check_dataset(made.path) if not check.ok] == []
    assert made.meta["source"]["kind"] == "embed"
    pd.testing.assert_frame_equal(
        made.cases, phantom.cases.drop(columns=AXIS_COLUMNS)
    )  # with the digest of every volume
    pd.testing.assert_frame_equal(made.boxes.drop(columns="AD"), phantom.boxes.drop(columns="AD"))
    assert made.split_hash == phantom.split_hash


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"empi_anon": "=1+1"}, "volumes", "not an identifier"),
    ({"ViewPosition": "SPOT"}, "volumes", "not a view"),
    ({"finding": "lump"}, "volumes", "not a label"),
    ({"anon_dicom_path": "../1-1.dcm"}, "volumes", "path leaves the folder"),
    ({"anon_dicom_path": ""}, "volumes", "no file is named"),
    ({"roi_x0": "left"}, "boxes", "box has no position"),
    ({"roi_slice": ""}, "boxes", "box has no position"),
    ({"roi_x1": "0"}, "boxes", "box has no size"),
    ({"roi_slice": "99"}, "boxes", "box lies outside the volume"),
]


@pytest.mark.parametrize(("change", "kind", "reason"), WRONG)
def test_a_wrong_cell_is_refused_with_its_reason_and_the_other_rows_are_imported(
    metadata: pd.DataFrame, import_table: Importer, change: dict[str, str], kind: str, reason: str
) -> None:
    row = metadata.index[metadata["roi_slice"] != ""][0]
    for column, cell in change.items():
        metadata.loc[row, column] = cell
    made = import_table(metadata)
    report = made.meta["import_report"]
    counts = report if kind == "volumes" else report["boxes"]
    assert counts["rejected"] == {reason: 1}
    assert report["imported"] == len(metadata) - (kind == "volumes")
    assert reason in made.read_rejected()["reason"].tolist()
    assert all(check.ok for check in check_dataset(made.path))


def test_rows_that_do_not_go_together_are_refused(metadata: pd.DataFrame, import_table: Importer) -> None:
    again, other = metadata.iloc[[0]], metadata.iloc[[1]].assign(acc_anon="another study")
    made = import_table(pd.concat([metadata, again, other]))
    assert made.meta["import_report"]["rejected"] == {"several rows name this file": 2, "duplicate row": 1}
    assert all(check.ok for check in check_dataset(made.path))


def test_a_table_without_a_column_is_refused(metadata: pd.DataFrame, import_table: Importer) -> None:
    with pytest.raises(UsageError, match=r"metadata\.csv has no column finding, roi_x1"):
        import_table(metadata.drop(columns=["finding", "roi_x1"]))


def test_a_file_that_comes_later_is_added(
    phantom: DBTDataset, metadata: pd.DataFrame, import_table: Importer, root: Path
) -> None:
    file = root / metadata["anon_dicom_path"][3]
    file.rename(root / "not yet")
    first = import_table(metadata)
    assert (first.meta["import_report"]["missing"], len(first)) == (1, len(metadata) - 1)
    (root / "not yet").rename(file)
    second = import_table(metadata)
    pd.testing.assert_frame_equal(second.cases, phantom.cases.drop(columns=AXIS_COLUMNS))
    assert second.split_hash == first.split_hash  # it does not depend on what was downloaded


def test_a_folder_without_the_table_is_named(embed: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no file .*metadata\.csv"):
        embed.import_embed(tmp_path, tmp_path / "embed", ImportSettings())
