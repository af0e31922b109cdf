"""Checkpoints of a run: written whole or not at all, the newest two kept."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import ConfigError, Fault
from waypost_rl.training.parts import Learner

FOLDER = "checkpoints"
KEPT = 2
_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: Steps done.
        rewards: Mean reward of each step.
        entropies: Normalised route entropy of each step; None where no episode searched.
        ended: Why the run ended before its last step; empty if it did not.
    """

    step: int = 0
    rewards: tuple[float, ...] = ()
    entropies: tuple[float | None, ...] = ()
    ended: str = ""


def write_checkpoint(run: Path, progress: Progress, learner: Learner) -> None:
    """Write a checkpoint and drop old ones.

    Random generators have no state to keep: everything drawn is a function of seed and step.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step_{progress.step:06d}"
    with replacing_folder(target, work=folder / ".partial") as partial:
        learner.save(partial)
        (partial / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    for _, old in _found(run)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(run: Path, learner: Learner) -> Progress | None:
    """Load the newest checkpoint of a run into a learner; None if there is none.

    Raises:
        ConfigError: The checkpoint is damaged.
        WeightsError: It is of another model or method.
    """
    found = _found(run)
    if not found:
        return None
    folder = found[-1][1]
    learner.load(folder)
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        progress = Progress(
            step=int(state["step"]),
            rewards=tuple(map(float, state["rewards"])),
            entropies=tuple(state["entropies"]),
            ended=str(state["ended"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"not a checkpoint: {error}; delete it to continue from the one before"
        raise ConfigError([Fault(str(folder), problem)]) from None
    return progress


def last_step(run: Path) -> int:
    """Return the steps of the newest checkpoint; 0 without one."""
    found = _found(run)
    return found[-1][0] if found else 0


def _found(run: Path) -> list[tuple[int, Path]]:
    folder = run / FOLDER
    names = folder.iterdir() if folder.is_dir() else ()
    steps = [(int(match[1]), one) for one in names if (match := _NAME.fullmatch(one.name))]
    return sorted(steps)
