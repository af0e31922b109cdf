"""Append-only JSONL files that survive a kill, with an index by key.

Each line begins with a key of 32 hexadecimal digits. Every process appends to its own file, so
lines of two processes never mix. The last line of a killed process can be incomplete and is
skipped. The index holds 18 bytes a line, which is 2 MB for 100,000 answers. Outside the files a
key is its 16 bytes.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

KEY_LENGTH = 32
_PREFIX = b'{"key": "'
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_FROM, _TO = len(_PREFIX), len(_PREFIX) + KEY_LENGTH


def log_folder(parent: Path, llm: str) -> Path:
    """Return the folder of an LLM's logs; a name such as ``org/model`` is quoted to one folder."""
    return parent / quote(llm, safe=" ").replace(".", "%2E", not llm.strip("."))


class AppendLog:
    """Log file of one process; lines are written to the system when `append` or `extend` returns.

    Args:
        folder: Folder of the log.
        kind: First part of the file's name, such as ``answers``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{kind}-{os.urandom(8).hex()}.jsonl"
        self._fd = -1

    def append(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Add one line.

        Args:
            key: 16 bytes.
            record: JSON data without the name ``key``.
        """
        self.extend([(key, record)])

    def extend(self, lines: Iterable[tuple[bytes, Mapping[str, Any]]]) -> None:
        """Add lines, normally in one system call."""
        text = "".join(
            _ENCODER.encode({"key": key.hex(), **record}) + "\n" for key, record in lines
        )
        data = memoryview(text.encode("utf-8", "surrogatepass"))
        if data and self._fd < 0:  # no file without lines
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LogIndex:
    """Index of the lines of a log by key; of equal keys, the last line of the newest file counts.

    Args:
        folder: Folder of the log; it need not exist.
        kind: First part of the files' names.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        files = sorted(folder.glob(f"{kind}-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        self._files = files
        self._open: dict[int, Any] = {}
        keys, places, homes = array("Q"), array("q"), array("H")
        for number, path in enumerate(files):
            for at, line in _lines(path):
                keys.append(int(line[_FROM : _FROM + 16], 16))
                places.append(at)
                homes.append(number)
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, np.uint64)[order]
        self._places = np.frombuffer(places, np.int64)[order]
        self._homes = np.frombuffer(homes, np.uint16)[order]

    def has(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return for each key, a row of 16 bytes, whether the log has a line for it."""
        wanted = np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.uint64)
        at = np.searchsorted(self._keys, wanted)
        there = at < len(self._keys)
        there[there] = self._keys[at[there]] == wanted[there]
        return there

    def get(self, key: bytes) -> dict[str, Any] | None:
        """Return the record of a key; None if the log has none."""
        if not len(self._keys):
            return None
        wanted = np.uint64(int.from_bytes(key[:8], "big"))
        at = int(np.searchsorted(self._keys, wanted, side="right")) - 1
        if at < 0 or self._keys[at] != wanted:
            return None
        home = int(self._homes[at])
        if home not in self._open:
            self._open[home] = self._files[home].open("rb")
        file = self._open[home]
        file.seek(int(self._places[at]))
        record: dict[str, Any] = json.loads(file.readline().decode("utf-8", "surrogatepass"))
        return record

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __enter__(self) -> LogIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    at = 0
    with path.open("rb") as file:
        for line in file:
            whole = (
                line.endswith(b"}\n") and line.startswith(_PREFIX) and line[_TO : _TO + 1] == b'"'
            )
            if whole and _is_hexadecimal(line[_FROM:_TO]):
                yield at, line
            at += len(line)


def _is_hexadecimal(text: bytes) -> bool:
    try:
        return int(text, 16) >= 0
    except ValueError:
        return False
