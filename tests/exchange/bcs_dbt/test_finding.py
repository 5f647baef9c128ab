from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.exchange.bcs_dbt.finding import LEAVES, find_files
from dbtbench.exchange.bcs_dbt.header_cache import HeaderCache
from dbtbench.exchange.locating import SHARED
from dbtbench.runtime.pool import Pool

COLLECTION = "Breast-Cancer-Screening-DBT"
STUDY = f"{COLLECTION}/DBT-P00013/01-01-2000-DBT-S00163-MAMMO DIAGNOSTIC DIGITAL BILATERAL-56865"
PLAIN, NA = f"{STUDY}/20566.000000-32081/1-1.dcm", f"{STUDY}/20566.000000-NA-32081/1-1.dcm"
CLASSIC = f"{COLLECTION}/DBT-P00013/1.2.826.0.1.3680043.8.498.1/1.2.826.0.1.3680043.8.498.2/1-1.dcm"
MANIFEST = "manifest-1617905855234"


def table(*rows: tuple[str, str], reason: str = "") -> pd.DataFrame:
    """Volumes of patient P1: (view, descriptive path)."""
    return pd.DataFrame(
        [
            {"PatientID": "P1", "StudyUID": "S1", "View": view, "descriptive_path": path, "classic_path": ""}
            | {"label": "normal", "split": "train", "reason": reason, "detail": ""}
            for view, path in rows
        ]
    )


def find(root: Path, volumes: pd.DataFrame) -> pd.DataFrame:
    return find_files(root, volumes, Pool(), HeaderCache(root.parent / "headers.json"))


def outcome(found: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(found["file"], found["reason"], strict=True))


def touch(path: Path, size: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


# By the paths in the tables


@pytest.mark.parametrize("below", ["", f"{MANIFEST}/"])
@pytest.mark.parametrize("stored", [PLAIN, NA, CLASSIC])
@pytest.mark.parametrize("named", [PLAIN, NA])
def test_a_file_is_found_in_either_layout_and_spelling(
    root: Path, named: str, stored: str, below: str
) -> None:
    touch(root / (below + stored))
    found = find(root, table(("lcc", named)).assign(classic_path=CLASSIC))
    assert found[["file", "bytes", "reason"]].to_numpy().tolist() == [[below + stored, 5, ""]]


@pytest.mark.parametrize("stored", [PLAIN, NA, CLASSIC])
def test_the_root_may_be_the_collection_s_own_folder(tmp_path: Path, stored: str) -> None:
    touch(tmp_path / stored)
    found = find(tmp_path / COLLECTION, table(("lcc", PLAIN)).assign(classic_path=CLASSIC))
    assert outcome(found) == [(stored.partition("/")[2], "")]


def test_a_renamed_folder_is_not_the_collection_s_own(root: Path) -> None:
    touch(root / "b.dcm")
    assert outcome(find(root, table(("lcc", "a/b.dcm")))) == [("", NOT_DOWNLOADED)]


def test_backslashes_and_superfluous_dots_are_understood(root: Path) -> None:
    touch(root / PLAIN)
    found = find(root, table(("lcc", ".\\" + PLAIN.replace("/", "\\"))))
    assert outcome(found) == [(PLAIN, "")]


def test_only_series_folders_have_two_spellings(root: Path) -> None:
    touch(root / "S.000000-NA-1/series/1-1.dcm")
    assert outcome(find(root, table(("lcc", "S.000000-1/series/1-1.dcm")))) == [("", NOT_DOWNLOADED)]


def test_a_partial_download_is_normal(root: Path) -> None:
    touch(root / "a.dcm", 7)
    found = find(root, table(("lcc", "a.dcm"), ("rcc", "b.dcm")))
    assert outcome(found) == [("a.dcm", ""), ("", NOT_DOWNLOADED)]
    assert found["bytes"].tolist() == [7, -1]
    assert found["bytes"].dtype == "int64"


@pytest.mark.parametrize("path", ["x" * 300, "\0", "a.dcm/b.dcm", "x/" * 5000])
def test_names_that_no_file_can_have_are_not_there(root: Path, path: str) -> None:
    touch(root / "a.dcm")
    assert outcome(find(root, table(("lcc", path)))) == [("", NOT_DOWNLOADED)]


def test_a_folder_is_no_file(root: Path) -> None:
    (root / "a.dcm").mkdir()
    assert outcome(find(root, table(("lcc", "a.dcm")))) == [("", NOT_DOWNLOADED)]


def test_a_row_without_any_path_is_another_thing_than_a_missing_file(root: Path) -> None:
    assert outcome(find(root, table(("lcc", "")))) == [("", "no row in the file-paths table")]


def test_a_file_that_several_volumes_name_is_nobody_s(root: Path) -> None:
    touch(root / "a.dcm")
    (root / "b.dcm").symlink_to("a.dcm")
    found = find(root, table(("lcc", "a.dcm"), ("rcc", "./a.dcm"), ("lmlo", "b.dcm")))
    assert outcome(found) == [("a.dcm", SHARED)] * 3


def test_rows_that_are_rejected_already_keep_their_reason_and_name_their_file(root: Path) -> None:
    touch(root / "a.dcm")
    repeated = table(("lcc", "a.dcm"), ("rcc", "../b.dcm"), reason="duplicate row")
    found = find(root, pd.concat([table(("lcc", "a.dcm")), repeated], ignore_index=True))
    assert outcome(found) == [("a.dcm", ""), ("a.dcm", "duplicate row"), ("", "duplicate row")]


# Nothing outside the root


@pytest.mark.parametrize("where", ["descriptive_path", "classic_path"])
@pytest.mark.parametrize(
    "path",
    ["../secret.dcm", "/etc/passwd", "sub/../../secret.dcm", "sub/../a.dcm", "C:\\secret.dcm", "c:a.dcm",
     "..\\secret.dcm", "\\\\host\\share\\a.dcm"],
)  # fmt: skip
def test_a_path_out_of_the_root_is_refused_even_when_the_other_exists(
    root: Path, path: str, where: str
) -> None:
    touch(root / "a.dcm")
    touch(root.parent / "secret.dcm")
    volumes = table(("lcc", "a.dcm")).assign(classic_path="a.dcm").assign(**{where: path})
    found = find(root, volumes)
    assert outcome(found) == [("", LEAVES)]
    assert found["detail"].tolist() == [path]


@pytest.mark.parametrize("path", ["link.dcm", "folder/secret.dcm"])
def test_a_link_out_of_the_root_is_refused(root: Path, path: str) -> None:
    touch(root / "a.dcm")
    touch(root.parent / "out" / "secret.dcm")
    (root / "link.dcm").symlink_to(root.parent / "out" / "secret.dcm")
    (root / "folder").symlink_to("../out")
    volumes = table(("lcc", "a.dcm")).assign(classic_path=path)
    assert outcome(find(root, volumes)) == [("", LEAVES)]


def test_links_inside_the_root_are_followed_and_circles_end(root: Path) -> None:
    touch(root / "disk" / "a.dcm")
    (root / "images").symlink_to("disk")
    (root / "disk" / "again").symlink_to("..")
    (root / "circle").symlink_to("circle")
    found = find(root, table(("lcc", "images/again/images/a.dcm"), ("rcc", "circle/a.dcm")))
    assert outcome(found) == [("disk/a.dcm", ""), ("", NOT_DOWNLOADED)]


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    touch(root / "a.dcm")
    (root.parent / "alias").symlink_to(root)
    assert outcome(find(root.parent / "alias", table(("lcc", "a.dcm")))) == [("a.dcm", "")]


def test_a_folder_that_may_not_be_opened_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(root / "shut" / "a.dcm")
    look = Path.lstat

    def forbidden(path: Path) -> os.stat_result:
        if path.parent.name == "shut":  # the superuser, who may run this, could open any real one
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path)

    monkeypatch.setattr(Path, "lstat", forbidden)
    found = find(root, table(("lcc", "shut/a.dcm")))
    assert outcome(found) == [("", "file cannot be reached")]
    assert "Permission denied" in found["detail"][0]


pieces = st.sampled_from(
    ["sub", "a.dcm", "secret.dcm", "out", "..", ".", "", "link", "/", "C:", "\0", "x" * 300, "root", MANIFEST]
)
paths = st.lists(pieces | st.text(max_size=5), max_size=8).flatmap(
    lambda parts: st.sampled_from(["/", "\\", "//"]).map(lambda mark: mark.join(parts))
)


@settings(max_examples=300, deadline=None)
@given(paths, paths)
@example("sub/link/secret.dcm", "sub/a.dcm")
@example("x/" * 5000, "a.dcm")
def test_no_text_leads_out_of_the_root(descriptive: str, classic: str) -> None:
    with TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        touch(top / "out" / "secret.dcm")
        touch(top / "root" / "sub" / "a.dcm")
        (top / "root" / "sub" / "link").symlink_to(top / "out")
        volumes = table(("lcc", descriptive)).assign(classic_path=classic)
        [(file, reason)] = outcome(find(top / "root", volumes))
        if file:
            path = (top / "root" / file).resolve()
            assert path.is_relative_to(top / "root")
            assert path.is_file()
            assert reason == ""
        for text in (descriptive, classic):
            if ".." in text.replace("\\", "/").split("/") or text.startswith(("/", "\\", "sub/link/secret")):
                assert reason == LEAVES
