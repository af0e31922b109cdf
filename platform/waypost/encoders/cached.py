"""A cache of vectors with a limit in bytes, shared by all users of a request's embedding."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder

_OVERHEAD = 300
"""Overhead of an entry in bytes: key, array header, dictionary slot (measured: ~280)."""


class CachedEncoder:
    """An encoder with an LRU cache of vectors.

    The cache stores digests of texts, not the texts. Each caller computes its own misses; two
    callers that miss the same text at once may both compute it, which is harmless.

    Args:
        base: The encoder of texts that are not in the cache.
        max_bytes: Memory limit of the entries, in bytes.
    """

    def __init__(self, base: Encoder, max_bytes: int) -> None:
        self.base = base
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._rows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def id(self) -> str:
        """Id of the base encoder, because the cache does not change vectors."""
        return self.base.id

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""
        return self.base.dimension

    @property
    def size_bytes(self) -> int:
        """Current memory of the entries, in bytes."""
        return self._bytes

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`."""
        keys = [_key(text) for text in texts]
        known: dict[bytes, NDArray[np.float32]] = {}
        with self._lock:
            for key in keys:
                if (row := self._rows.get(key)) is not None:
                    self._rows.move_to_end(key)
                    known[key] = row
            hits = sum(key in known for key in keys)
            self.hits += hits
            self.misses += len(keys) - hits
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            rows = self.base.encode(list(missing.values()))
            if len(missing) == len(keys):  # no hits, no repeated texts: already in order
                self._keep(missing, rows)
                return rows
            known |= zip(missing, rows, strict=True)
            self._keep(missing, rows)
        if not keys:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([known[key] for key in keys])

    def _keep(self, keys: dict[bytes, str], rows: NDArray[np.float32]) -> None:
        cost = rows.shape[1] * rows.itemsize + _OVERHEAD
        with self._lock:
            for key, row in zip(keys, rows, strict=True):
                if key not in self._rows:
                    self._bytes += cost
                self._rows[key] = row.copy()  # a view would keep the whole batch alive
                self._rows.move_to_end(key)
            while self._bytes > self.max_bytes:
                self._rows.popitem(last=False)
                self._bytes -= cost


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
