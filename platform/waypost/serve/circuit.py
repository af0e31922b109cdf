"""Passes over an LLM that keeps failing, and tries it again now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
)

FIRST_REST_S = 2.0
LONGEST_REST_S = 30.0
STRIKES = 3
"""Failures in a row after which an LLM rests; a lost connection is enough by itself."""

PROBE_S = 10.0
"""While one request tries an LLM again, the others pass over it for at most this long."""


@dataclass
class _Record:
    strikes: int = 0
    rests: int = 0
    rest_until: float = 0.0


class Circuit:
    """Remembers which LLMs fail.

    An LLM that rests is tried last, not never: where nothing else answers, it may. After its
    rest one request tries it; the rest doubles each time that fails, up to `LONGEST_REST_S`.

    Args:
        clock: Seconds that only grow; a test gives its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def order(self, ranking: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ranking with the resting LLMs last, each part in its own order.

        Where an LLM's rest is over and it comes first, the caller is the one that tries it.
        """
        if not self._records or len(ranking) < 2:
            return ranking
        now = self._clock()
        resting = tuple(name for name in ranking if self._rests(name, now))
        awake = tuple(name for name in ranking if name not in resting)
        first = self._records.get(awake[0]) if awake else None
        if first is not None and first.rests:
            first.rest_until = now + PROBE_S
        return awake + resting

    def resting(self) -> tuple[str, ...]:
        """Return the LLMs that rest now."""
        now = self._clock()
        return tuple(name for name in self._records if self._rests(name, now))

    def succeeded(self, name: str) -> None:
        """Note an answer: the LLM is well."""
        self._records.pop(name, None)

    def failed(self, name: str, error: EngineError) -> None:
        """Note a failure; one that is the request's own fault says nothing of the LLM."""
        if isinstance(error, EngineRequestError):
            return
        record = self._records.setdefault(name, _Record())
        now = self._clock()
        if isinstance(error, EngineOverloadedError):
            wait = min(error.retry_after_s or 0.0, LONGEST_REST_S)
            record.rest_until = max(record.rest_until, now + wait)
            return
        record.strikes += 1
        lost = isinstance(error, EngineConnectionError)
        if lost or record.strikes >= STRIKES or record.rests:
            rest = min(FIRST_REST_S * 2**record.rests, LONGEST_REST_S)
            record.rests += 1
            record.rest_until = now + rest

    def _rests(self, name: str, now: float) -> bool:
        record = self._records.get(name)
        return record is not None and record.rest_until > now
