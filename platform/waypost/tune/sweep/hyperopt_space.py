"""A search space as hyperopt has it: a graph in which conditions are switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from waypost.tune.space import Dimension, Range
from waypost.tune.sweep.settings import SearchSpace, Setting, same


@dataclass(frozen=True, eq=False)
class Tree:
    """The graph, and the way between hyperopt's values and settings.

    Attributes:
        expression: What hyperopt draws from.
        space: The search space.
        listed: Values of the parameters that hyperopt knows by their place in a list.
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
            return float(np.clip(found, dimension.low, dimension.high))

        return self.space.build(value)

    def values(self, setting: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the ``vals`` of a setting; of a parameter that is not in it there are none."""

        def place(name: str) -> Any:
            if name not in self.listed:
                return setting[name]
            return next(i for i, one in enumerate(self.listed[name]) if same(one, setting[name]))

        return {name: [place(name)] if name in setting else [] for name in self.space.space}


def nested(space: SearchSpace) -> Tree:
    """Build the graph; a whole number that conditions name counts as a choice of its values."""
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
    if one.type == "randint":
        return hp.randint(name, int(one.low), int(one.high))
    if one.type == "loguniform":
        return hp.loguniform(name, np.log(one.low), np.log(one.high))
    if one.q is not None:
        return hp.quniform(name, one.low, one.high, one.q)
    return hp.uniform(name, one.low, one.high)


class _Switch:
    """Conditions as switches on the parameters that they name."""

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
            return no  # a drawn number is never exactly that value
        chosen = scope.switch(self._nodes[other], *map(side, self._listed[other]))
        return self.where(self._space.space[other].when, chosen, by_default)
