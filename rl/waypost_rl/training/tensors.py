"""Tensors of checkpoints in safetensors files: nothing is pickled."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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


def random_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, numpy and torch; JSON-able."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, second = random.getstate()
    return {
        "python": [version, list(internal), second],
        "numpy": [kind, [int(key) for key in keys], position, has_gauss, gauss],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [one.tolist() for one in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set the global generators to what `random_states` returned."""
    version, internal, second = states["python"]
    random.setstate((version, tuple(internal), second))
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(
            [torch.tensor(one, dtype=torch.uint8) for one in states["cuda"]]
        )
