"""How far long work is, told from deep inside it to whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Watcher: TypeAlias = "Callable[[str, int, int], None]"
"""Told what is done, how much of it, and of how much."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def report(what: str, done: int, total: int) -> None:
    """Tell the watcher, where there is one, that ``done`` of ``total`` steps are done."""
    if (watcher := _watcher.get()) is not None:
        watcher(what, done, total)


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Have `report` call this in the meantime; None is nobody."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
