"""An event loop whose waits take no time: tests of time-outs that no slow or busy machine moves."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import wraps
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Skipping(selectors.DefaultSelector):
    """Advances ``now`` instead of waiting, unless threads work for the loop."""

    now = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; where nothing is, the time-out has passed at once."""
        waits = timeout is None or (timeout > 0 and self.threads > 0)
        found = super().select(None if waits else 0)
        if not found and timeout is not None:
            self.now += timeout
        return found


class SkippingLoop(asyncio.SelectorEventLoop):
    """Its clock stands while anything is ready to run, and then goes to the next timer.

    Nothing may be awaited beside a timer but coroutines and calls in threads: no socket, no
    process.
    """

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the seconds that were waited for, by no clock of the machine."""
        return self._skipping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call a function in a thread; no timer ends meanwhile."""
        called = super().run_in_executor(executor, func, *args)
        self._skipping.threads += 1
        called.add_done_callback(self._returned)
        return called

    def _returned(self, called: asyncio.Future[Any]) -> None:
        self._skipping.threads -= 1


def skips_waits(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an asynchronous test one that runs on a `SkippingLoop`."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
