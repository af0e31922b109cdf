"""TensorBoard: event files with a run for each trial, and the TensorBoard process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from waypost.contracts.errors import MissingExtraError
from waypost.tune.journal import TrialRow

FLUSH_S = 2
"""Seconds between two flushes of the event files."""

START_S = 60.0
"""Maximum seconds to wait for TensorBoard to answer."""


class EventWriter:
    """A writer of finished trials and epochs of running trials as TensorBoard events.

    Args:
        folder: Log folder, with a folder for each trial.
        label: Name of the metric.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, label: str) -> None:
        try:
            import tensorboardX
        except ImportError:
            raise MissingExtraError("tensorboardX", "tune") from None
        self._library: Any = tensorboardX
        self._folder, self._label = folder, label
        self._open: dict[int, tuple[Any, TrialRow | None]] = {}

    def write_epochs(self, row: TrialRow) -> None:
        """Write the epochs of a running trial that are not written yet."""
        if row.deal:
            return
        if row.number not in self._open:
            # Replace the run of a killed command, from its first epoch.
            run = self._folder / f"trial-{row.number:04d}"
            shutil.rmtree(run, ignore_errors=True)
            made = self._library.SummaryWriter(str(run), flush_secs=FLUSH_S)
            self._open[row.number] = made, None
        writer, known = self._open[row.number]
        before = known or TrialRow(row.number, row.key, {}, 0, "stopped", None, 0.0)
        _curve(writer, "metric_by_epoch", row.epochs, len(before.epochs))
        _curve(writer, "held_out_loss", row.losses, len(before.losses))
        self._open[row.number] = writer, row

    def write(self, row: TrialRow) -> None:
        """Write the run of a finished trial; failed and repeated trials have none."""
        if row.score is None or row.deal:
            if not row.deal and row.number in self._open:
                self._open.pop(row.number)[0].close()
            return
        from tensorboardX.summary import hparams

        self.write_epochs(row)
        writer, _ = self._open.pop(row.number)
        steps = max(len(row.epochs), 1)
        values = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in row.setting.items()
        }
        for summary in hparams(values, {"metric": row.score}):
            writer.file_writer.add_summary(summary)
        writer.add_scalar("metric", row.score, steps)
        writer.add_scalar("seconds", row.seconds, steps)
        writer.add_text("metric", self._label)
        writer.close()


def _curve(writer: Any, tag: str, values: Sequence[float | None], known: int) -> None:
    """Add the values of the epochs after the first ``known``; epochs count from 1."""
    for epoch, value in enumerate(values[known:], known + 1):
        if value is not None:
            writer.add_scalar(tag, value, epoch)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Run TensorBoard on a log folder and yield its address, which answers after some seconds.

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
    """Wait until a server listens at an address; return False after the time limit."""
    host, _, port = address.rpartition("/")[2].partition(":")
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return True
        except OSError:
            time.sleep(0.2)
    return False
