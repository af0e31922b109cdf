"""trials.jsonl: an append-only journal with a line for each finished trial.

Sweeps resume from it. A killed process can leave its last line incomplete; that line is dropped.
DECISIONS.md, 60 has the measurement beside Optuna's journal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.report.numbers import plain
from waypost.tune.space import Setting

FORMAT = "waypost-trials/1"


@dataclass(frozen=True)
class Task:
    """A measurement to make.

    Attributes:
        number: Number of the trial; 0 is the default.
        key: Key of the setting; see `SearchSpace.key`.
        setting: The searched values.
        parameters: All parameters given to the router.
        deal: Number of the assignment of questions to folds.
        schedule: Changes of parameters during training; see `trial.fit`.
    """

    number: int
    key: str
    setting: Setting
    parameters: dict[str, Any]
    deal: int = 0
    schedule: list[Any] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        """Setting and deal."""
        return self.key, self.deal


@dataclass(frozen=True)
class TrialRow:
    """A finished measurement.

    Attributes:
        number, key, setting, deal: As in `Task`.
        status: ``done``; ``stopped`` early by the scheduler; ``failed``.
        score: The metric; None if the trial failed or the metric is undefined.
        blocks: Pseudo-values; see `folds`. Empty if the trial failed.
        error: Reason of a failure.
        seconds: Seconds of fitting and evaluation.
        at_s: Time of recording, in seconds of the sweep's own time.
        epochs: The metric after each epoch, for routers that train by epochs; None where it was
            not evaluated.
        losses: Their loss on held-out questions after each epoch, mean over the folds; see
            `EpochTraining.losses`.
        schedule: Changes of parameters during training (pbt); see `EpochTraining`.
        trained: Parameters of the router, if pbt changed them from the setting.
    """

    number: int
    key: str
    setting: Setting
    deal: int
    status: Literal["done", "stopped", "failed"]
    score: float | None
    seconds: float
    at_s: float = 0.0
    blocks: list[float | None] = field(default_factory=list)
    error: str | None = None
    epochs: list[float | None] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    schedule: list[Any] = field(default_factory=list)
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        """Setting and deal."""
        return self.key, self.deal


_FIELDS = {one.name for one in fields(TrialRow)}


class Journal:
    """The rows of a sweep, in memory and in a file.

    Args:
        path: trials.jsonl; created if it is missing.
        subject: Identity of the sweep, JSON-able; a different subject is a different sweep.

    Raises:
        ConfigError: The file has another subject, or another process writes it.
        SchemaError: The file is not a journal.
    """

    def __init__(self, path: Path, subject: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[tuple[str, int], TrialRow] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        try:
            self._lock()
            self._read(json.loads(json.dumps(plain(dict(subject)))))
        except BaseException:
            self._file.close()
            raise

    def add(self, row: TrialRow) -> None:
        """Append a row to the file, unless its measurement exists already."""
        if row.place in self.rows:
            return
        self.rows[row.place] = row
        self._write(plain(asdict(row)))

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    @property
    def elapsed_s(self) -> float:
        """Seconds of the sweep's own time up to the last row."""
        return max((row.at_s for row in self.rows.values()), default=0.0)

    def search(self) -> list[TrialRow]:
        """Return the rows of the search, by number."""
        found = [row for row in self.rows.values() if row.deal == 0]
        return sorted(found, key=lambda row: row.number)

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = "another waypost tune is writing it; wait for it, or give another --out"
            raise ConfigError([Fault(str(self.path), problem)]) from None

    def _read(self, subject: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write({"format": FORMAT, "subject": subject})
            return
        try:
            head, *rest = (json.loads(line) for line in lines)
            if head["format"] != FORMAT:
                raise SchemaError(f"{self.path}: format {head['format']}; expected {FORMAT}")
            for one in rest:
                row = TrialRow(**{key: value for key, value in one.items() if key in _FIELDS})
                self.rows.setdefault(row.place, row)
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(
                f"{self.path}: is not a journal of a sweep ({type(error).__name__}); "
                "--fresh deletes it"
            ) from None
        self._compare(head["subject"], subject)

    def _compare(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            raise ConfigError(
                Fault(
                    f"{self.path.parent}: {key}",
                    f"holds a sweep with {_short(then.get(key))}, this one has {_short(now[key])}; "
                    "give another --out, or --fresh to delete the earlier sweep",
                )
                for key in changed
            )

    def _write(self, data: Any) -> None:
        line = json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"
        self._file.write(line.encode("utf-8", "surrogatepass"))
        self._file.flush()
        os.fsync(self._file.fileno())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
