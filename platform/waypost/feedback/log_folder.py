"""The place of a decision log: parquet files by day in a folder or a store, and spool files.

The spool files of a folder lie in it. Those of a store lie in a folder of this machine, named after
the store, so that the next process on this machine finds them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from waypost.contracts.atomic import replacing
from waypost.contracts.errors import StorageError, StorageMissingError
from waypost.storage.folders import PARTIAL
from waypost.storage.uri import (
    Place,
    Uri,
    delete,
    make_parent,
    move,
    open_store,
    place,
    store_errors,
)

logger = logging.getLogger(__name__)

FORGOTTEN = "forgotten.json"
"""File with the digests of forgotten users, for rows that are not parquet yet."""

KEPT_S = 7 * 86_400.0
"""Seconds for which a forgotten user stays in `FORGOTTEN`."""


class LogFolder(ABC):
    """Where parquet files go.

    Attributes:
        spool: Folder of the spool files, which exists.
    """

    spool: Path

    @abstractmethod
    def publish(self, name: str, table: pa.Table) -> None:
        """Write a parquet file in one step; one of the same name is replaced."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file; empty where it is not there."""

    def forgotten(self) -> dict[str, float]:
        """Return the digests of forgotten users, with the time until which they are."""
        return read_forgotten(self.read(FORGOTTEN))


def log_folder(target: str | Place) -> LogFolder:
    """Return the place of a log.

    Raises:
        StorageError: it cannot be written.
    """
    where = place(target)
    return StoredLog(where) if isinstance(where, Uri) else LocalLog(where)


class LocalLog(LogFolder):
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.spool = folder / ".spool"
        try:
            self.spool.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from None

    def __str__(self) -> str:
        return str(self._folder)

    def publish(self, name: str, table: pa.Table) -> None:  # noqa: D102
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            write_parquet(partial, table)

    def read(self, name: str) -> bytes:  # noqa: D102
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return b""


class StoredLog(LogFolder):
    """A folder of a store."""

    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._store, self._path = open_store(uri)
        name = hashlib.blake2b(str(uri).encode(), digest_size=8).hexdigest()
        self.spool = Path(tempfile.gettempdir()) / f"waypost-decisions-{os.getuid()}-{name}"
        try:
            self.spool.mkdir(mode=0o700, exist_ok=True)
            found = self.spool.lstat()
        except OSError as error:
            raise StorageError(f"{self.spool}: cannot be made: {error.strerror}") from None
        # others may write to the temporary folder
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StorageError(f"{self.spool}: belongs to another user; remove it")
        self._put(f"{PARTIAL}-{name}", b"")
        with store_errors(uri):
            delete(self._store, f"{self._path}/{PARTIAL}-{name}")

    def __str__(self) -> str:
        return str(self._uri)

    def publish(self, name: str, table: pa.Table) -> None:  # noqa: D102
        local = self.spool / f".{Path(name).name}"
        try:
            write_parquet(local, table)
            self._put(f"{name}{PARTIAL}", local.read_bytes())
            with store_errors(self._uri):
                move(self._store, f"{self._path}/{name}{PARTIAL}", f"{self._path}/{name}")
        finally:
            local.unlink(missing_ok=True)

    def _put(self, name: str, content: bytes) -> None:
        target = f"{self._path}/{name}"
        with store_errors(self._uri):
            make_parent(self._store, target)
            with self._store.open_output_stream(target) as stream:
                stream.write(content)

    def read(self, name: str) -> bytes:  # noqa: D102
        try:
            with (
                store_errors(self._uri),
                self._store.open_input_stream(f"{self._path}/{name}") as stream,
            ):
                return bytes(stream.read())
        except StorageMissingError:
            return b""


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a parquet file that outlives the machine's power."""
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def read_forgotten(content: bytes) -> dict[str, float]:
    """Return the entries of `FORGOTTEN`: digest of the user id -> Unix seconds.

    Raises:
        StorageError: it is not what it should be; no row may be written then.
    """
    try:
        found = json.loads(content or b"{}")
        return {str(user): float(at) for user, at in found.items()}
    except (ValueError, TypeError, AttributeError):
        raise StorageError(f"{FORGOTTEN}: expected digests of users with times") from None


def forgotten_with(content: bytes, user: str, now: float) -> bytes:
    """Return the content of `FORGOTTEN` with a further user, without the oldest."""
    found = {key: at for key, at in read_forgotten(content).items() if now - at < KEPT_S}
    return json.dumps({**found, user: now}, indent=1).encode()
