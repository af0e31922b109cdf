"""The search space: settings, their keys, and the space as a Hyperopt graph.

A setting holds the values of the searched parameters whose conditions hold.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from waypost.tune.config import Dimension, Range, TuneConfig, Values, in_order

Setting = dict[str, Any]
"""Values by parameter, without parameters whose condition does not hold."""

Pick = Callable[[str, Dimension], Any]
"""Chooses the value of a parameter."""


class SearchSpace:
    """The searched parameters of a sweep, and the values of all others.

    Args:
        config: The sweep.
        defaults: The router's default parameters.
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
        """Return whether the condition of a parameter holds for the values chosen so far."""
        values = self.full(setting)
        return all(
            any(same(values.get(other), one) for one in (w if isinstance(w, list) else [w]))
            for other, w in dimension.when.items()
        )

    def parameters(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters given to the router; the others keep their defaults."""
        return {**self.fixed, **setting}

    def full(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of the router for a setting."""
        return {**self._base, **setting}

    def unsearched(self, name: str) -> Any:
        """Return the value of a parameter that is not searched: fixed, or the router's default."""
        return self._base.get(name)

    def key(self, setting: Mapping[str, Any]) -> str:
        """Return the key of a setting; settings of equal routers have equal keys."""
        text = json.dumps(self.full(setting), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def grid(self) -> Iterator[Setting]:
        """Yield every combination of the grid parameters."""
        names = [name for name, one in self.space.items() if one.type == "grid"]
        values = [self.space[name].extremes for name in names]
        for chosen in itertools.product(*values):
            yield dict(zip(names, chosen, strict=True))

    @property
    def is_grid(self) -> bool:
        """Whether every parameter is a grid parameter."""
        return all(one.type == "grid" for one in self.space.values())

    def contains(self, setting: Mapping[str, Any]) -> bool:
        """Return whether a setting is in the space: all values inside, all conditions satisfied."""
        try:
            built = self.build(lambda name, one: _inside(one, setting[name]))
        except (KeyError, ValueError):
            return False
        return built.keys() == setting.keys()


def _inside(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Values):
        if any(same(value, one) for one in dimension.values):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool) and dimension.holds(value):
        return value
    raise ValueError


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal; true differs from 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@dataclass(frozen=True, eq=False)
class Tree:
    """A space as a Hyperopt graph, and the conversion between its values and settings.

    Attributes:
        expression: The Hyperopt expression.
        space: The search space.
        listed: Values of the parameters that Hyperopt stores as an index.
    """

    expression: Any
    space: SearchSpace
    listed: Mapping[str, tuple[Any, ...]]

    def setting(self, values: Mapping[str, list[Any]]) -> Setting:
        """Return the setting of a trial's ``vals``."""

        def value(name: str, dimension: Dimension) -> Any:
            (found,) = values[name]
            if name in self.listed:
                return self.listed[name][int(found)]
            if not isinstance(dimension, Range) or dimension.type == "randint":
                return int(found)
            return float(dimension.fit(found))

        return self.space.build(value)

    def values(self, setting: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the ``vals`` of a setting; the list of a missing parameter is empty."""

        def place(name: str) -> Any:
            if name not in self.listed:
                return setting[name]
            return next(i for i, one in enumerate(self.listed[name]) if same(one, setting[name]))

        return {name: [place(name)] if name in setting else [] for name in self.space.space}


def hyperopt_tree(space: SearchSpace) -> Tree:
    """Build the graph; an integer parameter that conditions name becomes a choice of its values."""
    from hyperopt import hp

    gates = {other for one in space.space.values() for other in one.when}
    listed: dict[str, tuple[Any, ...]] = {}
    for name, one in space.space.items():
        if not isinstance(one, Range):
            listed[name] = one.values
        elif one.type == "randint" and name in gates:
            listed[name] = tuple(range(int(one.low), int(one.high)))
    nodes = {
        name: hp.randint(name, len(listed[name])) if name in listed else _range(hp, name, one)
        for name, one in space.space.items()
    }
    switch = _Switch(space, nodes, listed)
    whole = {name: switch.where(one.when, nodes[name], None) for name, one in space.space.items()}
    return Tree(whole, space, listed)


def _range(hp: Any, name: str, one: Any) -> Any:
    low, high = one.extremes
    if one.type == "randint":
        return hp.randint(name, int(one.low), int(one.high))
    if one.type == "loguniform":
        return hp.loguniform(name, np.log(low), np.log(high))
    if one.q is not None:
        return hp.quniform(name, low, high, one.q)
    return hp.uniform(name, low, high)


class _Switch:
    """Conditions expressed as switches on the parameters that they name."""

    def __init__(
        self, space: SearchSpace, nodes: Mapping[str, Any], listed: Mapping[str, tuple[Any, ...]]
    ) -> None:
        self._space, self._nodes, self._listed = space, nodes, listed

    def where(self, when: Mapping[str, Any], yes: Any, no: Any) -> Any:
        """Return ``yes`` where the condition holds, else ``no``."""
        for other, wanted in when.items():
            yes = self._one(other, wanted if isinstance(wanted, list) else [wanted], yes, no)
        return yes

    def _one(self, other: str, wanted: list[Any], yes: Any, no: Any) -> Any:
        from hyperopt.pyll import scope

        def side(value: Any) -> Any:
            return yes if any(same(value, one) for one in wanted) else no

        by_default = side(self._space.unsearched(other))
        if other not in self._space.space:
            return by_default
        if other not in self._listed:
            return no  # a drawn float never equals that value exactly
        chosen = scope.switch(self._nodes[other], *map(side, self._listed[other]))
        return self.where(self._space.space[other].when, chosen, by_default)
