"""Start a run: read its config, lock its folder, start its processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from waypost.config import PATIENT_THREADS, load_config, resolve_path, set_default_environment
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError
from waypost.storage.lock import alone_in
from waypost.storage.uri import is_uri
from waypost_rl.training.config import RunConfig

if TYPE_CHECKING:
    from waypost_rl.training.loop import Result


def read_run_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the config of a run.

    Args:
        path: YAML file.
        overrides: ``key=value``, with dots in the key.

    Raises:
        ConfigError: The file does not exist, or something in it is wrong; all faults at once.
    """
    return load_config(RunConfig, path, overrides)


def start(config: RunConfig, command: str) -> Result:
    """Train, or continue a run, and return when it is finished.

    Args:
        config: The run.
        command: Shell command that repeats it.

    Raises:
        FolderInUseError: Another process trains in the folder.
        MissingExtraError: The environment is not that of training.
        WaypostError: As `waypost_rl.training.loop.train`.
    """
    # before torch and transformers, whose notes on their own versions help nobody, are imported
    set_default_environment({**PATIENT_THREADS, "TRANSFORMERS_VERBOSITY": "error"})
    if is_uri(config.out):
        problem = f"{config.out} is a URI; a run needs a folder (of a disk that its workers share)"
        raise ConfigError([Fault("out", problem)])
    folder = resolve_path(config.out).absolute()
    config = config.model_copy(update={"out": str(folder)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{folder} cannot be made: {error.strerror}"
        raise ConfigError([Fault("out", problem)]) from None
    with alone_in(folder):
        if config.workers.count > 1:
            from waypost_rl.training.ray_workers import train_on_ray

            return train_on_ray(config, command)
        try:
            from waypost_rl.training.loop import train
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "router-r1") from None
        return train(config, command)


def check(config: RunConfig) -> list[str]:
    """Check all of a run that needs no GPU and no model weights; return what was found.

    Reads the data, renders and encodes the prompts, opens the pool. A live pool is not called.

    Raises:
        WaypostError: Something cannot be used.
    """
    from waypost_rl.training.dry_run import dry_run

    return dry_run(config)
