"""TensorBoard on loopback, for as long as a block runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from waypost.contracts.errors import MissingExtraError

START_S = 60.0


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Show a log folder; the value is the address, which may take some seconds to answer.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tune")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-P", "-m", "tensorboard.main", "--logdir", str(folder.absolute()),
        "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false",
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env=os.environ)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address: str, within_s: float = START_S) -> bool:
    """Wait until something listens at an address; False where nothing does in time."""
    host, _, port = address.rpartition("/")[2].partition(":")
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return True
        except OSError:
            time.sleep(0.2)
    return False
