"""Inputs of the reader that no scanner writes: each mutator makes another file of a good one."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from typing import Any

import pydicom
import pytest
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

ITEM, END, ENDLESS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xff\xff\xff"
PIXELS, GROUPS = b"\xe0\x7f\x10\x00", b"\x00\x52\x29\x92"
GROUPS_OF_BIG = b"\x52\x00\x92\x29"
ODD = ["0", "-0", "-1", "1", "0.5", "NaN", "inf", "1e308", "-1e308", "1e-308", "5e-324", "", "  ", "abc"]
ODD += ["1\\2", "\\", "1\\abc", "9" * 16, "1e999", "0x10", "1_000", "65535", "-65536", "500", "600.5", "-2"]
Random = random.Random


def _find_pixels(raw: bytes) -> int:
    return max(raw.rfind(PIXELS), raw.rfind(b"\x7f\xe0\x00\x10"))


def _set_raw(ds: Dataset, keyword: str, value: str) -> None:
    """Set an attribute to bytes that need not be one."""
    tag, content = Tag(keyword), value.encode("latin-1")
    content += b" " * (len(content) % 2)
    vr = dictionary_VR(tag)
    ds._dict[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)


def _item(**values: str) -> Sequence:
    item = Dataset()
    for keyword, value in values.items():
        _set_raw(item, keyword, value)
    return Sequence([item])


def _edit_window(r: Random, ds: Dataset) -> None:
    """Put a window into one of the places, or leave it empty there."""
    shared, frames = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence
    centre, width = (r.choice([*ODD, "500", "400", "512.5"]) for _ in range(2))
    values = {"WindowCenter": centre, "WindowWidth": width}
    if r.random() < 0.5:
        values = {"WindowCenter": r.choice(["500", "300"]), "WindowWidth": r.choice(["1", "600", "900"])}
        values["VOILUTFunction"] = r.choice(["LINEAR", "linear", "SIGMOID", "Linear_Exact", "", "X", "A\\B"])
    where = r.choice(["shared", "frames", "one frame", "root", "nowhere"])
    if where != "shared":
        shared.FrameVOILUTSequence = r.choice([Sequence(), _item(WindowCenter="", WindowWidth="")])
    if where == "root":
        for keyword, value in values.items():
            _set_raw(ds, keyword, value)
    targets = {"shared": [shared], "frames": frames, "one frame": [r.choice(frames)]}.get(where, [])
    for number, target in enumerate(targets):
        target.FrameVOILUTSequence = _item(**values)
        if where == "frames" and r.random() < 0.5:
            _set_raw(target.FrameVOILUTSequence[0], "WindowCenter", str(300 + 50 * number))


def _edit_rescale(r: Random, ds: Dataset) -> None:
    values = {"RescaleSlope": r.choice([*ODD, "-1", "2"]), "RescaleIntercept": r.choice([*ODD, "1023"])}
    frames, shared = ds.PerFrameFunctionalGroupsSequence, ds.SharedFunctionalGroupsSequence[0]
    if r.random() < 0.5:
        shared.PixelValueTransformationSequence = _item(**values)
        return
    del shared.PixelValueTransformationSequence
    for number, frame in enumerate(frames):
        values["RescaleIntercept"] = str(10 * number)
        frame.PixelValueTransformationSequence = _item(**values)


def _edit_order(r: Random, ds: Dataset) -> None:
    """Say that the frames lie in another order, by positions, numbers or both."""
    frames = ds.PerFrameFunctionalGroupsSequence
    order = r.sample(range(len(frames)), len(frames))
    how = r.choice(["both", "both", "positions", "numbers", "twice", "stacks"])
    for number, frame in zip(order, frames, strict=True):
        if how in ("both", "positions"):
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1.5 * number]
        if how in ("both", "numbers"):
            frame.FrameContentSequence[0].InStackPositionNumber = number + 1
        if how == "positions":
            del frame.FrameContentSequence
    if how == "twice":
        frames[0].FrameContentSequence[0].InStackPositionNumber = 2
    if how == "stacks":
        frames[0].FrameContentSequence[0].StackID = "2"


def _edit_size(r: Random, ds: Dataset) -> None:
    keyword = r.choice(["NumberOfFrames", "Rows", "Columns", "frames and groups"])
    if keyword == "NumberOfFrames":
        _set_raw(
            ds,
            keyword,
            r.choice(["0", "-1", "1", "3", "5", "8", "4096", "4097", "4.0", "4\\4", "", "04", "+4"]),
        )
    elif keyword == "frames and groups":
        ds.NumberOfFrames = r.choice([1, 2, 3])
        del ds.PerFrameFunctionalGroupsSequence[ds.NumberOfFrames :]
    else:
        setattr(ds, keyword, r.choice([0, 1, 24, 32, 48, 64, 96, 128, 65535]))


def _edit_pixels(r: Random, ds: Dataset) -> None:
    choices: dict[str, list[Any]] = {
        "BitsAllocated": [0, 1, 8, 12, 32],
        "BitsStored": [0, 1, 8, 9, 11, 12, 15, 16, 17, 65535],
        "HighBit": [0, 8, 10, 11, 15, 65535],
        "PixelRepresentation": [1, 2],
        "SamplesPerPixel": [0, 2, 3],
        "PhotometricInterpretation": ["MONOCHROME1", "RGB", "YBR_FULL", "", "monochrome2", "MONOCHROME1 "],
        "PresentationLUTShape": ["INVERSE", "", "X"],
    }
    keyword = r.choice(list(choices))
    value = r.choice(choices[keyword])
    setattr(ds, keyword, value)
    if keyword == "BitsStored" and r.random() < 0.7:
        ds.HighBit = max(int(value) - 1, 0)
    if keyword == "PhotometricInterpretation" and r.random() < 0.7:
        ds.PresentationLUTShape = "INVERSE"


def _edit_padding(r: Random, ds: Dataset) -> None:
    ds.add_new("PixelPaddingValue", "US", r.choice([0, 1, 500, 1023, 65535]))
    if r.random() < 0.7:
        ds.add_new("PixelPaddingRangeLimit", "US", r.choice([0, 10, 600, 1023]))


def _edit_kind(r: Random, ds: Dataset) -> None:
    changes: list[Callable[[], object]] = [
        lambda: setattr(ds, "SOPClassUID", r.choice(["", "1.2", uid.CTImageStorage])),
        lambda: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]),
        lambda: setattr(ds, "InConcatenationTotalNumber", 2),
        lambda: delattr(ds, "SharedFunctionalGroupsSequence"),
        lambda: delattr(ds, "PerFrameFunctionalGroupsSequence"),
        lambda: ds.PerFrameFunctionalGroupsSequence.pop(),
        lambda: ds.add_new(0x60000102, "US", r.choice([0, 3, 12])),
    ]
    r.choice(changes)()


EDITS = [
    _edit_window,
    _edit_window,
    _edit_rescale,
    _edit_order,
    _edit_size,
    _edit_pixels,
    _edit_padding,
    _edit_kind,
]


def edit(r: Random, raw: bytes) -> bytes:
    """Change attributes: the file is well-formed, and its values need not be."""
    ds, file = pydicom.dcmread(io.BytesIO(raw)), io.BytesIO()
    for _ in range(r.choice([1, 1, 2, 3])):
        try:
            r.choice(EDITS)(r, ds)
        except (AttributeError, KeyError, IndexError, ValueError):
            continue  # an earlier edit removed it
    try:
        ds.save_as(file)
    except Exception:  # pydicom cannot write every value in every byte order
        return raw
    return file.getvalue()


def change_lengths(r: Random, raw: bytes) -> bytes:
    """Change a tag, a type or a length in the header, or repeat a piece of it."""
    data, pixels = bytearray(raw), _find_pixels(raw)
    for _ in range(r.choice([1, 1, 2, 4])):
        at = r.randrange(132, pixels)
        if r.random() < 0.7:  # at a tag of a group that every file has
            found = [k for k in range(132, pixels - 8) if data[k] in (0x08, 0x28, 0x18) and data[k + 1] == 0]
            at = r.choice(found or [at]) + r.choice([0, 4, 6, 8])
        kind = r.randrange(4)
        if kind == 0:
            data[at : at + 4] = r.choice([ENDLESS, bytes(4), ITEM, END[:4], PIXELS, GROUPS, r.randbytes(4)])
        elif kind == 1:
            data[at : at + 2] = struct.pack("<H", r.choice([0, 1, 2, 8, 65535, r.randrange(65536)]))
        elif kind == 2:
            data[at:at] = data[at : at + r.choice([8, 64, 1000])] * r.choice([1, 2, 50])
        else:
            data[at:at] = r.choice([END, ITEM + bytes(4), ITEM + ENDLESS, (ITEM + bytes(4)) * 5000])
    return bytes(data)


def nest(r: Random, raw: bytes) -> bytes:
    """Put sequences inside each other, thousands deep, before the functional groups."""
    depth, at = r.choice([3, 50, 2000, 50_000]), max(raw.find(GROUPS), raw.find(GROUPS_OF_BIG))
    tag = r.choice([GROUPS, b"\x40\x00\x75\x02", b"\x09\x00\x01\x10"])
    body = (tag + b"SQ\0\0" + ENDLESS + ITEM + ENDLESS) * depth
    if r.random() < 0.5:
        body += (b"\xfe\xff\x0d\xe0\0\0\0\0" + END) * depth
    return raw[:at] + body + raw[at:]


def encapsulate_otherwise(r: Random, raw: bytes) -> bytes:
    """Change fragments and offset tables; of plain pixels, their number."""
    start = _find_pixels(raw) + 12
    head, body = raw[:start], raw[start:]
    if not body.startswith(ITEM):
        return raw + r.randbytes(r.choice([2, 100])) if r.random() < 0.5 else raw[: -r.choice([2, 1000])]
    values, at = [], 0
    while body[at : at + 4] == ITEM:
        (length,) = struct.unpack_from("<I", body, at + 4)
        values.append(body[at + 8 : at + 8 + length])
        at += 8 + length
    frames = values[1:]
    kind = r.choice(
        ["drop", "repeat", "empty", "split", "split with table", "merge", "swap", "table", "no end", "many"]
    )
    if kind == "drop":
        frames.pop(r.randrange(len(frames)))
    elif kind == "repeat":
        frames.insert(0, frames[-1])
    elif kind in ("empty", "many"):
        where = r.randrange(len(frames) + 1)
        frames[where:where] = [b""] * (r.choice([1, 2]) if kind == "empty" else r.choice([50, 140_000]))
    elif kind == "merge":
        frames = [b"".join(frames)]
    elif kind == "swap":
        frames.reverse()
    offsets, pieces, at = [], [], 0
    for frame in frames:
        offsets.append(at)
        cuts = (
            sorted(r.randrange(len(frame) + 1) & ~1 for _ in range(r.randrange(3))) if "split" in kind else []
        )
        for piece in (frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)):
            pieces.append(piece)
            at += 8 + len(piece)
    if kind == "table":
        offsets = r.choice([offsets[::-1], [0] * 4, [offset + 2 for offset in offsets], [2**32 - 1] * 4])
    with_table = kind in ("split with table", "table")
    table = struct.pack(f"<{len(offsets)}I", *offsets) if with_table else b""
    items = b"".join(ITEM + struct.pack("<I", len(value)) + value for value in (table, *pieces))
    return head + items + (b"" if kind == "no end" else END)


def flip_bits(r: Random, raw: bytes) -> bytes:
    """Flip bits of the pixels, which no checksum protects."""
    data, start = bytearray(raw), _find_pixels(raw) + 12
    for _ in range(r.choice([1, 1, 5, 100])):
        data[r.randrange(start, len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


def change_markers(r: Random, raw: bytes) -> bytes:
    """Change the first bytes of frames, where a codestream describes itself."""
    data, start = bytearray(raw), _find_pixels(raw) + 12
    starts = [k for k in range(start, len(raw) - 4) if raw[k : k + 4] == ITEM][1:]
    offset, value = r.randrange(8, 128), r.choice([0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)])
    for at in starts if r.random() < 0.3 else starts[:1]:
        data[min(at + offset, len(data) - 1)] = value
    return bytes(data)


def cut(r: Random, raw: bytes) -> bytes:
    return raw[: r.randrange(len(raw))]


def rename_syntax(r: Random, raw: bytes) -> bytes:
    """Say that the file has another transfer syntax."""
    syntaxes = [
        b"1.2.840.10008.1.2\0\0\0",
        b"1.2.840.10008.1.2.1\0",
        b"1.2.840.10008.1.2.2\0",
        b"1.2.840.10008.1.2.5\0",
    ]
    old, new = r.sample(syntaxes, 2)
    return raw.replace(old, new)


Mutator = Callable[[Random, bytes], bytes]
MUTATORS: list[Mutator] = [
    *(edit,) * 8,
    *(change_lengths,) * 4,
    *(encapsulate_otherwise,) * 4,
    *(change_markers,) * 2,
    *(flip_bits, nest, cut, rename_syntax),
]
KEEPS_PIXELS = (encapsulate_otherwise, nest)
"""Mutators whose files show the same picture wherever they can be read at all."""


def _mutate(number: int, raw: bytes) -> tuple[bytes, str, bool]:
    r = Random(number)
    mutator = r.choice(MUTATORS)
    return mutator(r, raw), mutator.__name__, mutator in KEEPS_PIXELS


@pytest.fixture(scope="session")
def mutate_dicom() -> Callable[[int, bytes], tuple[bytes, str, bool]]:
    """`mutate_dicom(number, raw)`: another file, its mutator's name, and whether its picture is the same."""
    return _mutate
