"""Circuit breaker: skip an LLM that keeps failing, and probe it again after a growing time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from waypost.contracts.errors import (
    REFUSED_REQUEST,
    ContentFilterError,
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
)

FIRST_REST_S = 2.0
LONGEST_REST_S = 30.0
STRIKES = 3
"""Consecutive failures that open the circuit of an LLM; a single lost connection opens it, too."""

PROBE_S = 10.0
"""Longest time for which other requests skip an LLM while one request probes it."""


@dataclass
class _Record:
    """Recent failures of an LLM. A rest is a time for which its circuit is open.

    Attributes:
        strikes: Failures since its last complete answer.
        rests: Rests since its last complete answer; each is twice as long as the one before.
        since: Start of the latest rest; failures of requests sent before it are ignored.
        rest_until: End of the latest rest.
        probe_until: Until when other requests skip the LLM while one request probes it.
        begins: Whether it has begun an answer since the rest.
        asked: Whether the LLM itself asked for the rest (retry-after).
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
    """Circuit breakers of all LLMs.

    An LLM with an open circuit rests: it is tried after all others. After the rest one request
    probes it. The rest doubles at each failed probe, up to `LONGEST_REST_S`. Of requests that fail
    together only the first counts.

    Args:
        clock: Monotonic seconds; tests pass their own.

    Attributes:
        clock: The same clock; the times of sending that `failed` and others take are read from it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._records: dict[str, _Record] = {}

    def order(self, ranking: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ranking with the resting LLMs last, each part in its own order.

        Where the rest of the first LLM is over, the caller's request is its probe.
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
        """Return whether to ask an LLM, given others that may be asked instead.

        A resting LLM is asked only where all others rest, too. If True, the caller must ask it.
        """
        now = self.clock()
        if self._rests(name, now):
            return all(self._rests(other, now) for other in others)
        self._probe(self._records.get(name), now)
        return True

    def resting(self) -> tuple[str, ...]:
        """Return the LLMs with an open circuit."""
        now = self.clock()
        return tuple(name for name in self._records if self._rests(name, now))

    def forget(self, name: str) -> None:
        """Delete the record of an LLM, because another LLM has its name now."""
        self._records.pop(name, None)

    def began(self, name: str, sent: float) -> None:
        """Record the first token of a stream: others may ask the LLM, but its failures are kept.

        Args:
            name: Name of the LLM.
            sent: Time at which the request was sent.
        """
        record = self._records.get(name)
        if record is not None and not (record.asked and sent < record.since):
            record.rest_until = record.probe_until = 0.0
            record.begins = True

    def succeeded(self, name: str, sent: float | None = None) -> None:
        """Record a complete answer, which closes the circuit.

        Args:
            name: Name of the LLM.
            sent: Time at which the request was sent; None is now. An answer to a request from
                before a rest that the LLM asked for does not end that rest.
        """
        record = self._records.get(name)
        if record is None or (sent is not None and record.asked and sent < record.since):
            return
        del self._records[name]

    def failed(self, name: str, error: EngineError, sent: float | None = None) -> None:
        """Record a failure. One that the request itself caused is ignored.

        Args:
            name: Name of the LLM.
            error: The failure.
            sent: Time at which the request was sent; None is now.
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
            return  # our own queue is full, which passes by itself
        record.strikes += 1
        lost = isinstance(error, EngineConnectionError)
        if lost or record.strikes >= STRIKES or record.rests:
            record.rest(now, now + _rest_s(record.rests), asked=False)
            record.rests += 1

    def _rests(self, name: str, now: float) -> bool:
        record = self._records.get(name)
        return record is not None and max(record.rest_until, record.probe_until) > now


def _rest_s(earlier: int) -> float:
    """Return the length of a rest after ``earlier`` ones."""
    # the number of rests has no bound, so the exponent needs one
    return min(FIRST_REST_S * 2.0 ** min(earlier, 10), LONGEST_REST_S)


def _fault_of_the_request(error: EngineError) -> bool:
    if isinstance(error, ContextLengthError | ContentFilterError):
        return True
    # what one LLM lacks for this request, it does not lack for others
    about = error.status in REFUSED_REQUEST and not isinstance(error, EngineAuthError)
    return isinstance(error, EngineRequestError) and (about or not error.retryable)
