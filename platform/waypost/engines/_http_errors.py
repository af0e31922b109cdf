"""What engines that call endpoints share: what may be quoted, and when to try again."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

from waypost.contracts.errors import (
    EngineAuthError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
    EngineTimeoutError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._http_wire import HTTPConfig
from waypost.engines.calls import prompt_text
from waypost.secrets import KeyRing, Secret, redact

NO_MONEY = "insufficient_quota"
"""OpenAI's code of a 429 that no waiting helps."""

OVERLOADED = 529
"""Anthropic's status where its service, for all customers, has too much to do."""

_LONGEST = 300
"""Characters of an upstream's message that ours quotes."""

_WINDOW = 16
"""Characters in a row that make a message a quotation of the user; a text of fewer, whole."""

_SHORTEST = 4
"""User texts of fewer characters occur in any message by chance."""


def quotable(said: object, request: GenerateRequest) -> str:
    """Return what of an upstream's message may be shown, at most 300 characters.

    Upstreams repeat the key, or the input, that they refuse. The key is cut out; a message that
    shares a run of characters with the user's text is left out altogether, as is what is no text.
    """
    if not isinstance(said, str):
        return ""
    said = redact(" ".join(said.split()))[:_LONGEST]
    theirs = " ".join(prompt_text(request).split())
    size = min(_WINDOW, len(theirs))
    if size < _SHORTEST:
        return said
    windows = (said[at : at + size] for at in range(len(said) - size + 1))
    return "" if any(window in theirs for window in windows) else said


def retry_after_s(header: str | None, now: float | None = None) -> float | None:
    """Read a Retry-After header.

    Args:
        header: Seconds (a fraction is accepted) or an HTTP date.
        now: Seconds since the epoch, for the date; default the clock.

    Returns seconds from now, never negative, or None where the header is absent or nonsense.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp()
        except (ValueError, TypeError):
            return None
        seconds -= time.time() if now is None else now
    return max(0.0, seconds) if seconds < float("inf") else None


def backoff_s(attempt: int, base_s: float, max_s: float) -> float:
    """Draw a wait before try `attempt` + 1 (the first is 0): full jitter.

    Uniform between 0 and ``base_s * 2 ** attempt``, at most `max_s`: clients that failed
    together do not come back together (AWS Architecture Blog, 2015).
    """
    return random.uniform(0.0, min(max_s, base_s * 2.0**attempt))  # noqa: S311 - no secret


class Retries:
    """How often, with which key and after what wait one request is tried."""

    def __init__(self, config: HTTPConfig, ring: KeyRing) -> None:
        self._config = config
        self._ring = ring
        self._tries = 0
        self._other_keys = ring.count(config.service) - 1 if config.service else 0

    def key(self) -> Secret | None:
        """Return the key of the next try."""
        return self._ring.take(self._config.service) if self._config.service else None

    def wait(self, error: EngineError, key: Secret | None) -> float | None:
        """Return the seconds to wait before another try, or None to give up."""
        if key is not None and self._rests(error, key):
            self._other_keys -= 1
            return 0.0
        # A time-out of our own is not tried again: the wait is what the caller would double.
        ours = isinstance(error, EngineTimeoutError) and error.status is None
        final = isinstance(error, EngineRequestError) or NO_MONEY in str(error)
        if not error.retryable or ours or final or self._tries >= self._config.max_retries:
            return None
        wait = backoff_s(self._tries, self._config.retry_base_s, self._config.retry_max_s)
        self._tries += 1
        asked = error.retry_after_s or 0.0
        return max(wait, asked) if asked <= self._config.retry_max_s else None

    def _rests(self, error: EngineError, key: Secret) -> bool:
        """Set a refused or limited key aside; return whether another one can be tried at once."""
        if isinstance(error, EngineAuthError):
            self._ring.refused(key)
        elif isinstance(error, EngineOverloadedError) and error.status != OVERLOADED:
            self._ring.limited(key, error.retry_after_s)
        else:
            return False
        service = self._config.service or ""
        return self._other_keys > 0 and self._ring.ready(service) > 0
