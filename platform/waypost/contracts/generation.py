"""Requests to an LLM and its answers: the messages between gateway and engines.

They are sent between processes as plain dicts (`to_dict` / `from_dict`), because the two ends may
run different versions of Python, Ray or pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeGuard

from waypost.contracts.errors import SchemaError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]
"""Why an answer ended, as in OpenAI's API; ``cancelled`` is internal to Waypost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer, as the engine's own tokenizer counts them.

    Attributes:
        input_tokens: All tokens of the prompt, those read from a cache included.
        output_tokens: All tokens generated, those of reasoning included.
        cached_tokens: Those of `input_tokens` that a cache of the upstream held.
        reasoning_tokens: Those of `output_tokens` that are reasoning.
        details: What else the upstream told, under its own names: ``prompt_tokens_details``,
            ``completion_tokens_details``, and fields that OpenAI's API lacks.
        estimated: Whether the upstream told no counts, so that they are estimated from the
            characters of all that was sent and generated.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    details: dict[str, Any] = field(default_factory=dict, hash=False)
    estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict; of the last four fields only those that say something."""
        data: dict[str, Any] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        for name in ("cached_tokens", "reasoning_tokens", "details", "estimated"):
            if value := getattr(self, name):
                data[name] = value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Rebuild a usage; fields of a newer version are ignored."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of several usages; details are added, too, where they are numbers."""
    found = list(usages)
    if len(found) == 1:
        return found[0]
    details: dict[str, Any] = {}
    for usage in found:
        details = _added(details, usage.details)
    return Usage(
        sum(usage.input_tokens for usage in found),
        sum(usage.output_tokens for usage in found),
        sum(usage.cached_tokens for usage in found),
        sum(usage.reasoning_tokens for usage in found),
        details,
        any(usage.estimated for usage in found),
    )


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

    An answer is a sequence of chunks: any number that say something, then exactly one with a
    `finish_reason` and `usage`, which is the last.

    Attributes:
        text: New text, possibly empty.
        tool_calls: OpenAI tool-call deltas. A call has one ``index``, counted from 0 in the order
            in which the calls begin, and its first delta holds ``id``, ``type`` and the name.
        finish_reason: Set on the last chunk only.
        usage: Set on the last chunk only.
        reasoning: New text of the LLM's visible thinking; no part of `text`.
        refusal: New text of the LLM's own refusal; no part of `text`.
        annotations: New annotations of the text (``url_citation``, ...), as OpenAI's.
        extra: What the upstream said beside these, under its own names and by place: ``message``
            (fields of the message or delta), ``choice`` and ``answer`` (the body or event).
    """

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    refusal: str = ""
    annotations: tuple[dict[str, Any], ...] = ()
    extra: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)

    @property
    def says_something(self) -> bool:
        """Whether the piece holds a part of an answer.

        That is text, reasoning, refusal, a tool call, an annotation, or a further field of the
        message.
        """
        return _says_something(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict without empty fields."""
        data: dict[str, Any] = {}
        for name in ("text", "finish_reason", "reasoning", "refusal", "extra"):
            if value := getattr(self, name):
                data[name] = value
        if self.tool_calls:
            data["tool_calls"] = list(self.tool_calls)
        if self.annotations:
            data["annotations"] = list(self.annotations)
        if self.usage is not None:
            data["usage"] = self.usage.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Chunk:
        """Rebuild a chunk; fields of a newer version are ignored."""
        usage = data.get("usage")
        return cls(
            text=data.get("text", ""),
            tool_calls=tuple(data.get("tool_calls", ())),
            finish_reason=data.get("finish_reason"),
            usage=Usage.from_dict(usage) if usage else None,
            reasoning=data.get("reasoning", ""),
            refusal=data.get("refusal", ""),
            annotations=tuple(data.get("annotations", ())),
            extra=data.get("extra", {}),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the chunks of one request, joined. See `Chunk` for the fields."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[dict[str, Any], ...] = ()
    reasoning: str = ""
    refusal: str = ""
    annotations: tuple[dict[str, Any], ...] = ()
    extra: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)

    @property
    def says_something(self) -> bool:
        """Whether it says anything in any form; see `Chunk.says_something`."""
        return _says_something(self)

    def to_chunk(self) -> Chunk:
        """Return the answer as its only chunk."""
        return Chunk(
            self.text,
            self.tool_calls,
            self.finish_reason,
            self.usage,
            self.reasoning,
            self.refusal,
            self.annotations,
            self.extra,
        )


def _says_something(piece: Chunk | Answer) -> bool:
    return bool(
        piece.text
        or piece.reasoning
        or piece.tool_calls
        or piece.refusal
        or piece.annotations
        or piece.extra.get("message")
    )


def joined(chunks: Sequence[Chunk]) -> Answer:
    """Join the chunks of one answer; the default is reason ``stop`` and no tokens."""
    last = chunks[-1] if chunks else Chunk()
    extra: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        if chunk.extra:
            extra = joined_extra(extra, chunk.extra)
    return Answer(
        text="".join(chunk.text for chunk in chunks),
        finish_reason=last.finish_reason or "stop",
        usage=last.usage or Usage(),
        tool_calls=tuple(call for chunk in chunks for call in chunk.tool_calls),
        reasoning="".join(chunk.reasoning for chunk in chunks),
        refusal="".join(chunk.refusal for chunk in chunks),
        annotations=tuple(note for chunk in chunks for note in chunk.annotations),
        extra=extra,
    )


def joined_extra(
    said: Mapping[str, dict[str, Any]], more: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Join the `Chunk.extra` of two chunks.

    Fields of messages are joined as OpenAI's clients do, as are ``logprobs``; of any other field
    the later value holds, because upstreams repeat them.
    """
    found = dict(said)
    for place, fields_ in more.items():
        before = found.get(place, {})
        if place == "message":
            found[place] = joined_fields(before, fields_)
        else:
            pieces = {name: fields_[name] for name in ("logprobs",) if name in fields_}
            found[place] = {**before, **fields_, **joined_fields(_only(before, pieces), pieces)}
    return found


def _only(fields_: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: fields_[name] for name in names if name in fields_}


_SAID_ONCE = frozenset({"id", "type", "index", "name", "format", "role", "provider", "model"})
"""Names of fields that deltas repeat; other texts of deltas are pieces of one text."""

_DEEPEST = 16


def joined_fields(said: Mapping[str, Any], more: Mapping[str, Any], depth: int = 0) -> Any:
    """Join the fields of two deltas as OpenAI's clients do.

    Texts and lists go on (members of lists by their ``index``, where they have one), objects are
    joined field by field, and of anything else the later value holds.
    """
    found = dict(said)
    for name, value in more.items():
        before: Any = found.get(name)
        if name in _SAID_ONCE or type(before) is not type(value) or depth > _DEEPEST:
            found[name] = before if value is None else value
        elif isinstance(value, str):
            found[name] = before + value
        elif isinstance(value, dict):
            found[name] = joined_fields(before, value, depth + 1)
        elif isinstance(value, list):
            found[name] = _joined_list(before, value, depth + 1)
        else:
            found[name] = value
    return found


def _joined_list(said: list[Any], more: list[Any], depth: int) -> list[Any]:
    found = list(said)
    places = {
        item["index"]: place
        for place, item in enumerate(found)
        if isinstance(item, dict) and isinstance(item.get("index"), int)
    }
    for item in more:
        place = places.get(item.get("index")) if isinstance(item, dict) else None
        if place is None:
            found.append(item)
        else:
            found[place] = joined_fields(found[place], item, depth)
    return found


def _added(sums: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(sums)
    for name, value in more.items():
        before: Any = found.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            found[name] = _added(before, value)
        elif _is_number(before) and _is_number(value):
            found[name] = before + value
        else:
            found[name] = value
    return found


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def deployment_name(llm: str) -> str:
    """Return the name of an LLM's Serve deployment: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", llm)
