"""The Ray that tests share: it runs until one needs another, or their group (`ray_groups`) ends."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

T = TypeVar("T")

_running = ExitStack()
_yielded: dict[Hashable, object] = {}


def shared(kind: Hashable, started: AbstractContextManager[T]) -> T:
    """Return what a context manager yields; where one of the same kind runs, what that did.

    Args:
        kind: All in which one Ray differs from another: its CPUs, environment variables.
        started: Starts a Ray, and stops it at its end. It is not entered where one runs.
    """
    if kind not in _yielded:
        end()
        _yielded[kind] = _running.enter_context(started)
    return _yielded[kind]  # type: ignore[return-value]


def end() -> None:
    """Stop the Ray that runs, if one does."""
    _yielded.clear()
    _running.close()
