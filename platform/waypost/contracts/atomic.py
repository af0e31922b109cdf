"""Write files and folders atomically: under a temporary name beside the target, then rename."""

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
    """Yield a temporary path to write; rename it to ``path`` when the block ends without error.

    Args:
        path: The final name, in an existing folder.
        unique: Whether several processes may write it at a time. Each then has its own temporary
            file, which remains if the process is killed. Otherwise the next writer overwrites it.

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
    """Yield an empty folder to fill; rename it to ``path`` when the block ends without error.

    Args:
        path: The final name. An existing folder stays until the block ends and is then removed.
        failed: Builds the error from the reason why no folder can be made; default ConfigError.
        work: Temporary folder beside ``path``, for one writer at a time. What a killed writer
            left in it is removed first. Default: a folder with a unique name.

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
    """Yield an empty folder to fill; rename it to ``path`` when the block ends without error.

    Raises:
        ConfigError: ``path`` exists already, or the folder cannot be made.
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
