"""What all gateways of a machine counted: those that run, and those that have ended.

Each gateway keeps its numbers in a folder (`waypost.telemetry.counters`). Whoever is asked for the
page adds them up, so that one scrape has the whole machine. Counters of a gateway that ended stay
in the sum: a replaced or killed replica is no reset. Its gauges go with it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.atomic import write_text
from waypost.telemetry.counters import NAMES, NUMBERS, Key, merge
from waypost.telemetry.table import BY_NAME

ENDED = "ended.json"
"""Numbers of gateways that ended, once their own files were removed."""

LOCK = ".lock"
"""Held by who reads, and alone by who removes files."""


class Machine:
    """The folder of a machine's gateways.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def numbers(self) -> dict[Key, list[float]]:
        """Return the numbers of all gateways together.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._locked(fcntl.LOCK_SH):
            found, folded = self._ended()
            for names in self._files():
                if names.stem not in folded:
                    merge(found, _numbers(names, alive=_lives(names)))
        return found

    def fold(self) -> None:
        """Move the numbers of gateways that ended into one file, so that files do not pile up.

        Raises:
            OSError: the folder cannot be read or written.
        """
        with self._locked(fcntl.LOCK_EX):
            found, folded = self._ended()
            dead = [names for names in self._files() if not _lives(names)]
            for names in dead:
                if names.stem not in folded:
                    merge(found, _numbers(names, alive=False))
            if not dead:
                return
            series = [[name, labels, values] for (name, labels), values in found.items()]
            # a crash after this line leaves files whose names say that they are counted
            said = {"folded": [names.stem for names in dead], "series": series}
            write_text(self._folder / ENDED, json.dumps(said))
            for names in dead:
                names.with_suffix(NUMBERS).unlink(missing_ok=True)
                names.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{NAMES}"))

    def _ended(self) -> tuple[dict[Key, list[float]], frozenset[str]]:
        """Return the numbers of gateways that ended, and the names of those among them."""
        found: dict[Key, list[float]] = {}
        try:
            said: dict[str, Any] = json.loads((self._folder / ENDED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return found, frozenset()
        merge(found, {(name, tuple(labels)): values for name, labels, values in said["series"]})
        return found, frozenset(said["folded"])

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self._folder / LOCK).open("a") as file:
            fcntl.flock(file, how)
            yield


def _lives(names: Path) -> bool:
    """Return whether the process of a file runs; it holds its lock."""
    with names.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _numbers(names: Path, *, alive: bool) -> dict[Key, list[float]]:
    """Return the numbers of one process; without gauges where it has ended."""
    lines = names.read_text(encoding="utf-8").splitlines()
    cells = np.fromfile(names.with_suffix(NUMBERS), np.float64)
    found: dict[Key, list[float]] = {}
    for line in lines:
        with suppress(json.JSONDecodeError):  # a line that is being written
            name, labels, slot, width = json.loads(line)
            metric = BY_NAME.get(name)
            if metric is None or slot + width > len(cells):
                continue
            if alive or metric.kind != "gauge":
                found[name, tuple(labels)] = cells[slot : slot + width].tolist()
    return found
