"""Requests to an LLM and its answers: the messages between gateway and engines.

They are sent between processes as plain dicts (`to_dict` / `from_dict`), because the two ends may
run different versions of Python, Ray or pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from waypost.contracts.errors import SchemaError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]
"""Why an answer ended, as in OpenAI's API; ``cancelled`` is internal to Waypost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer, as the engine's own tokenizer counts them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One call of one LLM for one answer (``n`` > 1 is several requests).

    Exactly one of ``messages`` and ``prompt`` is given.

    Attributes:
        request_id: Unique id, used by `Engine.abort` and in logs.
        messages: Chat turns in OpenAI's form (role, content, tool_calls, ...).
        prompt: Plain text to continue (``/v1/completions``): no chat template.
        max_tokens: Most tokens to generate; None leaves it to the engine's limit.
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        seed: Makes sampling repeatable where the engine can.
        stop: Strings that end the answer; they are not part of it.
        tools: OpenAI tool definitions, passed through.
        tool_choice: As OpenAI's, passed through.
        timeout_s: Whole-call limit in seconds; None is the engine's own.
        extra: Further OpenAI fields, passed through to HTTP engines only
            (``response_format``, ``logit_bias``, penalties, ...).
    """

    request_id: str
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    timeout_s: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.prompt is None):
            raise SchemaError(
                "GenerateRequest: give either messages (chat) or prompt (completion), not both"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict without the fields that are at their default."""
        return {
            f.name: list(value) if f.name == "stop" else value
            for f in fields(self)
            if (value := getattr(self, f.name)) not in (None, (), {})
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GenerateRequest:
        """Rebuild a request.

        Raises:
            SchemaError: on a key that this version does not know, or a missing request_id.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise SchemaError(f"GenerateRequest: unknown fields {', '.join(unknown)}")
        if "request_id" not in data:
            raise SchemaError("GenerateRequest: request_id is missing")
        return cls(**{**data, "stop": tuple(data.get("stop", ()))})


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of an answer.

    An answer is a sequence of chunks: any number with text or tool calls, then exactly one
    with a `finish_reason` and `usage`, which is the last.

    Attributes:
        text: New text, possibly empty.
        tool_calls: OpenAI tool-call deltas, passed through from HTTP engines.
        finish_reason: Set on the last chunk only.
        usage: Set on the last chunk only.
    """

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict without empty fields."""
        data: dict[str, Any] = {}
        if self.text:
            data["text"] = self.text
        if self.tool_calls:
            data["tool_calls"] = list(self.tool_calls)
        if self.finish_reason is not None:
            data["finish_reason"] = self.finish_reason
        if self.usage is not None:
            data["usage"] = asdict(self.usage)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Chunk:
        """Rebuild a chunk; fields of a newer version are ignored."""
        usage = data.get("usage")
        return cls(
            text=data.get("text", ""),
            tool_calls=tuple(data.get("tool_calls", ())),
            finish_reason=data.get("finish_reason"),
            usage=Usage(**usage) if usage else None,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the chunks of one request, joined."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[dict[str, Any], ...] = ()

    def to_chunk(self) -> Chunk:
        """Return the answer as its only chunk."""
        return Chunk(self.text, self.tool_calls, self.finish_reason, self.usage)


def joined(chunks: Sequence[Chunk]) -> Answer:
    """Join the chunks of one answer; the default is reason ``stop`` and no tokens."""
    last = chunks[-1] if chunks else Chunk()
    return Answer(
        text="".join(chunk.text for chunk in chunks),
        finish_reason=last.finish_reason or "stop",
        usage=last.usage or Usage(),
        tool_calls=tuple(call for chunk in chunks for call in chunk.tool_calls),
    )


def deployment_name(llm: str) -> str:
    """Return the name of an LLM's Serve deployment: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", llm)
