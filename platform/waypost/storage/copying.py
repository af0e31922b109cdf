"""Files from a store to this machine."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.contracts.errors import ConfigError, Fault, StorageMissingError, WaypostError
from waypost.storage.filesystem import open_store, store_errors
from waypost.storage.uri import Place, Uri, place

logger = logging.getLogger(__name__)

PARTIAL = ".waypost-part"
"""End of the names under which files are uploaded before they get their own."""

THREADS = 8
"""Files copied at a time."""

_CHUNK = 1 << 20


@contextmanager
def local_copy(source: str | Place) -> Iterator[Path]:
    """Give a local path to what is at ``source``: a folder or a file, for reading.

    A copy is removed when the block ends.

    Args:
        source: A path, which is itself, or a URI.

    Raises:
        StorageMissingError: nothing is there.
        StorageError: it cannot be read.
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
    """Give a name that is free, alone in a temporary folder, and ends as the URI does."""
    work = Path(tempfile.mkdtemp(prefix="waypost-"))
    try:
        yield work / uri.name
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch(uri: Uri, store: Any, path: str, folder: Path) -> dict[str, int]:
    """Copy every file below ``path`` into ``folder``.

    Returns:
        The bytes of each file by its path relative to ``folder``.
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
    """Copy one file of a store."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.open_input_stream(path) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)


@contextmanager
def naming(uri: Uri, folder: Path) -> Iterator[None]:
    """Let errors of the block name the URI, where they name its local copy."""
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
