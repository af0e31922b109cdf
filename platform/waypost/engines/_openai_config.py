"""Settings of the `openai` engine."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from waypost.config import StrictModel

_KEY_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}


class Config(StrictModel):
    """Settings of the `openai` engine."""

    base_url: str
    """Up to and with the version: ``https://api.openai.com/v1``."""

    model: str = Field(min_length=1)
    """The upstream's name of the model."""

    service: str | None = None
    """Whose keys are sent (``API_KEYS``); None sends none."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers; never a key."""

    stream: bool = True
    """False asks the upstream for whole answers, which come as one chunk."""

    include_usage: bool = True
    """Ask for the token counts of a stream. False for an upstream that refuses the question;
    counts are then estimated as a quarter of the characters."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the upstream calls the limit."""

    connect_timeout_s: float = Field(default=5.0, gt=0)
    """To open a connection."""

    first_token_timeout_s: float = Field(default=60.0, gt=0)
    """From sending the request to the first event of a stream, or the first bytes of a whole
    answer."""

    token_timeout_s: float = Field(default=30.0, gt=0)
    """Between two events of a stream, and for the body of a refusal. Bytes that complete no event,
    and comments, do not count: an upstream may drip them for ever."""

    total_timeout_s: float = Field(default=600.0, gt=0)
    """The whole call, tries included; a request's ``timeout_s`` may shorten it."""

    max_connections: int = Field(default=256, ge=1)
    """Sockets open at once; further requests wait for one."""

    keepalive_s: float = Field(default=30.0, gt=0)
    """How long an idle socket is kept."""

    max_retries: int = Field(default=2, ge=0)
    """Further tries after a connection loss, 408, 429 or 5xx, before the first token only."""

    retry_base_s: float = Field(default=0.5, ge=0)
    """Longest wait before the first further try; it doubles with each."""

    retry_max_s: float = Field(default=8.0, ge=0)
    """Longest wait; an upstream that asks for more (Retry-After) is not tried again."""

    @field_validator("base_url")
    @classmethod
    def _is_plain_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected a URL such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("a URL holds no key: put it into API_KEYS and name its service")
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _holds_no_key(cls, value: dict[str, str]) -> dict[str, str]:
        if found := sorted(name for name in value if name.lower() in _KEY_HEADERS):
            raise ValueError(
                f"{', '.join(found)}: a key goes into API_KEYS, and its service into `service`"
            )
        return value
