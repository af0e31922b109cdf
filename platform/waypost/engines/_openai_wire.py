"""Settings of the `openai` engine, and OpenAI's messages: requests to bodies, events to chunks."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeGuard
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import from_json

from waypost.config import StrictModel
from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines.calls import StopFilter, content_text, prompt_text

_KEY_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}

MAX_EVENT_BYTES = 16 * 2**20
"""Longest event that is taken; an endless line must not fill the memory."""


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


class EventParser:
    """Turns the bytes of a stream, cut anywhere, into the data of its events.

    Lines end in LF or CRLF. Comments and the fields event, id and retry are skipped; the data
    lines of one event are joined by newlines; an event without data is none.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # a line whose end has not come yet
        self._data: list[bytes] = []

    def feed(self, part: bytes) -> list[str]:
        """Take the next bytes; return the data of the events they complete.

        Raises:
            EngineServerError: where an event is longer than `MAX_EVENT_BYTES`.
        """
        events: list[str] = []
        *ended, rest = part.split(b"\n")
        for line in ended:
            if self._line:
                line, self._line = bytes(self._line) + line, bytearray()
            self._take(line.removesuffix(b"\r"), events)
        self._line += rest
        if len(self._line) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EngineServerError(f"an event of the stream exceeds {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[str]:
        """Return the data of a last event whose empty line never came."""
        events: list[str] = []
        self._take(bytes(self._line).removesuffix(b"\r"), events)
        self._line.clear()
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", errors="replace"))
                self._data = []
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))


CHARACTERS_PER_TOKEN = 4
"""For the usage of an upstream that tells none: what English text has on average."""

MOST_TOKENS = 2**40
"""An upstream that tells more is not believed."""

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""An upstream's word -> ours; any other is ``stop``: the answer did end."""


def request_path(request: GenerateRequest) -> str:
    """Return the path below the base URL."""
    return "/completions" if request.messages is None else "/chat/completions"


def request_body(
    request: GenerateRequest, model: str, *, stream: bool, max_tokens_field: str, usage: bool
) -> dict[str, Any]:
    """Return the JSON body. `request.extra` cannot replace a field that the request has.

    Args:
        request: What to ask.
        model: The upstream's name of the model.
        stream: Whether the answer is to be a stream.
        max_tokens_field: ``max_tokens`` or ``max_completion_tokens``.
        usage: Whether to ask for the usage at the end of a stream.
    """
    fields = {
        "model": model,
        "messages": request.messages,
        "prompt": request.prompt,
        max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream and usage else None,
    }
    own = {key: value for key, value in fields.items() if value is not None}
    return {**request.extra, **own}


class AnswerReader:
    """Collects what an upstream says into chunks.

    Attributes:
        finish_reason: None until the upstream says that the answer ended.
        usage: None until the upstream tells it.
        answered: True once the upstream sent a choice, though perhaps an empty one.
        stopped: True once a stop string was found that the upstream let through.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.answered = False
        self._request = request
        self._stops = StopFilter(request.stop)
        self._characters = 0
        self._texts: list[str] = []  # not yet taken, as are the calls
        self._calls: list[dict[str, Any]] = []

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""
        return self._stops.stopped

    def read(self, data: dict[str, Any]) -> None:
        """Take one event of a stream, or a whole answer; `take` gives what it adds."""
        self._read_usage(data.get("usage"))
        choice = _first(data.get("choices"))
        self.answered = self.answered or bool(choice)
        message = choice.get("delta") or choice.get("message") or {}
        text = content_text(message.get("content") or choice.get("text"))
        self._characters += len(text)
        self._texts.append(self._stops.push(text))
        if calls := message.get("tool_calls"):
            self._calls.extend(_tool_calls(calls))
        if self.finish_reason is None and (word := choice.get("finish_reason")):
            self.finish_reason = _FINISH.get(word, "stop")

    def take(self) -> Chunk | None:
        """Return what was added since the last time, if anything."""
        text, calls = "".join(self._texts), tuple(self._calls)
        self._texts.clear()
        self._calls.clear()
        return Chunk(text=text, tool_calls=calls) if text or calls else None

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""
        held = self._stops.flush()
        return Chunk(text=held) if held else None

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk. A usage that was not told is estimated from the characters."""
        usage = self.usage or Usage(
            _tokens(len(prompt_text(self._request))), _tokens(self._characters)
        )
        return Chunk(finish_reason=reason or self.finish_reason or "stop", usage=usage)

    def _read_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
            if _is_count(prompt) and _is_count(answer):
                self.usage = Usage(prompt, answer)


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
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


def _tool_calls(given: object) -> list[dict[str, Any]]:
    """Read the calls of a message or a delta: those who join deltas rely on their types.

    Raises:
        EngineServerError: where one is not what OpenAI's API says.
    """
    calls: list[dict[str, Any]] = []
    for place, call in enumerate(given if isinstance(given, list) else [given]):
        function = call.get("function") or {} if isinstance(call, dict) else None
        if not isinstance(function, dict) or type(call.get("index", place)) is not int:
            raise EngineServerError("a tool call of the answer is malformed")
        if isinstance(function.get("arguments"), dict):  # some servers send the object itself
            function = {**function, "arguments": json.dumps(function["arguments"])}
        texts = [call.get("id"), call.get("type"), *function.values()]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise EngineServerError("a tool call of the answer is malformed")
        calls.append({"index": place, **call} | ({"function": function} if function else {}))
    return calls


def _read_leniently(text: str | bytes) -> Any:
    # half of a surrogate pair: an upstream may cut a character in two between two events
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _first(choices: Any) -> dict[str, Any]:
    """Return the choice of index 0; one request asks for one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _is_count(value: object) -> TypeGuard[int]:
    """Say whether it is a number of tokens; what is not would spoil sums and metrics."""
    return type(value) is int and 0 <= value <= MOST_TOKENS
