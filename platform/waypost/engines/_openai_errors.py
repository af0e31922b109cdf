"""What an upstream's failure means, and when to try again."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from waypost.contracts.errors import (
    ContextLengthError,
    EngineAuthError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._openai_wire import Config
from waypost.engines.calls import prompt_text
from waypost.secrets import KeyRing, Secret, redact

NO_MONEY = "insufficient_quota"
"""OpenAI's code of a 429 that no waiting helps."""

_TOO_LONG = re.compile(r"context.{0,20}(length|window)|maximum.{0,20}(length|tokens)", re.I | re.S)
_FAULTS_OF_THE_REQUEST = frozenset({400, 415, 422})

_LONGEST = 300
"""Characters of an upstream's message that ours quotes."""

_WINDOW = 16
"""Characters in a row that make a message a quotation of the user; a text of fewer, whole."""

_SHORTEST = 4
"""User texts of fewer characters occur in any message by chance."""


def upstream_error(
    where: str,
    status: int,
    error: object,
    request: GenerateRequest,
    retry_after_s: float | None = None,
) -> EngineError:
    """Return the engine error of an upstream's refusal.

    Its message holds the upstream's own words, without any key, and only where they do not
    repeat what the user wrote.

    Args:
        where: Model and host, for the message.
        status: HTTP status, or that which an error inside a stream names.
        error: The body's ``error``: an object with message, code, type, or a text.
        request: What was asked.
        retry_after_s: What the upstream asked to wait.
    """
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    code = facts.get("code") or facts.get("type")
    said = facts.get("message")
    said = said if isinstance(said, str) else ""
    shown = _quotable(said, request)
    message = f"{where}: HTTP {status}" + (f": {shown}" if shown else "")
    if status in {401, 403}:
        # another key, or another model, may still answer
        return EngineAuthError(f"{message}; check the service's key", status=status, retryable=True)
    if status in {408, 504}:
        return EngineTimeoutError(message, status=status)
    if status == 429:
        return EngineOverloadedError(
            f"{message} ({NO_MONEY})" if code == NO_MONEY else message,
            status=status,
            retry_after_s=retry_after_s,
        )
    if status >= 500:
        return EngineServerError(message, status=status, retry_after_s=retry_after_s)
    if code == "context_length_exceeded" or (status in {400, 413, 422} and _TOO_LONG.search(said)):
        return ContextLengthError(message, status=status)
    # any other (no such model, no money, moved, not allowed) is this upstream's; the next of a
    # ranking may answer
    retryable = status not in _FAULTS_OF_THE_REQUEST
    return EngineRequestError(message, status=status, retryable=retryable)


def stream_status(error: object) -> int:
    """Return the status an error object inside a stream stands for; 500 where it says none."""
    facts = error if isinstance(error, Mapping) else {}
    for key in ("status", "status_code", "code"):
        value = facts.get(key)
        if str(value).isdecimal() and 400 <= int(str(value)) < 600:
            return int(str(value))
    kind = f"{facts.get('type')} {facts.get('code')}"
    if "rate_limit" in kind or NO_MONEY in kind:
        return 429
    return 400 if "invalid_request" in kind or "context_length" in kind else 500


def _quotable(said: str, request: GenerateRequest) -> str:
    # Upstreams repeat the key, or the input, that they refuse. The key is cut out; a message
    # that shares a run of characters with the user's text is left out altogether.
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

    def __init__(self, config: Config, ring: KeyRing) -> None:
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
        elif isinstance(error, EngineOverloadedError):
            self._ring.limited(key, error.retry_after_s)
        else:
            return False
        service = self._config.service or ""
        return self._other_keys > 0 and self._ring.ready(service) > 0
