"""Checkpoints of settings in the middle of their training: safetensors that Ray Tune keeps."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.contracts.epochs import Arrays
from waypost.contracts.errors import ArtifactFormatError

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""What is measured: key of the setting, and deal."""

_PROGRESS = ".progress.json"


@dataclass(frozen=True, eq=False)
class Kept:
    """A setting in the middle of its training.

    Attributes:
        place: Which setting, on which deal.
        states: Of the folds' trainings, in order; see `EpochTraining.state`.
        epochs: The metric after each epoch; None where it was not looked at.
        seconds: That they took.
    """

    place: Place
    states: list[Arrays]
    epochs: list[float | None]
    seconds: float

    def write(self, folder: Path) -> None:
        """Write it as safetensors and one JSON, whose name says what it is of."""
        from safetensors.numpy import save_file

        for number, state in enumerate(self.states):
            save_file(state, str(folder / f"fold-{number}.safetensors"))
        key, deal = self.place
        about = {"key": key, "deal": deal, "folds": len(self.states)}
        about |= {"epochs": self.epochs, "seconds": self.seconds}
        (folder / f"{key}-{deal}{_PROGRESS}").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Kept:
        """Read what `write` wrote.

        Raises:
            ArtifactFormatError: a file is missing or torn.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            path = next(folder.glob(f"*{_PROGRESS}"), folder / _PROGRESS)
            about = json.loads(path.read_text(encoding="utf-8"))
            files = [folder / f"fold-{number}.safetensors" for number in range(about["folds"])]
            states = [load_file(str(file)) for file in files]
            return cls((about["key"], about["deal"]), states, about["epochs"], about["seconds"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ArtifactFormatError(f"{folder}: is no checkpoint: {error}") from None


def left_behind(folder: Path) -> dict[Place, list[Path]]:
    """Return the checkpoints in Ray's folder by what they are of, the newest first.

    Those of this command's own run, and of runs that were killed.
    """
    found: dict[Place, list[tuple[int, Path]]] = {}
    for path in folder.glob(f"*/*/checkpoint_*/*{_PROGRESS}"):
        key, _, deal = path.name.removesuffix(_PROGRESS).rpartition("-")
        try:
            found.setdefault((key, int(deal)), []).append((path.stat().st_mtime_ns, path.parent))
        except OSError:  # Ray keeps the last few only
            continue
    return {place: [one for _, one in sorted(ages, reverse=True)] for place, ages in found.items()}


def first_whole(folders: Sequence[str]) -> Kept | None:
    """Return the first checkpoint that can be read; a kill may have torn the newest."""
    for folder in folders:
        try:
            return Kept.read(Path(folder))
        except ArtifactFormatError as error:
            logger.warning("a checkpoint is passed over: %s", error)
    return None


def send(found: Mapping[str, Any], kept: Kept | None = None) -> None:
    """Report to Ray Tune from a trial, with a checkpoint where there is one.

    Where the machines of a cluster share no disk Ray refuses a checkpoint: then it is done
    without, and a trial that is cut off is trained again from the beginning.
    """
    from ray import tune

    if kept is None:
        tune.report(dict(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept.write(Path(folder))
        try:
            tune.report(dict(found), checkpoint=tune.Checkpoint.from_directory(folder))
        except (RuntimeError, OSError) as error:
            logger.warning("no checkpoint was kept: %s", error)
            tune.report(dict(found))
