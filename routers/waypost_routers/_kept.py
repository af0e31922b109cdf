"""What is being trained, as named arrays and back: lists of arrays, and torch's optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays

Lists = Sequence[NDArray[Any]] | NDArray[Any]


def lists_to_arrays(**lists: Sequence[NDArray[Any]]) -> Arrays:
    """Return copies of the arrays of each list, named by list and number."""
    return {f"{name}.{i}": p.copy() for name, ps in lists.items() for i, p in enumerate(ps)}


def take_over(arrays: Mapping[str, NDArray[Any]], **targets: Lists) -> None:
    """Fill arrays, and those of lists, in place with what was saved under their names.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape.
    """
    for name, target in targets.items():
        one = [(name, target)] if isinstance(target, np.ndarray) else []
        for key, into in one or [(f"{name}.{i}", part) for i, part in enumerate(target)]:
            if arrays[key].shape != into.shape:
                raise ValueError(f"{key} has shape {arrays[key].shape}, expected {into.shape}")
            into[...] = arrays[key]


def within(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Return the arrays whose names begin with ``prefix.``, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays with ``prefix.`` before their names."""
    return {f"{prefix}.{key}": value for key, value in arrays.items()}


def module_arrays(module: Any) -> Arrays:
    """Return copies of a torch module's parameters and buffers, by name."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def restore_module(module: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over what `module_arrays` returned.

    Raises:
        ValueError: names or shapes are others.
    """
    import torch

    try:
        module.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in arrays.items()})
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def optimizer_arrays(optimizer: Any) -> Arrays:
    """Return the learning rate of each group, and steps and moments of each parameter."""
    known = optimizer.state_dict()
    found: Arrays = {"rates": np.array([group["lr"] for group in known["param_groups"]])}
    for number, parts in known["state"].items():
        for key, value in parts.items():
            found[f"{number}.{key}"] = value.detach().cpu().numpy().copy()
    return found


def restore_optimizer(optimizer: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over what `optimizer_arrays` returned for the same parameters."""
    import torch

    known = optimizer.state_dict()
    for group, rate in zip(known["param_groups"], arrays["rates"], strict=True):
        group["lr"] = float(rate)
    state: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        number, _, key = name.partition(".")
        if key:
            state.setdefault(int(number), {})[key] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({"state": state, "param_groups": known["param_groups"]})
