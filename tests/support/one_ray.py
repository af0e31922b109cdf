"""The Ray that tests share: it runs until one needs another, or their group (`ray_groups`) ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

T = TypeVar("T")

TRIES = 3
"""Ray gives a node up that takes more than 30 s to start, which it does on a busy machine."""

_running = ExitStack()
_yielded: dict[Hashable, object] = {}


def shared(kind: Hashable, started: Callable[[], AbstractContextManager[T]]) -> T:
    """Return what a context manager yields; where one of the same kind runs, what that did.

    Args:
        kind: All in which one Ray differs from another: its CPUs, environment variables.
        started: Makes one that starts a Ray, and stops it at its end.
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
    """Stop the Ray that runs, if one does."""
    _yielded.clear()
    _running.close()
