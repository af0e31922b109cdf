"""Hedge a slow call by a second one: the first good result counts, the other call is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from waypost.contracts.errors import EngineError
from waypost.contracts.generation import Usage

ResultT = TypeVar("ResultT")

SAVED = 3.0
"""Most hedges that quiet times save up for a burst."""


@dataclass(frozen=True, slots=True)
class Hedged:
    """A hedged request.

    Attributes:
        models: The LLM asked first, and the one asked besides.
        winner: The LLM that answers; None where neither did.
        lost: Usage of the other one where its answer came at the same moment; None where its call
            was cancelled or failed, so that its cost is not known.
    """

    models: tuple[str, str]
    winner: str | None
    lost: Usage | None = None


class Budget:
    """Bounds hedges to a share of all requests.

    Args:
        share: The share.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 0.0

    def asked(self) -> None:
        """Count a request."""
        self._saved = min(self._saved + self._share, SAVED)

    def take(self) -> bool:
        """Return whether a request may be hedged now, and count it if so."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Raced(Generic[ResultT]):
    """The result of a race.

    Attributes:
        value: Result of the call that counts.
        winner: 0 for the first call, 1 for the second.
        hedged: Whether there was a second call.
        lost: Result of the other call, where it came at the same moment.
    """

    value: ResultT
    winner: int = 0
    hedged: bool = False
    lost: ResultT | None = None


async def race(
    first: Coroutine[Any, Any, ResultT],
    second: Callable[[], Coroutine[Any, Any, ResultT] | None],
    after_s: float,
    failed: Callable[[int, EngineError], None],
) -> Raced[ResultT]:
    """Return the first good result of a call and, where it takes long, of a second one.

    Args:
        first: The call.
        second: Returns the second call, or None where there is to be none.
        after_s: Seconds before the second call.
        failed: Called with the number of each call that failed after the second began.

    Raises:
        EngineError: there is no result; the latest failure.
    """
    tasks = [asyncio.create_task(first)]
    try:
        await asyncio.wait(tasks, timeout=after_s)
        other = None if tasks[0].done() else second()
        if other is None:
            return Raced(await tasks[0])
        tasks.append(asyncio.create_task(other))
        running = set(tasks)
        last: EngineError | None = None
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for number, task in enumerate(tasks):
                if task not in done:
                    continue
                error = task.exception()
                if error is None:
                    return Raced(task.result(), number, True, _result(tasks[1 - number]))
                if not isinstance(error, EngineError):
                    raise error
                failed(number, last := error)
        assert last is not None  # no call is left, and none gave a result
        raise last
    finally:
        for task in tasks:
            task.cancel()
            # not awaited: an engine that is slow to let go must not hold up the answer
            task.add_done_callback(_retrieve)


def _result(task: asyncio.Task[ResultT]) -> ResultT | None:
    return task.result() if task.done() and not task.cancelled() and not task.exception() else None


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
