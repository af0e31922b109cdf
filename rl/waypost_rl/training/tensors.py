"""Tensors of checkpoints in safetensors files: nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def write(path: Path, found: Mapping[str, Tensor]) -> None:
    """Write named tensors to a file."""
    save_file({name: one.detach().cpu().contiguous() for name, one in found.items()}, path)


def read(path: Path) -> dict[str, Tensor]:
    """Read what `write` wrote.

    Raises:
        OSError, ValueError: The file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except Exception as error:  # safetensors has an error of its own for damaged files
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{path}: {error}") from error


def flat(states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return an optimizer's state, parameter -> name -> tensor, under joined names."""
    return {
        f"{at}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for at, state in states.items()
        for name, value in state.items()
    }


def nested(found: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state that `flat` joined."""
    states: dict[int, dict[str, Tensor]] = {}
    for joined, value in found.items():
        at, _, name = joined.partition(".")
        states.setdefault(int(at), {})[name] = value
    return states
