"""What engines that call endpoints share: settings, the events of a stream, JSON, token counts."""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeGuard
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import from_json

from waypost.config import StrictModel
from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, FinishReason
from waypost.engines.refusals import Refusal

_KEY_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}

MAX_EVENT_BYTES = 16 * 2**20
"""Longest event that is taken; an endless line must not fill the memory."""


CHARACTERS_PER_TOKEN = 4
"""For the usage of an upstream that tells none: what English text has on average."""

MOST_TOKENS = 2**40
"""An upstream that tells more is not believed."""


class HTTPConfig(StrictModel):
    """Settings of every engine that calls an endpoint."""

    base_url: str
    """Up to and with the version: ``https://api.openai.com/v1``."""

    model: str = Field(min_length=1)
    """The upstream's name of the model."""

    service: str | None = None
    """Whose keys are sent (``API_KEYS``); None sends none."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers; never a key."""

    stream: bool = True
    """False for an upstream that cannot stream: every answer is asked for whole, and a client's
    stream is one chunk."""

    whole: bool = True
    """False for an upstream that only streams (some reasoning models): answers that a client wants
    whole are streams, too. Otherwise they are asked for whole."""

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

    refusals: tuple[Refusal, ...] = ()
    """What refusals of this upstream are about, where Waypost does not know it; these lines come
    before its own table."""

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


class Reader(Protocol):
    """Collects what an upstream says into chunks.

    Attributes:
        finish_reason: None until the upstream says that the answer ended.
        answered: True once the upstream sent an answer, though perhaps an empty one.
        ended: True once the upstream said that nothing follows.
    """

    finish_reason: FinishReason | None
    answered: bool
    ended: bool

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""

    def read(self, data: dict[str, Any]) -> bool:
        """Take one event of a stream, or a whole answer; say whether it shows that the LLM works.

        `take` gives what it adds. The wait for the next event begins anew only after an event
        that shows it.
        """

    def take(self) -> Chunk | None:
        """Return what was added since the last time, if anything."""

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk; `reason` replaces the upstream's."""


class EventParser:
    """Turns the bytes of a stream, cut anywhere, into the data of its events.

    Lines end in LF or CRLF. Comments and the fields event, id and retry are skipped; the data
    lines of one event are joined by newlines; an event without data is none.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # a line whose end has not come yet
        self._data: list[bytes] = []

    def feed(self, part: bytes) -> list[bytes]:
        """Take the next bytes; return the data of the events they complete.

        Raises:
            EngineServerError: where an event is longer than `MAX_EVENT_BYTES`.
        """
        events: list[bytes] = []
        *ended, rest = part.split(b"\n")
        for line in ended:
            if self._line:
                line, self._line = bytes(self._line) + line, bytearray()
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        self._line += rest
        if len(self._line) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EngineServerError(f"an event of the stream exceeds {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[bytes]:
        """Return the data of a last event whose empty line never came."""
        return self.feed(b"\n\n")


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        EngineServerError: where it is none; the message does not repeat it.
    """
    try:
        data = from_json(text)  # a third of json's time, which counts for the events of a stream
    except ValueError:
        data = _read_leniently(text)
    if not isinstance(data, dict):
        raise EngineServerError(f"{where}: expected a JSON object, found something else")
    return data


def estimated_tokens(characters: int) -> int:
    """Return the tokens of a text of so many characters, for an upstream that counts none."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def is_count(value: object) -> TypeGuard[int]:
    """Say whether it is a number of tokens; what is not would spoil sums and metrics."""
    return type(value) is int and 0 <= value <= MOST_TOKENS


def _read_leniently(text: bytes) -> Any:
    # half of a surrogate pair: an upstream may cut a character in two between two events
    try:
        return json.loads(text.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
