"""A spool file: an Arrow stream that one process appends to, and that a later one can finish.

The process that writes it holds a lock on it (flock), which ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

SUFFIX = ".arrows"


class Spool:
    """A new spool file in a folder.

    Args:
        folder: The folder, which exists.
        schema: Schema of the rows.

    Attributes:
        name: Its name without suffix, unlike that of any other.
        rows: Rows in it.
        bytes: Bytes of the rows in memory.
        since: `time.monotonic` at its beginning.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.name = f"{stamp}-{uuid.uuid4().hex[:8]}"
        self.rows = self.bytes = 0
        self.since = time.monotonic()
        self._path = folder / f"{self.name}{SUFFIX}"
        new = folder / f".{self.name}.new"
        self._file: IO[bytes] = new.open("xb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._writer: Any = pa.ipc.new_stream(self._file, schema)
            self._file.flush()
            new.rename(self._path)  # others see it locked from its first moment
        except BaseException:
            new.unlink(missing_ok=True)
            self._file.close()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; they outlive this process.

        Raises:
            OSError: they cannot be written.
        """
        self._writer.write_batch(batch)
        self._file.flush()
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

    def finish(self) -> None:
        """End the stream."""
        self._writer.close()
        self._file.flush()

    def read(self) -> pa.Table:
        """Return the rows; a last batch that was cut off by a kill is left out."""
        return read_stream(self._path)

    def delete(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Unlock the file, so that another process may finish it where it still is there."""
        self._file.close()


class _Left(Spool):
    """A spool file of a process that has ended."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.name, self._path, self._file = path.name.removesuffix(SUFFIX), path, file


def orphans(folder: Path) -> Iterator[Spool]:
    """Yield the spool files that no process writes, locked; the caller releases each."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_it = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            is_it = False  # it is written, or another process has just finished it
        if is_it:
            yield _Left(path, file)
        else:
            file.close()


def read_stream(path: Path) -> pa.Table:
    """Read an Arrow stream as far as it goes."""
    batches = []
    with pa.OSFile(str(path)) as file:
        try:
            reader = pa.ipc.open_stream(file)
        except (pa.ArrowException, OSError):
            return pa.table({"time": pa.array([], pa.timestamp("ms", tz="UTC"))})
        # a process that was killed while it wrote has cut off the last batch
        with suppress(pa.ArrowException, OSError):
            batches.extend(reader)
        return pa.Table.from_batches(batches, reader.schema)
