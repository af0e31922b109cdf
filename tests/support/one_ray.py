"""The Ray that tests share until a test needs another one, or the `ray_groups` group ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

T = TypeVar("T")

TRIES = 3
"""Attempts to start Ray, which gives up after 30 s; a busy machine may need longer."""

_running = ExitStack()
_yielded: dict[Hashable, object] = {}


def shared(kind: Hashable, started: Callable[[], AbstractContextManager[T]]) -> T:
    """Return the value yielded by the running Ray of this kind; start one if there is none.

    Args:
        kind: Everything that distinguishes one Ray from another: CPUs, environment variables.
        started: Returns a context manager that starts a Ray and stops it at its end.
    """
    if kind not in _yielded:
        end()
        _yielded[kind] = _enter(started)
    return _yielded[kind]  # type: ignore[return-value]


def _enter(started: Callable[[], AbstractContextManager[T]]) -> T:
    for attempt in range(TRIES):
        try:
            return _running.enter_context(started())
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == TRIES - 1:
                raise
    raise AssertionError


def end() -> None:
    """Stop the running Ray, if there is one."""
    _yielded.clear()
    _running.close()
