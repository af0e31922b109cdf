"""One process at a time in an output folder that a run continues in: two would do the same work.

A path is held by a lock of the kernel (flock), which goes with its process: a run that is killed
leaves the file, not the lock. Of a store see `waypost.storage.lease`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from waypost.contracts.errors import FolderInUseError, StorageAccessError
from waypost.storage.holder import LOCK, holder_of, me, refusal
from waypost.storage.lease import leased
from waypost.storage.uri import Place, Uri

logger = logging.getLogger(__name__)

_LONGEST = 4096

_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())


@contextmanager
def alone_in(folder: Place) -> Iterator[None]:
    """Hold a folder; inside a block that holds it this does nothing.

    Args:
        folder: A folder that is there, or the URI of one.

    Raises:
        FolderInUseError: another process, or another thread of this one, holds it.
        StorageError: the store cannot be read or written.
    """
    name = folder.reveal() if isinstance(folder, Uri) else str(folder.resolve())
    if name in _held.get():
        yield
        return
    token = _held.set(_held.get() | {name})
    try:
        with leased(folder) if isinstance(folder, Uri) else _locked(folder):
            yield
    finally:
        _held.reset(token)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    file = _lock(path)
    if file is None:
        yield
        return
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(me()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path) -> int | None:
    """Return the open file, locked; None where the file system has no locks."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageAccessError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(os.pread(file, _LONGEST, 0))
            os.close(file)
            raise FolderInUseError(refusal(path.parent, holder)) from None
        except OSError as error:
            os.close(file)
            why = error.strerror
            logger.warning("%s: no locks here (%s); start no second run in it", path.parent, why)
            return None
        if _is(path, file):
            return file
        os.close(file)  # who held it took the file away between our two calls


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
