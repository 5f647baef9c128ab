"""The headers that an import has read so far, without a word of what they say."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from dbtbench.errors import DBTBenchError
from dbtbench.runtime.files import atomic_path, read_json

CACHE_VERSION = 2
NAMES = ("patient", "study", "study_uid", "series", "instance")
"""Values of a header that may identify a patient; the others are its view."""

Header = dict[str, str]
State = list[int]
"""A file's size, and the time of its last change in nanoseconds."""


class HeaderCache:
    """A file of headers, so that an import that was interrupted reads none again.

    Patients, studies, series and names of files are in it as keyed digests (BLAKE2b) alone: two values can be
    compared, and none can be read. The key is in the same file, which only its owner may read. A `with`
    statement removes the file at its end; what is interrupted, by a kill or otherwise, leaves it.

    Args:
        path: the JSON file; a broken one counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key, self._files = secrets.token_hex(32), dict[str, list[Any]]()
        try:
            content = read_json(path)
            if isinstance(content, dict) and content.get("version") == CACHE_VERSION:
                bytes.fromhex(content["key"])
                self._key, self._files = content["key"], dict(content["files"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass

    def __enter__(self) -> HeaderCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, DBTBenchError):
            self.path.unlink(missing_ok=True)

    def hide(self, text: str) -> str:
        """Compute the keyed digest of a value; that of nothing is nothing."""
        if not text:
            return ""
        raw = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(raw, key=bytes.fromhex(self._key), digest_size=16).hexdigest()

    def find(self, file: str, state: State) -> Header | None:
        """Find the header of a file that has not changed since; None where it is not known."""
        found = self._files.get(self.hide(file))
        return found[1] if found and found[0] == state else None

    def add(self, file: str, state: State, header: Header) -> Header:
        """Add a header as it was read, and return it as it is kept."""
        kept = {name: self.hide(value) if name in NAMES else value for name, value in header.items()}
        self._files[self.hide(file)] = [state, kept]
        return kept

    def save(self) -> None:
        """Write the file, for its owner's eyes only."""
        content = {"version": CACHE_VERSION, "key": self._key, "files": self._files}
        with atomic_path(self.path) as temporary:
            temporary.touch(0o600)
            temporary.chmod(0o600)  # one that a kill left may be another's
            temporary.write_text(json.dumps(content, separators=(",", ":")))
