"""The `openai` engine: any endpoint that speaks OpenAI's HTTP API."""

from __future__ import annotations

from typing import Any, ClassVar

from waypost.config import StrictModel
from waypost.contracts.errors import EngineError
from waypost.contracts.generation import GenerateRequest
from waypost.engines._http_engine import HTTPEngine
from waypost.engines._openai_errors import stream_status, upstream_error
from waypost.engines._openai_wire import AnswerReader, Config, request_body, request_path
from waypost.secrets import Secret


class OpenAIEngine(HTTPEngine):
    """Calls one model of one endpoint; see `HTTPEngine`."""

    name: ClassVar[str] = "openai"
    config_class: ClassVar[type[StrictModel]] = Config
    answer_field: ClassVar[str] = "choices"
    config: Config

    def _reader(self, request: GenerateRequest) -> AnswerReader:
        return AnswerReader(request)

    def post(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See `Endpoint.post`."""
        body = request_body(
            request,
            self.config.model,
            stream=stream,
            max_tokens_field=self.config.max_tokens_field,
            usage=self.config.include_usage,
        )
        return request_path(request), body

    def key_headers(self, key: Secret | None) -> dict[str, str]:
        """See `Endpoint.key_headers`."""
        return {"Authorization": f"Bearer {key.reveal()}"} if key else {}

    def error(
        self,
        status: int | None,
        error: object,
        request: GenerateRequest,
        retry_after_s: float | None = None,
    ) -> EngineError:
        """See `Endpoint.error`."""
        told = stream_status(error) if status is None else status
        own = self.config.refusals
        return upstream_error(self.where, told, error, request, retry_after_s, own)
