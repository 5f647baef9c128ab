"""Tables and descriptions that no program writes: each mutator makes another file of a good one."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Random = random.Random
Rows = list[list[str]]

ODD = [
    "",
    " ",
    "NaN",
    "inf",
    "-inf",
    "1e308",
    "-1e309",
    "1e-400",
    "-1",
    "0",
    "2.5",
    "9" * 30,
    "=cmd|' /C calc'!A0",
]
ODD += [
    "+1",
    "@SUM(1)",
    "\t=1",
    '"',
    "'",
    'a"b',
    ",",
    ";",
    "\n",
    "\r\n",
    "\0",
    "\x1b[31m",
    "\x1b]0;t\x07",
    "1,5",
]
ODD += [
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "<script>",
    "| a |",
    "\u202e",
    "\ufeff",
    "é",
    "１",
    "٣",
    "True",
]
ODD += ["LCC", "rmlo9", "lcc\n", "train", "test", "cancer", "None", "NA", "null", "0x1F", "1_0", "A" * 3000]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1.5,
    1e308,
    1e-320,
    math.nan,
    math.inf,
    "",
    "x",
    "\x1b[31m",
]
VALUES += [
    "../x",
    "=1+1",
    "A" * 3000,
    [],
    {},
    [[]] * 3,
    {"a": {"b": 1}},
    "\ud800",
    "\u202e",
    "0" * 64,
    "detection",
]


def change_rows(r: Random, rows: Rows) -> None:
    """Change cells, rows or headings."""
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        row = r.choice(rows)
        kind = r.choice(
            ["cell"] * 5 + ["heading", "surplus", "short", "twice", "drop", "swap", "column", "long"]
        )
        if kind == "cell" and row:
            row[r.randrange(len(row))] = r.choice(ODD)
        elif kind == "heading" and rows[0]:
            rows[0][r.randrange(len(rows[0]))] = r.choice([*ODD, *rows[0], "Unnamed: 0", "case"])
        elif kind == "surplus":
            row.append(r.choice(ODD))
        elif kind == "short":
            del row[r.randrange(len(row) + 1) :]
        elif kind in ("twice", "long"):
            at = r.randrange(len(rows))
            rows[at:at] = [list(row) for _ in range(1 if kind == "twice" else 200)]
        elif kind == "drop" and len(rows) > 1:
            rows.remove(row)
        elif kind == "swap" and len(row) > 1:
            i, j = r.sample(range(len(row)), 2)
            row[i], row[j] = row[j], row[i]
        elif kind == "column":
            at = r.randrange(max(map(len, rows)) or 1)
            for one in rows:
                del one[at : at + 1]


def save_otherwise(r: Random, rows: Rows) -> bytes:
    """Save rows as another program does: what they say stays."""
    spellings: list[Callable[[str], str]] = [str.upper, str.lower, str.strip]
    heading = [r.choice(spellings)(cell) for cell in rows[0]]
    order = r.sample(range(len(heading)), len(heading))
    table = [[row[at] for at in order] for row in (heading, *rows[1:])]
    for at in range(len(table), 0, -1):
        if r.random() < 0.2:
            table.insert(at, [""] * r.choice([0, len(order)]))
    separator, end = r.choice(",;\t"), r.choice(["\n", "\r\n"])
    text = write_csv(table, separator, end, r.random() < 0.3)
    if separator == ";" and r.random() < 0.5:
        text = f"sep=;{end}{text}"
    return text.encode(r.choice(["utf-8", "utf-8-sig", "utf-16"]))


def write_csv(rows: Rows, separator: str = ",", end: str = "\n", quoted: bool = False) -> str:
    stream = io.StringIO(newline="")
    quoting: Any = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    return stream.getvalue()


def damage(r: Random, raw: bytes) -> bytes:
    """Change bytes: their encoding, a piece, or a few of them."""
    kind = r.choice(["mark", "encoding", "NUL", "quote", "cut", "flip", "piece", "nothing"])
    at = r.randrange(len(raw) + 1)
    if kind == "mark":
        return r.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\x00"]) + raw
    if kind == "encoding":
        return raw.decode().encode(r.choice(["utf-16-le", "utf-16-be", "utf-32", "cp500"]))
    if kind in ("NUL", "quote", "piece"):
        piece = {
            "NUL": b"\0",
            "quote": b'"',
            "piece": r.choice([raw[at : at + 40], r.randbytes(8), b"[" * 9999]),
        }
        return raw[:at] + piece[kind] + raw[at:]
    if kind == "flip":
        return bytes(byte ^ (1 << r.randrange(8)) if r.random() < 0.01 else byte for byte in raw)
    return raw[:at] if kind == "cut" else b""


def change_values(r: Random, value: Any) -> None:
    """Change values and keys of a JSON object."""
    for _ in range(r.choice([1, 1, 2, 3])):
        place, key = r.choice(list(list_places(value)))
        kind = r.choice(["set", "set", "set", "remove", "add", "rename"])
        if kind == "remove":
            del place[key]
        elif kind == "set":
            place[key] = r.choice(VALUES)
        elif isinstance(place, dict):
            place[r.choice(["x", "", "\x1b", "sha256", str(key) + " "])] = (
                r.choice(VALUES) if kind == "add" else place.pop(key)
            )
        if not value:
            return


def list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from list_places(value[key])


def _mutate(r: Random, name: str, raw: bytes) -> tuple[bytes, str]:
    """Make another file of a good one; what was done: `saved otherwise`, `changed` or `damaged`."""
    kind = r.choice(["changed"] * 5 + ["saved otherwise"] * 3 + ["damaged"] * 2)
    if kind == "damaged":
        return damage(r, raw), kind
    if name.endswith(".json"):
        value = json.loads(raw)
        if kind == "saved otherwise":
            return json.dumps(value, indent=r.choice([None, 1]), sort_keys=r.random() < 0.5).encode(), kind
        change_values(r, value)
        return json.dumps(value).encode(), kind
    rows = list(csv.reader(io.StringIO(raw.decode(), newline="")))
    if kind == "saved otherwise":
        return save_otherwise(r, rows), kind
    change_rows(r, rows)
    return write_csv(rows).encode("utf-8", "surrogatepass"), kind


@pytest.fixture(scope="session")
def mutate_table() -> Callable[[Random, str, bytes], tuple[bytes, str]]:
    """`mutate_table(random, name, raw)`: another file, and what was done to it."""
    return _mutate
