"""Local folders copied from and to a store, so that a restarted run finds its earlier output."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from waypost.contracts.errors import (
    ConfigError,
    Fault,
    StorageError,
    StorageMissingError,
    WaypostError,
)
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

PARTIAL = ".waypost-part"
"""Suffix of the temporary names of files during their upload."""

THREADS = 8
"""Number of files copied in parallel."""

_CHUNK = 1 << 20


@contextmanager
def local_copy(source: str | Place) -> Iterator[Path]:
    """Yield a local path of the folder or file at ``source``, for reading.

    A copy is removed at the end of the block.

    Args:
        source: A path, which is yielded unchanged, or a URI.

    Raises:
        StorageMissingError: nothing is at the URI.
        StorageError: the store cannot be read.
    """
    where = place(source)
    if isinstance(where, Path):
        yield where
        return
    with temporary_folder(where) as folder:
        store, path = open_store(where)
        with store_errors(where):
            there = store.get_file_info(path)
        if there.is_file:
            with store_errors(where):
                download(store, path, folder)
        elif not fetch(where, store, path, folder):
            raise StorageMissingError(f"{where}: nothing is there")
        with naming(where, folder):
            yield folder


@contextmanager
def temporary_folder(uri: Uri) -> Iterator[Path]:
    """Yield an unused path with the URI's last name, alone in a temporary folder."""
    work = Path(tempfile.mkdtemp(prefix="waypost-"))
    try:
        yield work / uri.name
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch(uri: Uri, store: Any, path: str, folder: Path) -> dict[str, int]:
    """Copy all files below ``path`` into ``folder``.

    Returns:
        Path relative to ``folder`` -> size in bytes, for each file.
    """
    from pyarrow.fs import FileSelector

    with store_errors(uri):
        below = store.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
        start = len(path.lstrip("/")) + 1
        files = {one.path.lstrip("/")[start:]: one for one in below if one.is_file}
        files = {name: one for name, one in files.items() if not name.endswith(PARTIAL)}
        folder.mkdir(parents=True, exist_ok=True)
        inside = folder.resolve()
        for name in files:
            if not (inside / name).resolve().is_relative_to(inside):
                raise ValueError(f"a file is named {name!r}, which is outside of the folder")
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(download, store, o.path, folder / n) for n, o in files.items()]
            for job in jobs:
                job.result()
    logger.info("fetched %d files from %s", len(files), uri)
    return {name: int(one.size or 0) for name, one in files.items()}


def download(store: Any, path: str, target: Path) -> None:
    """Copy one file from a store."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.open_input_stream(path) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)


@contextmanager
def naming(uri: Uri, folder: Path) -> Iterator[None]:
    """Replace the local copy's path by the URI in the errors of the block."""
    try:
        yield
    except WaypostError as error:
        local, shown = str(folder), str(uri)
        if isinstance(error, ConfigError):
            error.faults = tuple(
                Fault(f.where.replace(local, shown), f.problem.replace(local, shown))
                for f in error.faults
            )
        error.args = tuple(
            arg.replace(local, shown) if isinstance(arg, str) else arg for arg in error.args
        )
        raise


EVERY_S = 30.0
"""Seconds between two copies of changed files during the block."""

TRIES = 3
"""Attempts of the last copy, before the local folder is kept instead."""

_STILL_WRITTEN_S = 1.0

_Stamp: TypeAlias = tuple[int, int]


@contextmanager
def mirrored(target: str | Place, every_s: float = EVERY_S) -> Iterator[Path]:
    """Yield a local folder for an output, with the existing files of ``target``.

    A path is yielded unchanged. For a URI, changed files are copied to the store every ``every_s``
    seconds and at the end of the block, also after an error; the file written last is uploaded
    last. Local deletions follow at the end. A file gets its final name after its complete upload.

    Args:
        target: A path or a URI; the folder need not exist.
        every_s: Seconds between copies; infinity copies at the end only.

    Raises:
        StorageError: the store cannot be written (raised before the block), or the last copy
            failed (the message contains the path where the local folder is kept).
    """
    where = place(target)
    if isinstance(where, Path):
        yield where
        return
    with temporary_folder(where) as folder:
        mirror = Mirror(where, folder)
        mirror.begin()
        stop = threading.Event()
        worker = threading.Thread(target=mirror.repeat, args=(stop, every_s), daemon=True)
        worker.start()
        try:
            with naming(where, folder):
                yield folder
        except BaseException as error:
            _finish(mirror, stop, worker, after=error)
            raise
        _finish(mirror, stop, worker)


def _finish(
    mirror: Mirror,
    stop: threading.Event,
    worker: threading.Thread,
    after: BaseException | None = None,
) -> None:
    stop.set()
    worker.join()
    try:
        mirror.end()
    except StorageError as error:
        kept = mirror.folder.parent.with_name(f"{mirror.folder.parent.name}-kept")
        shutil.move(mirror.folder.parent, kept)
        problem = f"{error}; the files are kept in {kept / mirror.folder.name}"
        if after is None:
            raise type(error)(problem) from None
        logger.error("%s", problem)


class Mirror:
    """Copier of a folder's changes to a store.

    Args:
        uri: The folder in the store.
        folder: The local folder; `begin` creates it.
    """

    def __init__(self, uri: Uri, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._store, self._path = open_store(uri)
        self._there: dict[str, _Stamp] = {}

    def begin(self) -> None:
        """Fetch the existing files, and check that the store can be written.

        Raises:
            StorageError: the store cannot be read or written.
        """
        fetched = fetch(self.uri, self._store, self._path, self.folder)
        self._there = {
            name: stamp for name, stamp in _files(self.folder).items() if name in fetched
        }
        probe = f"{self._path}/{PARTIAL}"
        with store_errors(self.uri):
            make_parent(self._store, probe)
            with self._store.open_output_stream(probe) as stream:
                stream.write(b"")
            delete(self._store, probe)

    def repeat(self, stop: threading.Event, every_s: float) -> None:
        """Copy changed files every ``every_s`` seconds until ``stop`` is set."""
        while not stop.wait(min(every_s, threading.TIMEOUT_MAX)):
            try:
                self.push()
            except StorageError as error:
                logger.warning("%s; retrying in %g s", error, every_s)

    def push(self, *, whole: bool = False) -> int:
        """Copy files that changed since their last copy; return the number of copied files.

        Args:
            whole: Include files written within the last second, which may be unfinished.
        """
        now = time.time_ns()
        changed = [
            (stamp[1], name)
            for name, stamp in _files(self.folder).items()
            if self._there.get(name) != stamp and (whole or now - stamp[1] > _STILL_WRITTEN_S * 1e9)
        ]
        names = [name for _, name in sorted(changed)]
        with store_errors(self.uri), ThreadPoolExecutor(THREADS) as pool:
            done = list(pool.map(self._upload, names[:-1]))
            done += map(self._upload, names[-1:])
        return sum(done)

    def end(self) -> None:
        """Copy all changed files and delete files in the store that were deleted locally.

        Raises:
            StorageError: all `TRIES` attempts failed.
        """
        for left in reversed(range(TRIES)):
            try:
                count = self.push(whole=True)
                self._delete_gone()
            except StorageError:
                if not left:
                    raise
                time.sleep(2.0 ** (TRIES - left - 1) - 0.5)
            else:
                logger.info("copied %d files to %s", count, self.uri)
                return

    def _delete_gone(self) -> None:
        for name in self._there.keys() - _files(self.folder).keys():
            with store_errors(self.uri):
                delete(self._store, f"{self._path}/{name}")
            del self._there[name]

    def _upload(self, name: str) -> bool:
        """Copy one file via a temporary name; return False if it changed or vanished meanwhile."""
        file, target = self.folder / name, f"{self._path}/{name}"
        partial = target + PARTIAL
        try:
            before = _stamp(file)
            source = file.open("rb")
        except FileNotFoundError:
            return False
        make_parent(self._store, target)
        with source, self._store.open_output_stream(partial) as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
        if not file.exists() or _stamp(file) != before:
            delete(self._store, partial)
            return False
        move(self._store, partial, target)
        self._there[name] = before
        return True


def _files(folder: Path) -> dict[str, _Stamp]:
    """Return the stamp of each file by its relative path, without files that vanish meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = _stamp(path)
        except FileNotFoundError:
            continue
    return found


def _stamp(file: Path) -> _Stamp:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
