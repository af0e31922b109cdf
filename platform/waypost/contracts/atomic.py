"""Files and folders that are there whole or not at all: written beside their place and renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost.contracts.errors import ConfigError, Fault


@contextmanager
def replacing(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """Give the path of a file to write; it takes the place of ``path`` where the block ends well.

    Args:
        path: The final name, in a folder that is there.
        unique: Whether several processes may write it at a time; each then writes a file of its
            own, which stays where a process is killed. Otherwise the next writer overwrites it.

    Raises:
        OSError: it cannot be renamed.
    """
    mark = f".{os.getpid()}.{os.urandom(4).hex()}" if unique else ""
    partial = path.with_name(f".{path.name}{mark}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, replacing it in one step."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def replacing_folder(
    path: Path, failed: Callable[[str], Exception] | None = None, work: Path | None = None
) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of ``path`` where the block ends well.

    Args:
        path: The final name. What is there stays until the block ends, and is removed then.
        failed: Makes the error from the reason why no folder can be made; default a ConfigError.
        work: Folder beside ``path`` to work in, for one writer at a time: what a killed one left
            is removed first. Default one with a name of its own.

    Raises:
        ConfigError, or what ``failed`` makes: the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if work is None:
            work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        else:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        new, old = work / "new", work / "old"
        new.mkdir()
    except OSError as error:
        why = error.strerror or str(error)
        if failed is not None:
            raise failed(why) from None
        raise ConfigError([Fault(str(path), f"cannot be made: {why}")]) from None
    try:
        yield new
        if path.exists():
            os.replace(path, old)  # noqa: PTH105 - a folder, in one step
        try:
            os.replace(new, path)  # noqa: PTH105
        except OSError:
            if old.exists():
                os.replace(old, path)  # noqa: PTH105
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``path`` in one step where the block ends well.

    Raises:
        ConfigError: something is there already, or the folder cannot be made.
    """
    path = Path(path).absolute()
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be made: {error.strerror}")]) from None
    if taken:
        raise ConfigError([Fault(str(path), "exists; give the name of a new folder")])
    with replacing_folder(path) as folder:
        yield folder
