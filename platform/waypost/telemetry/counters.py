"""Numbers of one process, which the other gateways of the machine can read at any time.

A series is a few float64 numbers in a row. They lie in a file that is mapped into memory: to count
is to add to one of them, without a system call, and what was counted outlives the process, however
it ends. The names of the series stand in a second file, a JSON line each; its lock tells whether
the process lives.
"""

from __future__ import annotations

import fcntl
import json
import mmap
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from waypost.telemetry.table import BY_NAME, LABELS, METRICS, OTHER, Metric

CELLS = 4096
"""Numbers for which a file has room at first; it doubles."""

BYTES = 8
NAMES, NUMBERS = ".names", ".cells"
"""Suffixes of the two files of a process."""

WIDTHS: Mapping[str, int] = {metric.name: metric.width for metric in METRICS}

Key = tuple[str, tuple[str, ...]]
"""Name of a metric and values of its labels."""


class Counters:
    """The numbers of this process; one thread counts.

    Args:
        folder: Folder of the machine's gateways; None keeps the numbers in memory.
        name: Name of this process in the folder, unlike that of any other.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(self, folder: Path | None = None, name: str = "") -> None:
        self._slots: dict[Key, int] = {}
        self._used = 0
        self._names: IO[str] | None = None
        self._numbers: IO[bytes] | None = None
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._numbers = (folder / f"{name}{NUMBERS}").open("w+b")
            partial = folder / f".{name}{NAMES}.partial"
            self._names = partial.open("w", encoding="utf-8")
            # locked before it has its name: one without a lock counts as that of a dead process
            fcntl.flock(self._names, fcntl.LOCK_EX)
            partial.rename(folder / f"{name}{NAMES}")
        self._room = CELLS
        self._cells = self._map()

    def _map(self) -> memoryview[float]:
        if self._numbers is None:
            return memoryview(bytearray(self._room * BYTES)).cast("d")
        self._numbers.truncate(self._room * BYTES)
        return memoryview(mmap.mmap(self._numbers.fileno(), self._room * BYTES)).cast("d")

    def close(self) -> None:
        """Let go of the files, which stay."""
        for file in (self._names, self._numbers):
            if file is not None:
                file.close()

    def add(self, name: str, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Add to a counter.

        Args:
            name: A counter of `waypost.telemetry.table.METRICS`.
            labels: A value for each of its labels.
            amount: At least 0.
        """
        slot = self._slots.get((name, labels))
        if slot is None:
            slot = self._slot(name, labels)
        self._cells[slot] += amount

    def set(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge, or a counter that is counted elsewhere; see `add`."""
        slot = self._slots.get((name, labels))
        if slot is None:
            slot = self._slot(name, labels)
        self._cells[slot] = value

    def observe(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Add an observation to a histogram; see `add`."""
        slot = self._slots.get((name, labels))
        if slot is None:
            slot = self._slot(name, labels)
        bounds = BY_NAME[name].buckets
        cells = self._cells
        cells[slot + bisect_left(bounds, value)] += 1.0
        cells[slot + len(bounds) + 1] += value

    def numbers(self) -> dict[Key, list[float]]:
        """Return the numbers of every series."""
        return {
            key: [float(value) for value in self._cells[slot : slot + WIDTHS[key[0]]]]
            for key, slot in list(self._slots.items())  # another thread may add one
        }

    def _slot(self, name: str, labels: tuple[str, ...]) -> int:
        """Return the place of a series; it is made where it lacks."""
        metric = BY_NAME[name]
        key = name, bounded(metric, labels)
        slot = self._slots.get(key)
        if slot is not None:
            return slot
        width = WIDTHS[name]
        slot, self._used = self._used, self._used + width
        while self._used > self._room:
            self._room *= 2
        if self._room > len(self._cells):
            kept, self._cells = self._cells, self._map()
            if self._numbers is None:
                self._cells[: len(kept)] = kept
        if self._names is not None:
            self._names.write(json.dumps([name, key[1], slot, width]) + "\n")
            self._names.flush()
        self._slots[key] = slot
        return slot


def bounded(metric: Metric, labels: Sequence[str]) -> tuple[str, ...]:
    """Return values of a metric's labels, with `OTHER` for what is not in a closed set.

    Raises:
        ValueError: their number is not that of the labels.
    """
    if len(labels) != len(metric.labels):
        raise ValueError(f"{metric.name}: {len(labels)} values of labels {metric.labels}")
    sets = [LABELS[label].values for label in metric.labels]
    return tuple(
        value if known is None or value in known else OTHER
        for value, known in zip(labels, sets, strict=True)
    )


def merge(into: dict[Key, list[float]], numbers: Mapping[Key, Sequence[float]]) -> None:
    """Add numbers of one process to those of others."""
    for key, values in numbers.items():
        metric = BY_NAME.get(key[0])
        if metric is None or len(values) != metric.width:
            continue  # of another version of Waypost
        held = into.get(key)
        if held is None:
            into[key] = list(values)
        elif metric.merge == "max":
            into[key] = [max(pair) for pair in zip(held, values, strict=True)]
        else:
            into[key] = [a + b for a, b in zip(held, values, strict=True)]
