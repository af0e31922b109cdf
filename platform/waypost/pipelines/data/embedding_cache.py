"""Embeddings of texts in Waypost's cache folder, one SQLite file for each encoder.

`waypost data run` keeps the embeddings of its questions in the data's own folder
(`pipelines.data.embeddings`). Commands that only read data keep theirs here, so that nothing is
written beside a user's files. What is computed fast (`WORTH_S`) is not stored at all.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from waypost.config import settings
from waypost.contracts.artifact import PROBE_TEXTS
from waypost.contracts.encoder import Encoder
from waypost.pipelines.data.embeddings import (
    MIN_PROBE_COSINE,
    Progress,
    encoded,
    new_rows,
    stored_in,
    text_digests,
)

logger = logging.getLogger(__name__)

LIMIT_BYTES = 2 << 30
"""Most bytes of an encoder's vectors; those that were used longest ago are dropped first."""

WORTH_S = 1.0
"""Least seconds of computing that are worth a place in the cache."""

_WAIT_S = 10.0  # another process may be writing
_DAY_S = 86_400


class EmbeddingCache:
    """The vectors of one encoder on disk. A cache that cannot be used is an empty one.

    Args:
        folder: Folder of the caches of all encoders.
        encoder: Encoder of the vectors. Vectors of another build of it are dropped.
        limit_bytes: Most bytes of vectors.
    """

    def __init__(self, folder: Path, encoder: Encoder, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = folder / f"{encoder.id}.sqlite"
        self._encoder = encoder
        self._most_rows = max(limit_bytes // (4 * encoder.dimension), 1)
        self._today = int(time.time() // _DAY_S)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the stored vectors of some digests of texts."""
        if not keys or not self.path.is_file():
            return {}
        try:
            with closing(self._open()) as base, base:
                return dict(self._find(base, keys))
        except (sqlite3.Error, OSError) as error:
            self._tell(error)
            return {}

    def store(self, keys: Sequence[bytes], rows: NDArray[np.float32]) -> None:
        """Store the vectors of some digests of texts, shape (n_texts, d)."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as base, base:
                base.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                    (
                        (key, self._today, row.tobytes())
                        for key, row in zip(keys, rows, strict=True)
                    ),
                )
                base.execute(
                    "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors "
                    "ORDER BY used DESC, rowid DESC LIMIT -1 OFFSET ?)",
                    (self._most_rows,),
                )
        except (sqlite3.Error, OSError) as error:
            self._tell(error)

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=_WAIT_S)
        try:
            base.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB UNIQUE, used INTEGER, row BLOB)"
            )
            base.execute("CREATE TABLE IF NOT EXISTS probe (row BLOB)")
            self._check_build(base)
        except BaseException:
            base.close()
            raise
        return base

    def _check_build(self, base: sqlite3.Connection) -> None:
        """Drop everything where the encoder no longer gives the vectors that were stored."""
        probe = np.ascontiguousarray(self._encoder.encode(PROBE_TEXTS), np.float32)
        known = base.execute("SELECT row FROM probe").fetchone()
        if known is not None and len(known[0]) == probe.nbytes:
            stored = np.frombuffer(known[0], np.float32).reshape(probe.shape)
            if (stored * probe).sum(axis=1).min() >= MIN_PROBE_COSINE:
                return
        if known is not None:
            logger.info("%s: made by an encoder that was built differently; dropped", self.path)
        with base:
            base.execute("DELETE FROM vectors")
            base.execute("DELETE FROM probe")
            base.execute("INSERT INTO probe VALUES (?)", (probe.tobytes(),))

    def _find(
        self, base: sqlite3.Connection, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        base.execute("CREATE TEMP TABLE wanted (key BLOB)")
        base.executemany("INSERT INTO wanted VALUES (?)", ((key,) for key in keys))
        base.execute(
            "UPDATE vectors SET used = ? WHERE used < ? AND key IN (SELECT key FROM wanted)",
            (self._today, self._today),
        )
        asked = "SELECT key, row FROM vectors WHERE key IN (SELECT key FROM wanted)"
        for key, row in base.execute(asked):
            vector = np.frombuffer(row, np.float32)
            if len(vector) == self._encoder.dimension:
                yield key, vector

    def _tell(self, error: Exception) -> None:
        logger.info("%s: not used (%s); embeddings are computed anew", self.path, error)


def query_embeddings(
    texts: Sequence[str],
    encoder: Encoder,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed texts; those that the data's folder or Waypost's cache holds are not computed.

    Args:
        texts: Texts of the queries.
        encoder: Query encoder.
        folder: Routing-data folder, which is only read.
        progress: Called with (done, total) computed texts.

    Returns:
        float32 (n_texts, d), unit rows.

    Raises:
        SchemaError: The folder's file is not readable or of another width.
    """
    digests = text_digests(texts)
    stored = stored_in(folder, encoder)
    rows = np.empty((len(digests), encoder.dimension), np.float32)
    place = stored.find(digests)
    rows[place >= 0] = stored.rows[place[place >= 0]]
    unknown = new_rows(digests, stored)
    cache = EmbeddingCache(settings().cache / "embeddings", encoder)
    found = cache.find([digests[row].tobytes() for row in unknown])
    missing = np.array([row for row in unknown if digests[row].tobytes() not in found], np.int64)
    began = time.perf_counter()
    parts = [np.empty((0, encoder.dimension), np.float32)]
    parts += encoded(texts, missing, encoder, progress)
    fresh = np.concatenate(parts)
    keys = [digests[row].tobytes() for row in missing]
    if time.perf_counter() - began >= WORTH_S:
        cache.store(keys, fresh)
    found |= zip(keys, fresh, strict=True)
    for row in np.flatnonzero(place < 0):
        rows[row] = found[digests[row].tobytes()]
    return rows
