"""The contract checks that every score router of the registry must pass.

Each ``check_*`` takes a registry name and raises AssertionError. The checks depend on attributes of
a router, never on its name: with ``forced_exploration`` it need not choose the best LLM, with
``needs_embeddings`` it must learn the planted rule, and ``row_count_parameters`` are scaled. The
checks of epochs apply to subclasses of `EpochRouter`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from waypost.testing import deciding_checks, epoch_checks, fitting_checks


def all_checks() -> tuple[Callable[[str], None], ...]:
    """Return all checks, in the order of their files."""
    return tuple(
        value
        for module in (fitting_checks, epoch_checks, deciding_checks)
        for name, value in vars(module).items()
        if name.startswith("check_") and inspect.isfunction(value)
    )
