"""Exclusive use of an output folder by one process: a file lock, or a renewed lease in a store."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from waypost.contracts.errors import FolderInUseError, StorageAccessError, StorageError
from waypost.storage.uri import Place, Uri, delete, make_parent, open_store, store_errors

LOCK = ".lock"
"""Name of the lock file in the folder."""

_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")


def me() -> dict[str, Any]:
    """Return this process's entry: pid, host, start time, and the space in which the pid counts."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "space": _space()}


def holder_of(data: bytes) -> dict[str, Any]:
    """Return the entry in a lock file; {} if it is not written yet."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_gone(holder: Mapping[str, Any]) -> bool:
    """Return whether the holder has certainly ended; False if it runs on another machine."""
    space, pid = _space(), holder.get("pid")
    if space is None or holder.get("space") != space or not isinstance(pid, int):
        return False
    return not Path(f"/proc/{pid}").exists()


def refusal(folder: Place, holder: Mapping[str, Any]) -> str:
    """Return the error message for a second run in the folder."""
    facts = [str(holder.get(key, "?")) for key in ("pid", "host", "since")]
    who = "process {} on {}, since {}".format(*facts) if holder else "another process"
    return (
        f"{folder}: another run uses it ({who}); two runs would pay for the same answers twice: "
        "wait for its end, or stop it there"
    )


def _space() -> str | None:
    """Return an id of machine, boot and container in which pids are unique; None if unknown."""
    boot, numbers = _MACHINE
    try:
        return f"{Path(boot).read_text(encoding='ascii').strip()} {Path(numbers).readlink()}"
    except OSError:
        return None


logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds for which a lease is valid after its last renewal."""

_RENEW_S = 15.0
_SETTLE_S = 0.5
"""Wait before a new lease is checked: longer than another run takes from its read to its write."""

_LONGEST = 4096


@contextmanager
def leased(uri: Uri) -> Iterator[None]:
    """Hold a lease of a folder in a store during the block.

    Raises:
        FolderInUseError: another process holds one.
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
                logger.warning("%s; retrying in %g s", error, _RENEW_S)

    def end(self) -> None:
        try:
            if self._holder().get("run") == self._me["run"]:
                with store_errors(self._uri):
                    delete(self._store, self._path)
        except StorageError as error:
            logger.warning("%s; the lease stays valid for up to %g s", error, LEASE_S)

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


_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())


@contextmanager
def alone_in(folder: Place) -> Iterator[None]:
    """Hold the lock of a folder during the block; nested calls do nothing.

    Args:
        folder: An existing folder, or the URI of a folder.

    Raises:
        FolderInUseError: another process, or another thread of this process, holds the lock.
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
    """Return the open and locked file; None if the file system has no locks."""
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
            logger.warning("%s: no file locks (%s); start no second run in it", path.parent, why)
            return None
        if _is(path, file):
            return file
        os.close(file)  # the previous holder removed the file after this process opened it


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
