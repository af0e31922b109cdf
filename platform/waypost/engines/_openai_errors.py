"""What a failure of an upstream means, in OpenAI's words and in Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.contracts.errors import (
    REFUSED_REQUEST,
    ContentFilterError,
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
from waypost.engines.refusals import Refusal, refusal_about

_ADVICE = {
    402: "check the credit of the service's account",
    404: "check `model` and `base_url`",
    413: "the body is larger than this upstream takes",
}
"""Status of a refusal -> what to do."""

_OF_THE_REQUEST = REFUSED_REQUEST - {413}
"""Where nothing tells more; a longer body may be taken by another upstream."""


def upstream_error(
    where: str,
    status: int,
    error: object,
    request: GenerateRequest,
    retry_after_s: float | None = None,
    refusals: Sequence[Refusal] = (),
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
        refusals: Lines before those of `waypost.engines.refusals`.
    """
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    code = facts.get("code") or facts.get("type")
    said = facts.get("message")
    said = said if isinstance(said, str) else ""
    shown = quotable(said, request)
    message = f"{where}: HTTP {status}" + (f": {shown}" if shown else "")
    about = refusal_about(status, error, refusals)
    if about == "context":
        return ContextLengthError(message, status=status)
    if about == "content":
        return ContentFilterError(message, status=status)
    if status in {401, 403} or about == "key":
        # another key, or another model, may still answer
        return EngineAuthError(f"{message}; check the service's key", status=status, retryable=True)
    if about == "money":  # no fault of the request's, whatever the status says
        message = f"{message}; {_ADVICE[402]}"
        return EngineRequestError(message, status=402, retryable=True)
    if about in {"llm", "provider", "request"}:
        return EngineRequestError(message, status=status, retryable=about != "request")
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
    # any other (no such model, no money, moved, not allowed) is this upstream's; the next of a
    # ranking may answer
    if advice := _ADVICE.get(status):
        message = f"{message}; {advice}"
    return EngineRequestError(message, status=status, retryable=status not in _OF_THE_REQUEST)


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
    words = ("invalid_request", "context_length", "content_filter")
    return 400 if any(word in kind for word in words) else 500
