"""Convert errors to HTTP: status, headers and OpenAI's error body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from waypost.contracts.errors import (
    REFUSED_REQUEST,
    BudgetError,
    ContentFilterError,
    ContextLengthError,
    EngineAuthError,
    EngineError,
    EngineLoadingError,
    EngineOverloadedError,
    EngineRequestError,
    EngineTimeoutError,
    WaypostError,
)
from waypost.secrets import redact
from waypost.serve.backends.failures import ExhaustedError, other_model_may_answer
from waypost.serve.backends.messages import RouterUnavailableError, StaleDecisionError

MAX_MESSAGE = 2_000
DEFAULT_WAIT_S = 1.0
LOADING_WAIT_S = 5
"""Retry-After of a response about an LLM that is loading."""


class TooBusyError(WaypostError):
    """The queue is full, or the wait in it timed out. `retry_after_s` is the advised delay."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoppingError(WaypostError):
    """The server stops: new requests are refused, and requests still in flight are ended."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; retry later")


class Problem(Exception):  # noqa: N818 - it is an answer, not a failure of ours
    """An HTTP error response.

    Attributes:
        status: HTTP status.
        headers: Further response headers.
        body: OpenAI's error body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "error": {
                "message": redact(message)[:MAX_MESSAGE],
                "type": _type(status),
                "param": None if param is None else redact(param),
                "code": code,
            }
        }


def _type(status: int) -> str:
    known = {401: "authentication_error", 429: "rate_limit_error"}
    return known.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def problem_of(error: WaypostError) -> Problem:
    """Return the error response for an error."""
    if isinstance(error, TooBusyError):
        return _busy(str(error), error.retry_after_s)
    if isinstance(error, ExhaustedError):
        return _exhausted(error)
    if isinstance(error, StaleDecisionError):
        return Problem(502, str(error), code="no_model_served")
    if isinstance(error, EngineError):
        return engine_problem(error)
    if isinstance(error, StoppingError):
        return Problem(503, str(error), code="server_stopping", headers={"retry-after": "1"})
    if isinstance(error, RouterUnavailableError):
        return Problem(503, str(error), code="router_unavailable", headers={"retry-after": "1"})
    if isinstance(error, BudgetError):
        return Problem(400, str(error), param="waypost.max_cost_usd", code="budget_too_low")
    # the rest are PolicyError and SchemaError: the request cannot be decided
    return Problem(400, str(error), param="waypost.allowed_models", code="no_model_allowed")


def engine_problem(error: EngineError) -> Problem:
    """Return the error response for the failure of one engine."""
    message = str(error)
    if isinstance(error, ContextLengthError):
        return Problem(400, message, param="messages", code="context_length_exceeded")
    if isinstance(error, ContentFilterError):
        return Problem(400, message, param="messages", code="content_filter")
    if isinstance(error, EngineRequestError) and error.status not in {401, 403}:
        return Problem(400, message, code="refused_by_model")
    if isinstance(error, EngineLoadingError):
        return _loading(message)
    if isinstance(error, EngineOverloadedError):
        return _busy(message, error.retry_after_s or DEFAULT_WAIT_S)
    if isinstance(error, EngineTimeoutError):
        return Problem(504, message, code="model_timeout")
    return Problem(502, message, code="model_failed")


def _exhausted(error: ExhaustedError) -> Problem:
    errors = [failure.error for failure in error.failures]
    last = errors[-1]
    if any(isinstance(each, EngineLoadingError) for each in errors):
        return _loading(str(error))
    if all(isinstance(each, EngineOverloadedError) for each in errors):
        waits = [each.retry_after_s or DEFAULT_WAIT_S for each in errors]
        return _busy(str(error), min(waits))
    if all(isinstance(each, ContextLengthError) for each in errors):
        return Problem(400, str(error), param="messages", code="context_length_exceeded")
    if all(isinstance(each, ContentFilterError) for each in errors):
        return Problem(400, str(error), param="messages", code="content_filter")
    if all(_refuses(each) for each in errors) or _is_the_requests(last):
        return Problem(400, str(error), code="refused_by_model")
    status, code = 502, "all_models_failed"
    if isinstance(last, EngineTimeoutError):
        status, code = 504, "model_timeout"
    return Problem(status, str(error), code=code)


def _is_the_requests(error: EngineError) -> bool:
    return isinstance(error, EngineRequestError) and not other_model_may_answer(error)


def _refuses(error: EngineError) -> bool:
    """Return whether an LLM refuses the request itself, for whatever it lacks."""
    if isinstance(error, EngineAuthError):
        return False
    refused = isinstance(error, ContextLengthError | ContentFilterError)
    known = isinstance(error, EngineRequestError) and error.status in REFUSED_REQUEST
    return refused or known


def _loading(message: str) -> Problem:
    wait = {"retry-after": str(LOADING_WAIT_S)}
    return Problem(503, message, code="model_loading", headers=wait)


def _busy(message: str, wait_s: float) -> Problem:
    wait = str(max(1, math.ceil(wait_s)))
    return Problem(429, message, code="overloaded", headers={"retry-after": wait})
