"""An event loop whose timers take no time, for tests of time-outs on a slow or busy machine."""

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
    """A selector that advances ``now`` instead of waiting, unless threads work for the loop."""

    now = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready keys; if there are none, advance ``now`` by the time-out at once."""
        waits = timeout is None or (timeout > 0 and self.threads > 0)
        found = super().select(None if waits else 0)
        if not found and timeout is not None:
            self.now += timeout
        return found


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as no callback is ready.

    Only coroutines and calls in threads may be awaited beside a timer, no sockets or processes.
    """

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the sum of the skipped waits in seconds, independent of the machine's clock."""
        return self._skipping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call a function in a thread; the clock stands still until it returns."""
        called = super().run_in_executor(executor, func, *args)
        self._skipping.threads += 1
        called.add_done_callback(self._returned)
        return called

    def _returned(self, called: asyncio.Future[Any]) -> None:
        self._skipping.threads -= 1


def skips_waits(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Decorate an asynchronous test to run on a `SkippingLoop`."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
