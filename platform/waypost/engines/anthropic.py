"""The `anthropic` engine: any endpoint that speaks Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from waypost.config import StrictModel
from waypost.contracts.errors import EngineError
from waypost.contracts.generation import GenerateRequest
from waypost.engines._anthropic_answer import MessageReader
from waypost.engines._anthropic_request import Config, messages_body
from waypost.engines._http_engine import HTTPEngine
from waypost.engines._openai_errors import upstream_error
from waypost.secrets import Secret

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of an error inside a stream -> the HTTP status that it has elsewhere."""


class AnthropicEngine(HTTPEngine):
    """Calls one model of one endpoint; see `HTTPEngine`."""

    name: ClassVar[str] = "anthropic"
    config_class: ClassVar[type[StrictModel]] = Config
    answer_field: ClassVar[str] = "content"
    config: Config

    @classmethod
    def ignored(cls, config: Config, request: GenerateRequest) -> tuple[str, ...]:
        """Return what the Messages API lacks, or refuses together with other fields."""
        return messages_body(request, config, stream=False)[1]

    def _reader(self, request: GenerateRequest) -> MessageReader:
        return MessageReader(request)

    def post(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See `Endpoint.post`."""
        body, _ = messages_body(request, self.config, stream=stream)
        return "/messages", body

    def key_headers(self, key: Secret | None) -> dict[str, str]:
        """See `Endpoint.key_headers`."""
        version = {"anthropic-version": self.config.version}
        return {**version, "x-api-key": key.reveal()} if key else version

    def error(
        self,
        status: int | None,
        error: object,
        request: GenerateRequest,
        retry_after_s: float | None = None,
    ) -> EngineError:
        """See `Endpoint.error`."""
        kind = error.get("type") if isinstance(error, Mapping) else None
        told = _STATUS.get(str(kind), 500) if status is None else status
        own = self.config.refusals
        return upstream_error(self.where, told, error, request, retry_after_s, own)
