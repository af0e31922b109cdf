"""Passes over an LLM that keeps failing, and tries it again now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from waypost.contracts.errors import (
    ContextLengthError,
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
    """What is known of an LLM that failed lately.

    Attributes:
        strikes: Failures since its last complete answer.
        rests: Rests since then; each is twice as long as the one before.
        since: When the latest rest began: failures of requests sent before it are no news.
        rest_until: When it ends.
        probe_until: Until when the others wait for the one request that tries it.
        begins: Whether it has begun an answer since the rest.
        asked: Whether the rest is one that the LLM asked for.
    """

    strikes: int = 0
    rests: int = 0
    since: float = float("-inf")
    rest_until: float = 0.0
    probe_until: float = 0.0
    begins: bool = False
    asked: bool = False

    def rest(self, now: float, until: float, *, asked: bool) -> None:
        self.since, self.rest_until, self.probe_until = now, until, 0.0
        self.begins, self.asked = False, asked


class Circuit:
    """Remembers which LLMs fail.

    An LLM that rests is tried last, not never: where nothing else answers, it may. After its
    rest one request tries it; the rest doubles each time that fails, up to `LONGEST_REST_S`. Of
    many requests that fail together only the first counts.

    Args:
        clock: Seconds that only grow; a test gives its own.

    Attributes:
        clock: The same; `failed` and the others want to know when a request was sent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._records: dict[str, _Record] = {}

    def order(self, ranking: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ranking with the resting LLMs last, each part in its own order.

        Where an LLM's rest is over and it comes first, the caller is the one that tries it.
        """
        if not self._records or len(ranking) < 2:
            return ranking
        now = self.clock()
        resting = tuple(name for name in ranking if self._rests(name, now))
        awake = tuple(name for name in ranking if name not in resting)
        self._probe(self._records.get(awake[0]) if awake else None, now)
        return awake + resting

    def _probe(self, record: _Record | None, now: float) -> None:
        if record is not None and record.rests and not record.begins:
            record.probe_until = now + PROBE_S

    def admits(self, name: str, others: Iterable[str]) -> bool:
        """Say whether to ask an LLM, where others may be asked in its place; the caller then does.

        One that rests is asked where all others rest, too.
        """
        now = self.clock()
        if self._rests(name, now):
            return all(self._rests(other, now) for other in others)
        self._probe(self._records.get(name), now)
        return True

    def resting(self) -> tuple[str, ...]:
        """Return the LLMs that rest now."""
        now = self.clock()
        return tuple(name for name in self._records if self._rests(name, now))

    def forget(self, name: str) -> None:
        """Forget an LLM: another one goes by its name now."""
        self._records.pop(name, None)

    def began(self, name: str, sent: float) -> None:
        """Note the first token of a stream: others may ask the LLM again, but it is not yet well.

        Args:
            name: Of the LLM.
            sent: When the request was sent to it.
        """
        record = self._records.get(name)
        if record is not None and not (record.asked and sent < record.since):
            record.rest_until = record.probe_until = 0.0
            record.begins = True

    def succeeded(self, name: str, sent: float | None = None) -> None:
        """Note a complete answer: the LLM is well.

        Args:
            name: Of the LLM.
            sent: When the request was sent to it; None is now. A rest that the LLM asked for is
                not ended by an answer to a request from before it.
        """
        record = self._records.get(name)
        if record is None or (sent is not None and record.asked and sent < record.since):
            return
        del self._records[name]

    def failed(self, name: str, error: EngineError, sent: float | None = None) -> None:
        """Note a failure; one that is the request's own fault says nothing of the LLM.

        Args:
            name: Of the LLM.
            error: What happened.
            sent: When the request was sent to it; None is now.
        """
        if _fault_of_the_request(error):
            return
        now = self.clock()
        record = self._records.setdefault(name, _Record())
        old = sent is not None and sent < record.since
        if isinstance(error, EngineOverloadedError) and error.retry_after_s:
            until = now + min(error.retry_after_s, LONGEST_REST_S)
            if until > record.rest_until:
                record.rests = max(1, record.rests)
                record.rest(now, until, asked=True)
            return
        if old or now < record.rest_until:
            return
        if isinstance(error, EngineOverloadedError) and error.status is None:
            return  # our own queue is full: places in it become free all the time
        record.strikes += 1
        lost = isinstance(error, EngineConnectionError)
        if lost or record.strikes >= STRIKES or record.rests:
            record.rest(now, now + _rest_s(record.rests), asked=False)
            record.rests += 1

    def _rests(self, name: str, now: float) -> bool:
        record = self._records.get(name)
        return record is not None and max(record.rest_until, record.probe_until) > now


def _rest_s(earlier: int) -> float:
    """Return the length of a rest after so many."""
    # the exponent is bounded, as the number of rests is not
    return min(FIRST_REST_S * 2.0 ** min(earlier, 10), LONGEST_REST_S)


def _fault_of_the_request(error: EngineError) -> bool:
    refused = isinstance(error, EngineRequestError) and not error.retryable
    return refused or isinstance(error, ContextLengthError)
