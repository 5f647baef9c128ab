"""The data elements of a header, read with bounded time and memory however long the header is.

pydicom reads every element, at a kilobyte of memory for each empty item; a wide-angle header that lists the
projections of each frame has hundreds of thousands. Here the few that are wanted are kept, in at most three
levels of items, and all others are passed over.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dbtbench.errors import UnreadableError

Item = dict[str, list[Any]]
"""Values by keyword: numbers, texts, or the items of a sequence; none for an empty element."""

MAX_ELEMENTS = 2**20
"""Elements and items of a header; 200 frames with 25 sources each have 60,000."""
MAX_VALUE = 2**12
"""Bytes of a value that is kept."""
DEPTH = 2
"""Sequences inside each other that are read: functional groups, and a macro in them."""
UNDEFINED = 2**32 - 1
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
LONG = {vr.encode() for vr in EXPLICIT_VR_LENGTH_32}
BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[-+]?\d+", re.ASCII)


def read_transfer_syntax(file: BinaryIO) -> str:
    """Read the transfer syntax in the file meta information; the file's position is then after it.

    Returns:
        Its UID; "" when none is given.

    Raises:
        UnreadableError: when the file is no DICOM file.
    """
    if file.read(132)[128:] != b"DICM":
        raise UnreadableError("not a DICOM file")
    meta = _Elements(file, "", ("TransferSyntaxUID",)).read_item(None, lambda tag: tag >> 16 != 2)
    return str(next(iter(meta.get("TransferSyntaxUID", ())), ""))


def read_elements(file: BinaryIO, transfer_syntax: str, wanted: Sequence[str]) -> Item:
    """Read the elements before the pixel data; the file's position is then before its tag.

    Args:
        file: positioned after the file meta information.
        transfer_syntax: its UID.
        wanted: keywords of the elements, at every level; an `xx` stands for the number of a repeating group.

    Raises:
        UnreadableError: when the header is broken.
    """
    return _Elements(file, transfer_syntax, wanted).read_item(None, lambda tag: tag >= PIXEL_DATA - 8)


class _Elements:
    """A walk over the elements of a file, forwards only."""

    def __init__(self, file: BinaryIO, transfer_syntax: str, wanted: Sequence[str]) -> None:
        self._file, self._left = file, MAX_ELEMENTS
        self._order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
        self._short = struct.Struct(self._order + "HH2sH")
        self._long = struct.Struct(self._order + "HHI")
        self._implicit = transfer_syntax == ImplicitVRLittleEndian
        self._wanted = _number(tuple(wanted))

    def read_item(
        self,
        end: int | None,
        stop: Callable[[int], bool] = lambda tag: tag == ITEM_END,
        implicit: bool | None = None,
        depth: int = 0,
    ) -> Item:
        """Read elements to an offset, or to the first tag that stops; a delimiter is passed, others are not.

        At the end of a file an item with neither ends too.
        """
        item: Item = {}
        implicit = self._implicit if implicit is None else implicit
        while end is None or self._file.tell() < end:
            start = self._file.tell()
            head = self._read_head(implicit, at_end=end is None and depth == 0)
            if head is None or (end is None and stop(head[0])):
                if depth == 0:
                    self._file.seek(start)
                return item
            tag, vr, length = head
            if tag >> 16 == 0xFFFE:
                raise _header_error("a delimiter between elements")
            name = self._wanted.get(tag)
            if name is None or (length == UNDEFINED and name[1] != "SQ"):
                self._pass(length, implicit or vr == "UN")
                continue
            keyword, kind = name
            if keyword in item:
                raise _header_error("an element is there twice")
            inner = implicit or vr == "UN"
            if kind != "SQ":
                item[keyword] = self._read_value(length, kind if inner or vr not in BINARY else vr)
            elif vr not in ("SQ", "UN", None):
                raise _header_error("a sequence of another type")
            elif depth < DEPTH:
                item[keyword] = self._read_items(length, inner, depth + 1)
            else:
                self._pass(length, inner)
        if self._file.tell() != end:
            raise _header_error("an element is longer than its item")
        return item

    def _read_items(self, length: int, implicit: bool, depth: int) -> list[Item]:
        items: list[Item] = []
        end = None if length == UNDEFINED else self._file.tell() + length
        while end is None or self._file.tell() < end:
            tag, _, size = self._read_head(implicit) or (0, None, 0)
            if tag == SEQUENCE_END and end is None:
                return items
            if tag != ITEM:
                raise _header_error("a sequence without items")
            until = None if size == UNDEFINED else self._file.tell() + size
            items.append(self.read_item(until, implicit=implicit, depth=depth))
        if self._file.tell() != end:
            raise _header_error("an item is longer than its sequence")
        return items

    def _read_head(self, implicit: bool, at_end: bool = False) -> tuple[int, str | None, int] | None:
        """Read tag, type and length; the type is None where it is implicit. None at the end of the file."""
        self._left -= 1
        if self._left < 0:
            raise _header_error("too many elements")
        head = self._file.read(8)
        if len(head) < 8:
            if at_end:
                return None
            raise _header_error("it ends too early")
        group, element, vr, length = self._short.unpack(head)
        tag = group << 16 | element
        # As pydicom does: some writers switch to implicit types inside sequences.
        if implicit or group == 0xFFFE or not (b"AA" <= vr <= b"ZZ"):
            return tag, None, self._long.unpack(head)[2]
        if vr in LONG:
            extended = self._file.read(4)
            if len(extended) < 4:
                raise _header_error("it ends too early")
            (length,) = struct.unpack(self._order + "I", extended)
        return tag, vr.decode("latin-1"), length

    def _pass(self, length: int, implicit: bool) -> None:
        """Pass over a value; one of undefined length to the delimiter of its outermost sequence."""
        if length != UNDEFINED:
            self._file.seek(length, 1)
            return
        open_: list[bool] = [implicit]
        while open_:
            tag, vr, length = self._read_head(open_[-1]) or (0, None, 0)
            if tag in (ITEM_END, SEQUENCE_END):
                open_.pop()
            elif length == UNDEFINED:
                open_.append(open_[-1] or vr == "UN")
            else:
                self._file.seek(length, 1)

    def _read_value(self, length: int, vr: str) -> list[Any]:
        if length > MAX_VALUE:
            raise _header_error("a value is too long")
        value = self._file.read(length)
        if len(value) < length:
            raise _header_error("it ends too early")
        if code := BINARY.get(vr):
            if length % struct.calcsize(code):
                raise _header_error("a number of another size")
            return list(struct.unpack(f"{self._order}{length // struct.calcsize(code)}{code}", value))
        text = value.decode("latin-1").strip(" \0")
        return [part.strip(" \0") for part in text.split("\\")] if text else []


def _header_error(detail: str) -> UnreadableError:
    return UnreadableError("broken header", detail)


@cache
def _number(wanted: tuple[str, ...]) -> dict[int, tuple[str, str]]:
    """Map tags to keyword and type."""
    tags: dict[int, tuple[str, str]] = {}
    for keyword in wanted:
        tag = tag_for_keyword(keyword)
        for group in range(0, 0x20, 2) if keyword in REPEATING else (None,):
            if group is None:
                assert tag is not None, keyword
                tags[tag] = keyword, dictionary_VR(tag)
            else:
                tags[(0x6000 + group) << 16 | REPEATING[keyword]] = f"{keyword}{group}", "US"
    return tags


REPEATING = {"OverlayBitPosition": 0x0102}


def get_texts(item: Item, keyword: str) -> list[str]:
    """Get the texts of an element in upper case; none when it is missing or empty."""
    return [str(value).upper() for value in item.get(keyword, ())]


def get_numbers(item: Item, keyword: str) -> list[float]:
    """Get the numbers of an element; none when it is missing or empty.

    Raises:
        UnreadableError: when one is no finite number.
    """
    values = item.get(keyword, [])
    try:
        numbers = [float(_check_decimal(value)) for value in values]
    except ValueError:
        raise _header_error(f"{keyword} is not a number") from None
    if not all(abs(number) < float("inf") for number in numbers):  # neither is NaN
        raise _header_error(f"{keyword} is not a number")
    return numbers


def get_integer(item: Item, keyword: str) -> int | None:
    """Get the whole number of an element; None when it is missing or empty.

    Raises:
        UnreadableError: when it holds something else, or several.
    """
    values = item.get(keyword, [])
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or (isinstance(value, str) and (not INTEGER.fullmatch(value) or len(value) > 12)):
        raise _header_error(f"{keyword} is not a whole number")
    return int(value)


def _check_decimal(value: Any) -> Any:
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError
    return value
