"""Decisions of other people's code, checked before anything relies on them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from waypost.contracts.errors import PluginError, names
from waypost.contracts.records import Decision


def check_decisions(made: Any, count: int, known: Sequence[str], who: str) -> list[Decision]:
    """Return what a router answered to ``count`` queries, if it is what was agreed.

    Args:
        made: What it answered.
        count: Queries it was asked.
        known: Names of the LLMs there are.
        who: The router, for messages.

    Raises:
        PluginError: it is not a list of ``count`` sound decisions; naming the first that is not.
    """
    if not isinstance(made, list | tuple) or len(made) != count:
        found = f"{len(made)} of them" if isinstance(made, list | tuple) else _kind(made)
        raise PluginError(f"{who}: route_batch: expected a list of {count} Decision; got {found}")
    for decision in made:
        if problem := _problem(decision, known):
            raise PluginError(f"{who}: {problem}")
    return list(made)


def _problem(decision: Any, known: Sequence[str]) -> str | None:
    if not isinstance(decision, Decision):
        return f"expected a Decision (from waypost import Decision); got {_kind(decision)}"
    if decision.model not in known:
        return f"chose {_named(decision.model)}; the models are {names(list(known))}"
    if not _is_names(decision.ranking):
        return f"ranking: expected the names of models; got {_kind(decision.ranking)}"
    if unknown := [name for name in decision.ranking if name not in known]:
        there_are = names(list(known))
        return f"ranking: no model is named {_named(unknown[0])}; the models are {there_are}"
    for field, allowed, expected in _NUMBERS:
        if not allowed(value := getattr(decision, field)):
            return f"{field}: expected {expected}; got {_shown(value)}"
    for field, allowed, expected in _BY_MODEL:
        values = getattr(decision, field)
        if not isinstance(values, Mapping):
            return f"{field}: expected a mapping from model to {expected}; got {_kind(values)}"
        if wrong := [value for value in values.values() if not allowed(value)]:
            return f"{field}: expected {expected} for each model; got {_shown(wrong[0])}"
    return None


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _number(low: float, high: float, *, without_low: bool = False) -> Callable[[Any], bool]:
    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value <= high and not (without_low and value == low)

    return allows


def _or_none(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or allows(value)


_LARGEST = 1e300
_NUMBERS = (
    ("confidence", _or_none(_number(0, 1)), "a number from 0 to 1, or None"),
    ("lam", _number(0, math.inf), "a number of at least 0"),
    ("propensity", _number(0, 1, without_low=True), "a number above 0 and up to 1"),
    ("reason", lambda value: isinstance(value, str), "a text"),
)
_BY_MODEL = (
    ("quality", _number(-_LARGEST, _LARGEST), "a finite number"),
    ("cost_usd", _number(0, _LARGEST), "a finite number of at least 0"),
)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


# A text is shown only where it could be a name, any other may be the user's.
_NAME = re.compile(r"[\w./:@+-]{1,100}")


def _named(value: Any) -> str:
    looks_like_one = isinstance(value, str) and _NAME.fullmatch(value)
    return repr(value) if looks_like_one else _kind(value)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else _kind(value)
