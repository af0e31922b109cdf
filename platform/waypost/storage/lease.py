"""In a store, which has no locks: an object that says who works there, written anew meanwhile.

A run that ended well takes it away. That of a run that was killed counts for `LEASE_S` more; at
once no longer where the number of its process is one of this machine's and is gone. Two that begin
within the same moment both find none; each waits and reads again what it wrote, and the one whose
object was written over is refused.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from waypost.contracts.errors import FolderInUseError, StorageError
from waypost.storage.filesystem import delete, make_parent, open_store, store_errors
from waypost.storage.holder import LOCK, holder_of, is_gone, me, refusal
from waypost.storage.uri import Uri

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds that a lease counts after it was last written."""

_RENEW_S = 15.0
_SETTLE_S = 0.5
"""Longer than another run takes from finding no object to having written one."""

_LONGEST = 4096


@contextmanager
def leased(uri: Uri) -> Iterator[None]:
    """Keep a lease of a folder in a store.

    Raises:
        FolderInUseError: another process has one.
        StorageError: the store cannot be read or written.
    """
    lease = _Lease(uri)
    lease.take()
    stop = threading.Event()
    worker = threading.Thread(target=lease.renew, args=(stop,), daemon=True)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
        lease.end()


class _Lease:
    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._store, path = open_store(uri)
        self._path = f"{path}/{LOCK}"
        self._me = me() | {"run": os.urandom(8).hex()}

    def take(self) -> None:
        holder = self._holder()
        if holder and not _is_over(holder):
            raise FolderInUseError(refusal(self._uri, holder))
        self._write()
        time.sleep(_SETTLE_S)
        holder = self._holder()
        if holder.get("run") != self._me["run"]:
            raise FolderInUseError(refusal(self._uri, holder))

    def renew(self, stop: threading.Event) -> None:
        while not stop.wait(_RENEW_S):
            try:
                self._write()
            except StorageError as error:
                logger.warning("%s; tried again in %g s", error, _RENEW_S)

    def end(self) -> None:
        try:
            if self._holder().get("run") == self._me["run"]:
                with store_errors(self._uri):
                    delete(self._store, self._path)
        except StorageError as error:
            logger.warning("%s; the lease counts for %g s more", error, LEASE_S)

    def _holder(self) -> dict[str, Any]:
        with store_errors(self._uri):
            if not self._store.get_file_info(self._path).is_file:
                return {}
            with self._store.open_input_stream(self._path) as stream:
                return holder_of(stream.read(_LONGEST))

    def _write(self) -> None:
        with store_errors(self._uri):
            make_parent(self._store, self._path)
            with self._store.open_output_stream(self._path) as stream:
                stream.write(json.dumps(self._me | {"seen": time.time()}).encode())


def _is_over(holder: Mapping[str, Any]) -> bool:
    seen = holder.get("seen")
    stale = not isinstance(seen, int | float) or time.time() - seen > LEASE_S
    return stale or is_gone(holder)
