"""No word of a header leaves its file: a secret in every text element is nowhere afterwards."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.errors import UnreadableError
from dbtbench.exchange.bcs_dbt import header_cache

SECRETS = {
    **{
        "PN": "QZDOE^JANEQZ",
        "LO": "QZMRN778899",
        "SH": "QZACC4711",
        "LT": "QZ recall of jane",
        "UR": "http://qz.test",
    },
    **{
        "ST": "QZ Street 5",
        "UT": "QZ unlimited text",
        "UC": "QZ characters",
        "AE": "QZSTATION",
        "CS": "QZCODE",
    },
    **{"DA": "19510203", "DT": "19510203111213", "TM": "111213.987654", "AS": "073Y"},
    **{
        "UI": "1.2.826.77.19510203.4711",
        "file": "QZSOURCE",
        "preamble": "QZPREAMBLE" * 3,
        "private": "QZPRIVATE",
    },
    **{"column": "QZUNREAD", "number": "QZDOE JANE 1951"},
}
"""A secret for each kind of text element, for file meta, preamble, private elements and columns."""
NEEDED = {
    "SOPClassUID",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "SpecificCharacterSet",
    "ImageType",
    "ConcatenationUID",
}
"""Text that says how a file is to be read, or that it is no whole volume."""


def list_forms(secret: str) -> Iterator[bytes]:
    """The forms in which a secret could be found: plain, in parts, turned round, encoded, hashed."""
    parts = secret.replace("^", " ").split()
    for text in {
        secret,
        " ".join(parts),
        *(" ".join(parts[::-1]), "^".join(parts[::-1]), ", ".join(parts[::-1])),
    }:
        raw = text.encode()
        yield from (raw, text.encode("utf-16-le"), text.encode("utf-16-be"))
        yield from (form.encode() for form in (raw.hex(), raw.hex().upper()))
        yield from (getattr(hashlib, name)(raw).hexdigest().encode() for name in ("md5", "sha1", "sha256"))
        yield base64.b64encode(raw)
    if "^" in secret:
        yield from (part.encode() for part in parts)


FORMS = {form: name for name, secret in SECRETS.items() if name != "AS" for form in list_forms(secret)}
"""Four characters of an age may be anywhere by chance."""


def unpack(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    if path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            return b"".join(name.encode() + packed.read(name) for name in packed.namelist())
    return raw


def find_secrets(contents: Iterable[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """Find secrets in files or messages: where, and of which kind."""
    return {(where, kind) for where, raw in contents for form, kind in FORMS.items() if form in raw}


def plant(file: Path, **changes: Any) -> None:
    """Put a secret into every text element that there is room for."""
    dataset = pydicom.dcmread(file)
    for tag, (vr, vm, _, retired, keyword) in DicomDictionary.items():
        wanted = vr in SECRETS and vr != "CS" and vm.startswith("1") and 0x0008 <= tag >> 16 <= 0x0070
        if wanted and not retired and keyword and keyword not in NEEDED:
            setattr(dataset, keyword, SECRETS[vr])
    block = dataset.private_block(0x0019, SECRETS["private"], create=True)
    block.add_new(1, "LO", SECRETS["private"])
    block.add_new(2, "UN", SECRETS["private"].encode())
    groups = dataset.SharedFunctionalGroupsSequence[0]
    groups.FrameAnatomySequence[0].AnatomicRegionSequence = [Dataset()]
    groups.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning = SECRETS["LO"]
    dataset.ViewCodeSequence[0].CodeMeaning = SECRETS["LO"]
    meta: Any = dataset.file_meta
    meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle = SECRETS["UI"], SECRETS["file"]
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = SECRETS["UI"], SECRETS["file"].encode()
    dataset.preamble = SECRETS["preamble"].encode().ljust(128, b"\0")
    for keyword, value in changes.items():
        setattr(meta if keyword == "TransferSyntaxUID" else dataset, keyword, value)
    dataset.save_as(file)


def poke(file: Path, keyword: str, text: str) -> None:
    """Put text where a number is due."""
    dataset = pydicom.dcmread(file)
    raw = text.encode() + b" " * (len(text) % 2)
    dataset._dict[Tag(keyword)] = RawDataElement(Tag(keyword), "IS", len(raw), raw, 0, False, True)
    dataset.save_as(file)


def set_function(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0].VOILUTFunction = SECRETS["CS"]
    dataset.save_as(file)


REJECTED: tuple[Callable[[Path], object], ...] = (
    lambda file: plant(file, PhotometricInterpretation=SECRETS["CS"]),
    lambda file: plant(file, SOPClassUID=SECRETS["UI"]),
    lambda file: plant(file, TransferSyntaxUID=pydicom.uid.UID(SECRETS["UI"])),
    lambda file: plant(file, PresentationLUTShape=SECRETS["CS"]),
    lambda file: poke(file, "NumberOfFrames", SECRETS["number"]),
    lambda file: poke(file, "NumberOfFrames", SECRETS["DA"]),
    set_function,
    lambda file: file.write_bytes(file.read_bytes()[:-3000]),
)


@pytest.fixture
def planted(collection: Path, tmp_path: Path) -> Path:
    """A collection with secrets in all headers and unread columns; half of its files cannot be read."""
    root = Path(shutil.copytree(collection, tmp_path / "root"))
    for number, file in enumerate(sorted(root.rglob("*.dcm"))):
        plant(file)
        if number < len(REJECTED):
            REJECTED[number](file)
    next(iter(sorted(root.rglob("*.dcm"), reverse=True))).rename(root / "unclaimed.dcm")
    for table in root.glob("*.csv"):
        heading, *rows = table.read_text().splitlines()
        rows = [f"{row},{SECRETS['column']}" for row in rows] + [f"{rows[-1]},,{SECRETS['column']}"]
        table.write_text("\n".join([f"{heading},Remarks", *rows]) + "\n")
    return root


def run(*words: Any) -> bytes:
    """Everything that a command says."""
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    notes = getattr(done.exception, "__notes__", ())
    return "\n".join([done.output, str(done.exception or ""), *notes]).encode()


def search(folder: Path, said: dict[str, bytes], kept: list[bytes]) -> set[tuple[str, str]]:
    files = ((str(path.relative_to(folder)), unpack(path)) for path in folder.rglob("*") if path.is_file())
    return find_secrets([*said.items(), *files, *(("cache of headers", raw) for raw in kept)])


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever the cache of headers held while an import ran."""
    contents: list[bytes] = []
    save = header_cache.HeaderCache.save

    def watch(self: header_cache.HeaderCache) -> None:
        save(self)
        contents.append(self.path.read_bytes())

    monkeypatch.setattr(header_cache.HeaderCache, "save", watch)
    return contents


def test_no_secret_of_a_header_or_an_unread_column_is_anywhere(
    planted: Path, tmp_path: Path, kept: list[bytes]
) -> None:
    out = tmp_path / "out"
    place = ["--workspace", out / "work"]
    said = {"import": run("data", "import", "bcs-dbt", planted, "--name", "d", "--jobs", 1, *place)}
    assert b"= 7 imported" in said["import"]
    said["info"] = run("data", "info", "--data", "d", "--sheet", out / "d.png", *place)
    said["check"] = run("data", "check", "--data", "d", *place)
    for form in ("dicom", "nifti", "npz"):
        said[form] = run("data", "export", "--data", "d", "--format", form, "--out", out / form, *place)
        assert list((out / form).glob("0*"))
    for file in planted.rglob("*.dcm"):
        file.write_bytes(file.read_bytes()[:6000])  # in the middle of the header
    said["nothing"] = run("data", "import", "bcs-dbt", planted, "--name", "none", "--jobs", 1, *place)
    assert b"none of the" in said["nothing"]
    assert (out / "work" / "datasets" / "none.rejected.csv").is_file()
    assert kept
    assert find_secrets([("file", next(planted.rglob("*.dcm")).read_bytes())])
    assert search(out, said, kept) == set()


def test_a_secret_that_gets_out_is_found(
    planted: Path, tmp_path: Path, kept: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise UnreadableError("broken header", f"{SECRETS['LO']} is no number")

    monkeypatch.setattr("dbtbench.exchange.engine.read_volume", fail)
    monkeypatch.setattr(
        header_cache.HeaderCache, "hide", lambda _, text: hashlib.sha256(text.encode()).hexdigest()
    )
    words = [
        "data",
        "import",
        "bcs-dbt",
        planted,
        "--name",
        "d",
        "--jobs",
        1,
        "--workspace",
        tmp_path / "work",
    ]
    found = search(tmp_path / "work", {"import": run(*words)}, kept)
    assert {where for where, _ in found} == {"import", "cache of headers", "datasets/d.rejected.csv", *(
        str(path.relative_to(tmp_path / "work")) for path in (tmp_path / "work").rglob("journal.jsonl")
    )}  # fmt: skip
    assert {kind for where, kind in found if where == "cache of headers"} >= {"LO", "UI"}


@pytest.mark.parametrize("form", list_forms(SECRETS["PN"]))
def test_every_form_of_a_secret_is_found(form: bytes) -> None:
    assert find_secrets([("here", b"x" + form + b"y")]) == {("here", "PN")}
    assert not find_secrets([("here", b"nothing")])
