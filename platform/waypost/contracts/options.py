"""Options of a query: keys of a mapping that change its decision."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from waypost.contracts.wording import did_you_mean

OPTIONS = ("lambda", "allowed_models", "max_cost_usd")

_NO_TYPOS = frozenset({*OPTIONS, "cost_usd"})


def misspelt_option(query: Mapping[str, Any]) -> str | None:
    """Return a message about a key that is nearly an option; None where there is none.

    Other unknown keys are columns of data, which routing does not use.
    """
    for key in query:
        if key not in _NO_TYPOS and (near := _near(key)):
            return f"unknown key {key!r}{near}"
    return None


@lru_cache(maxsize=256)
def _near(key: Any) -> str:
    return did_you_mean(key, OPTIONS)
