"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost.contracts.errors import ConfigError, Fault


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``path`` in one step where the block ends well.

    Raises:
        ConfigError: something is there already, or the folder cannot be made.
    """
    path = Path(path).absolute()
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError([Fault(str(path), "exists; give the name of a new folder")])
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be made: {error.strerror}")]) from None
    try:
        partial.chmod(0o755)
        yield partial
        os.replace(partial, path)  # noqa: PTH105 - a folder, in one step
    finally:
        shutil.rmtree(partial, ignore_errors=True)
