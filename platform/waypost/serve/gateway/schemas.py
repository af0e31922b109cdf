"""Strict models of the request bodies: OpenAI's API without the fields this gateway cannot support.

Lists fail fast: of ten thousand wrong members only the first is reported. Reporting all would block
every other request for seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from waypost.contracts.session import MOST_TOP_K, RouteOn

MAX_STOPS = 4
MAX_SEED = 2**63 - 1


class Body(BaseModel):
    """Base of all bodies: unknown fields are refused and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Name = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[str, Field(max_length=256)]

MOST_EVENTS = 100
"""Most events of one body of feedback."""


class Extras(Body):
    """What Waypost adds to OpenAI's body.

    Headers ``x-waypost-*`` say the same, apart from `extra`, `progress` and `explain`; the body
    wins.
    """

    lam: float | None = Field(default=None, ge=0, alias="lambda")
    """Cost weight; 1 trades one full point of quality for one call of the most expensive LLM."""

    max_cost_usd: float | None = Field(default=None, ge=0)
    """Most that the predicted cost of one call may be."""

    allowed_models: (
        Annotated[list[Name], Field(min_length=1, max_length=256, fail_fast=True)] | None
    ) = None
    """LLMs to choose from."""

    user_id: Name | None = None
    session_id: Name | None = None

    session_token: str | None = None
    """The token that the last answer of the session had; one that cannot be used is ignored."""

    route_on: RouteOn | None = None
    """The part of the chat that is routed on."""

    top_k: Annotated[int, Field(ge=1, le=MOST_TOP_K)] | None = None
    """Most earlier turns that ``route_on: retrieval`` adds."""

    extra: dict[str, Any] | None = None
    """Fields that an HTTP engine knows beyond OpenAI's (``top_k``, ...), passed on to it."""

    progress: bool | None = None
    """Whether a stream has an event for each start and each end of a call, where the router works
    in steps; without effect elsewhere."""

    explain: bool | None = None
    """Whether the answer has the decision (a stream as its first event), and `usage.waypost` all
    that is known of the way to the answer."""


_PARTS = ("text", "refusal", "image_url", "input_audio", "file")


class Part(BaseModel):
    """One part of a message's content; parts other than text need an LLM behind HTTP."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "anyOf": [
                {
                    "properties": {
                        "type": {"const": kind},
                        kind: {"type": "string" if kind in {"text", "refusal"} else "object"},
                    },
                    "required": [kind],
                }
                for kind in _PARTS
            ]
        },
    )

    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: str | None = None
    refusal: str | None = None
    image_url: dict[str, Any] | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_its_content(self) -> Part:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} has a field of that name")
        return self


Parts = Annotated[list[Part], Field(min_length=1, max_length=2_048, fail_fast=True)]


class Message(BaseModel):
    """One turn of a chat; fields that are not named here pass through."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "anyOf": [
                {"properties": {"role": {"const": "assistant"}}},
                {
                    "properties": {"content": {"type": ["string", "array"]}},
                    "required": ["content"],
                },
            ]
        },
    )

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content is required in a message of role {self.role}")
        return self


Messages = Annotated[list[Message], Field(min_length=1, max_length=10_000, fail_fast=True)]


class Function(BaseModel):
    """A function that the LLM may call."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool that the LLM may call: a function, or a tool of OpenAI's that takes free text."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "anyOf": [
                {
                    "properties": {"type": {"const": kind}, kind: {"type": "object"}},
                    "required": [kind],
                }
                for kind in ("function", "custom")
            ]
        },
    )

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_its_content(self) -> Tool:
        if getattr(self, self.type) is None:
            raise ValueError(f"a tool of type {self.type} has a field of that name")
        return self


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Generation(Body):
    """Fields that chat and completion share.

    The fields below `extra_fields` are passed on to HTTP engines unread.
    """

    model: Name = "auto"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED)
    waypost: Extras | None = None

    user: Annotated[str, Field(max_length=256)] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None


class ChatFields(Generation):
    """A chat without its messages."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None

    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prediction: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None

    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    audio: None = None
    functions: None = None
    function_call: None = None


class ChatBody(ChatFields):
    """Body of ``POST /v1/chat/completions``."""

    messages: Messages


class CompletionBody(Generation):
    """Body of ``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=128, fail_fast=True)]

    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None
    logprobs: int | None = Field(default=None, ge=0, le=5)


class RouteBody(ChatFields):
    """Body of ``POST /v1/route``: that of a chat, or a ``query`` in place of the messages."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["query"]}, {"required": ["messages"]}]}
    )

    query: str = ""
    messages: Messages = []

    @model_validator(mode="after")
    def _asks_one_thing(self) -> RouteBody:
        if ("query" in self.model_fields_set) == ("messages" in self.model_fields_set):
            raise ValueError("give either query (a text) or messages (a chat)")
        return self


EventId = Annotated[str, Field(min_length=1, max_length=200)]


class FeedbackItem(Body):
    """One event: a rating, a preference between two answers, or a verdict."""

    request_id: EventId | None = None
    """``x-waypost-request-id`` of the answer, or the answer's ``id``; of a preference the left
    one."""

    other_request_id: EventId | None = None
    """Of a preference: the right answer."""

    kind: Literal["rating", "preference", "verdict"] | None = None
    """By default the kind of the value that is given."""

    rating: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 is useless, 1 is perfect; map stars to it before sending."""

    preference: Literal["left", "right", "tie", "both_bad"] | None = None

    verdict: (
        Literal["good_fit", "underpowered", "overpowered", "wrong", "refused", "format"] | None
    ) = None

    source: Literal["user", "judge", "test", "tool"] = "user"
    """Who says it."""

    user_id: EventId | None = None
    """By default the user of the request."""

    reason: str | None = Field(default=None, max_length=10_000)
    """Kept beside the value."""

    comment: str | None = Field(default=None, max_length=10_000)
    """Older name of ``reason``."""

    idempotency_key: EventId | None = None
    """Events of one key are one event; the header ``idempotency-key`` says the same."""

    time: Annotated[float, Field(ge=0)] | None = None
    """Unix seconds when it was said, at most now; by default now."""


class FeedbackBody(FeedbackItem):
    """Body of ``POST /v1/feedback``: one event, or a list of them."""

    events: (
        Annotated[list[FeedbackItem], Field(min_length=1, max_length=MOST_EVENTS, fail_fast=True)]
        | None
    ) = None
    """Several events, each answered for itself."""


UNSUPPORTED = {
    "modalities": 'answers are text; expected ["text"]',
    "audio": "answers are text",
    "functions": "is the old form of tools; send tools",
    "function_call": "is the old form of tool_choice; send tool_choice",
    "echo": "the prompt is not repeated in the answer; expected false",
    "best_of": "is not offered; send n",
    "suffix": "is not offered; the prompt is continued at its end",
}
"""OpenAI fields of which only the neutral value is accepted, and the message for others."""

_READ = {
    *Generation.model_fields,
    "messages",
    "prompt",
    "query",
    "max_completion_tokens",
    "tools",
    "tool_choice",
} - {"user", "frequency_penalty", "presence_penalty", "logit_bias"}
PASSED_ON = frozenset({*ChatFields.model_fields} - _READ - set(UNSUPPORTED))
"""Fields that are only passed on, to engines with OpenAI's API."""
