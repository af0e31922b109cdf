"""TensorBoard events: one run a trial, with its settings as hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waypost.contracts.errors import MissingExtraError
from waypost.tune.sweep.journal import Row


class Events:
    """Writes each row as it comes.

    Args:
        folder: Log folder; runs are folders in it. One that is there stays.
        label: Of the metric.

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

    def write(self, row: Row) -> None:
        """Write the row's run; rows that failed and those measured again have none."""
        run = self._folder / f"trial-{row.number:04d}"
        if row.score is None or row.deal or run.exists():
            return
        from tensorboardX.summary import hparams

        with self._library.SummaryWriter(str(run)) as writer:
            for epoch, score in enumerate(row.epochs, 1):
                if score is not None:
                    writer.add_scalar("metric_by_epoch", score, epoch)
            steps = max(len(row.epochs), 1)
            values = {key: _plain(value) for key, value in row.setting.items()}
            for summary in hparams(values, {"metric": row.score}):
                writer.file_writer.add_summary(summary)
            writer.add_scalar("metric", row.score, steps)
            writer.add_scalar("seconds", row.seconds, steps)
            writer.add_text("metric", self._label)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
