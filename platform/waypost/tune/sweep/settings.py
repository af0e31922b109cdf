"""What a proposal is: values of the searched parameters whose conditions hold."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from waypost.tune.space import Dimension, TuneConfig, Values, in_order

Setting = dict[str, Any]
"""Values by parameter; a searched parameter whose condition does not hold is not in it."""

Pick = Callable[[str, Dimension], Any]
"""Chooses a value of a parameter."""


class SearchSpace:
    """The searched parameters of a sweep, and what the others are.

    Args:
        config: The sweep.
        defaults: The router's parameters by default.
    """

    def __init__(self, config: TuneConfig, defaults: Mapping[str, Any]) -> None:
        self.space = {name: config.space[name] for name in in_order(config.space)}
        self.fixed = dict(config.fixed)
        self._base = {**defaults, **config.fixed}

    def build(self, pick: Pick) -> Setting:
        """Choose a value for each parameter whose condition holds."""
        found: Setting = {}
        for name, dimension in self.space.items():
            if self.holds(dimension, found):
                found[name] = pick(name, dimension)
        return found

    def holds(self, dimension: Dimension, setting: Mapping[str, Any]) -> bool:
        """Say whether a parameter is searched beside the values chosen so far."""
        values = self.full(setting)
        return all(
            any(same(values.get(other), one) for one in (w if isinstance(w, list) else [w]))
            for other, w in dimension.when.items()
        )

    def parameters(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the router is given; the rest it has by default."""
        return {**self.fixed, **setting}

    def full(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of the router that a setting makes."""
        return {**self._base, **setting}

    def unsearched(self, name: str) -> Any:
        """Return what a parameter is where it is not searched: fixed, or the router's default."""
        return self._base.get(name)

    def key(self, setting: Mapping[str, Any]) -> str:
        """Return the key of a setting: the same for two that make the same router."""
        text = json.dumps(self.full(setting), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def grid(self) -> Iterator[Setting]:
        """Yield every combination of the grid parameters, one after another."""
        names = [name for name, one in self.space.items() if one.type == "grid"]
        values = [self.space[name].extremes for name in names]
        for chosen in itertools.product(*values):
            yield dict(zip(names, chosen, strict=True))

    @property
    def is_grid(self) -> bool:
        """Whether nothing is drawn: every parameter is tried at each of its values."""
        return all(one.type == "grid" for one in self.space.values())

    def contains(self, setting: Mapping[str, Any]) -> bool:
        """Whether a setting could be proposed: each value inside, each condition kept."""
        try:
            built = self.build(lambda name, one: _inside(one, setting[name]))
        except (KeyError, ValueError):
            return False
        return built.keys() == setting.keys()


def _inside(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Values):
        if any(same(value, one) for one in dimension.values):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = dimension.extremes
        if low <= value <= high:
            return value
    raise ValueError


def same(a: Any, b: Any) -> bool:
    """Say whether two values are equal, where true is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)
