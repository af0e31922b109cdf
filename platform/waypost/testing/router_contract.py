"""The shared battery: what every score router of the registry must do.

Each ``check_*`` takes a registry name and raises AssertionError. They ask attributes, never
names: a router with ``forced_exploration`` is excused from always taking the best, one that
``needs_embeddings`` must learn the planted rule, ``row_count_parameters`` are scaled, and what is
asked of an `EpochRouter` is asked of those that are one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from waypost.testing import deciding_checks, epoch_checks, fitting_checks


def all_checks() -> tuple[Callable[[str], None], ...]:
    """Return every check, in the order of the files."""
    return tuple(
        value
        for module in (fitting_checks, epoch_checks, deciding_checks)
        for name, value in vars(module).items()
        if name.startswith("check_") and inspect.isfunction(value)
    )
