"""What a failure of an upstream means, in OpenAI's words and in Anthropic's."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from waypost.engines._http_errors import NO_MONEY, OVERLOADED, quotable

_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|limit)|maximum.{0,20}(length|tokens)|prompt is too long",
    re.I | re.S,
)
_NO_CREDIT = re.compile(r"credit balance is too low", re.I)
"""Anthropic's words, with status 400 and no code of their own."""

_ADVICE = {
    402: "check the credit of the service's account",
    404: "check `model` and `base_url`",
    413: "the body is larger than this upstream takes",
}
"""Status of a refusal -> what to do."""

_FAULTS_OF_THE_REQUEST = frozenset({400, 415, 422})


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
    shown = quotable(said, request)
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
    if status == OVERLOADED or code == "overloaded_error":
        return EngineOverloadedError(message, status=status, retry_after_s=retry_after_s)
    if status >= 500:
        return EngineServerError(message, status=status, retry_after_s=retry_after_s)
    if code == "context_length_exceeded" or (status in {400, 413, 422} and _TOO_LONG.search(said)):
        return ContextLengthError(message, status=status)
    # any other (no such model, no money, moved, not allowed) is this upstream's; the next of a
    # ranking may answer
    retryable = status not in _FAULTS_OF_THE_REQUEST or bool(_NO_CREDIT.search(said))
    if advice := _ADVICE.get(402 if _NO_CREDIT.search(said) else status):
        message = f"{message}; {advice}"
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
