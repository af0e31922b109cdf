"""Each router beside the one with the highest quality, not beside the best single LLM alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from waypost.contracts.types import Floats
from waypost.metrics.intervals import interval

KEYS = ("delta_top", "delta_top_low", "delta_top_high")


def add_versus(routers: Mapping[str, dict[str, Any]], drawn: Mapping[str, Floats]) -> str | None:
    """Add `KEYS` to each router's numbers: its quality minus the highest, with its interval.

    Draws are of the same queries for all, so differences are paired. The highest was found on the
    evaluated split, so that a router whose interval holds 0 may well be the better one.

    Args:
        routers: Numbers with ``quality``, by name.
        drawn: Bootstrap draws of each one's quality.

    Returns:
        The name of the highest; None without routers.
    """
    known = {name: row["quality"] for name, row in routers.items() if not np.isnan(row["quality"])}
    top = max(known, key=lambda name: known[name], default=None)
    for name, row in routers.items():
        delta, ends = np.nan, (np.nan, np.nan)
        if top is not None and name in known:
            delta = row["quality"] - known[top]
            ends = interval(drawn[name] - drawn[top])
        row.update(zip(KEYS, (delta, *ends), strict=True))
    return top
