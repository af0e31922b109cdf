"""Answers in OpenAI's form: whole bodies and server-sent events, for chat and completion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from waypost.contracts.generation import Answer, Chunk, Usage, joined_fields, total
from waypost.sessions.reasoning import tagged

DONE = b"data: [DONE]\n\n"
EVENT_CHARACTERS = 64
"""Characters of each event where a complete answer is sent as a stream."""

_FINISH = {"cancelled": "stop"}  # ours; clients know OpenAI's values only


def dumps(value: Any) -> bytes:
    """Write JSON in ASCII, so that half a surrogate pair from an engine causes no error."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def event(data: bytes) -> bytes:
    """Write one server-sent event."""
    return b"data: " + data + b"\n\n"


def told_usage(usages: Mapping[int, Usage], n: int) -> Usage:
    """Return the usage of several answers as OpenAI counts it: each prompt once.

    Args:
        usages: Usage of the answers by index.
        n: Number of answers to each prompt; these have consecutive indices.
    """
    told: list[Usage] = []
    prompts: set[int] = set()
    for index, usage in usages.items():
        if index // n in prompts:
            details = {k: v for k, v in usage.details.items() if k != _PROMPT_DETAILS}
            usage = replace(usage, input_tokens=0, cached_tokens=0, details=details)
        prompts.add(index // n)
        told.append(usage)
    return total(told)


_PROMPT_DETAILS = "prompt_tokens_details"
_DETAILS = "completion_tokens_details"


def usage_body(usage: Usage, waypost: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's ``usage``: the tokens of all answers, their details, and Waypost's fields."""
    counts = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    details = dict(usage.details)
    if usage.cached_tokens:
        details.setdefault(_PROMPT_DETAILS, {"cached_tokens": usage.cached_tokens})
    if usage.reasoning_tokens:
        details.setdefault(_DETAILS, {"reasoning_tokens": usage.reasoning_tokens})
    told = {**waypost, "estimated": True} if usage.estimated else dict(waypost)
    return {**details, **counts, "waypost": told}


def joined_tool_calls(deltas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the tool-call deltas of one answer into whole calls, in the order of their index."""
    calls: dict[Any, dict[str, Any]] = {}
    for place, delta in enumerate(deltas):
        call = calls.setdefault(delta.get("index", f"whole {place}"), {"type": "function"})
        call.update({k: v for k, v in delta.items() if k not in _BODIES and v})
        for kind in ("function", "custom"):
            for field, value in (delta.get(kind) or {}).items():
                body = call.setdefault(kind, {})
                before = body.get(field)
                goes_on = isinstance(before, str) and isinstance(value, str)
                body[field] = before + value if goes_on else value
    for call in calls.values():
        if "custom" not in call:
            call["function"] = {"name": "", "arguments": "", **call.get("function", {})}
    return list(calls.values())


_BODIES = frozenset({"index", "function", "custom"})


def one_each(deltas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the tool-call deltas that came at once into one for each index."""
    calls: dict[Any, dict[str, Any]] = {}
    for place, delta in enumerate(deltas):
        index = delta.get("index", f"whole {place}")
        calls[index] = joined_fields(calls[index], delta) if index in calls else delta
    return list(calls.values())


def chunked(answer: Answer) -> Iterator[Chunk]:
    """Cut a whole answer into the chunks of a stream, of `EVENT_CHARACTERS` each."""
    for begin in range(0, len(answer.reasoning), EVENT_CHARACTERS):
        yield Chunk(reasoning=answer.reasoning[begin : begin + EVENT_CHARACTERS])
    for begin in range(0, len(answer.text), EVENT_CHARACTERS):
        yield Chunk(answer.text[begin : begin + EVENT_CHARACTERS])
    yield replace(answer.to_chunk(), text="", reasoning="")


def said(piece: Chunk | Answer) -> dict[str, Any]:
    """Return what a piece says beside its text and tool calls, as fields of a message or delta."""
    fields: dict[str, Any] = {}
    if piece.reasoning:
        fields["reasoning_content"] = piece.reasoning
    if piece.refusal:
        fields["refusal"] = piece.refusal
    if piece.annotations:
        fields["annotations"] = list(piece.annotations)
    return {**piece.extra.get("message", {}), **fields}


class ChatFormat:
    """Answers of ``/v1/chat/completions``.

    Args:
        request_id: Id from which the answer's id is made.
        model: The LLM that answers.
        tell_usage: Whether events before the last have ``usage: null``, as OpenAI's do.
        created: Seconds since 1970, equal in all events of a stream; None is now.
        provider: Tag of the LLM's provider; see `tagged`.
    """

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    event_object = "chat.completion.chunk"

    def __init__(
        self,
        request_id: str,
        model: str,
        *,
        tell_usage: bool = False,
        created: int | None = None,
        provider: str | None = None,
    ) -> None:
        self._provider = provider
        self._tagged: set[int] = set()
        self._head = {
            "id": f"{self.prefix}{request_id}",
            "object": self.whole_object,
            "created": int(time.time()) if created is None else created,
            "model": model,
        }
        self._after = b'],"usage":null}\n\n' if tell_usage else b"]}\n\n"
        self._begun: set[int] = set()

    @cached_property
    def _before(self) -> bytes:
        # a whole answer has no events
        head = dumps({**self._head, "object": self.event_object})[:-1]
        return b"data: " + head + b',"choices":['

    def whole(self, answers: Sequence[Answer], usage: dict[str, Any]) -> bytes:
        """Write the body of a whole answer."""
        marked = [tagged(answer, self._provider) for answer in answers]
        choices = [self._choice(i, answer) for i, answer in enumerate(marked)]
        first = answers[0].extra.get("answer", {}) if answers else {}
        return dumps(
            {**_without(first, _OF_ANSWERS), **self._head, "choices": choices, "usage": usage}
        )

    def events(self, index: int, chunk: Chunk) -> bytes:
        """Write the events of one chunk of the answer ``index``."""
        written = b""
        if index not in self._begun:
            self._begun.add(index)
            written = self._first(index, chunk)
        if self._provider is not None:
            found = tagged(chunk, self._provider, again=index in self._tagged)
            if found is not chunk:
                self._tagged.add(index)
                chunk = found
        extra = chunk.extra or None
        if chunk.says_something:
            calls = [] if len(chunk.tool_calls) < 2 else one_each(chunk.tool_calls)
            first = replace(chunk, tool_calls=tuple(calls[:1])) if calls else chunk
            written += self._event(index, self._content(first), None, extra)
            for call in calls[1:]:  # some clients read the first call of an event only
                written += self._event(index, b'"delta":' + dumps({"tool_calls": [call]}), None)
            extra = None
        if chunk.finish_reason is not None:
            reason = _FINISH.get(chunk.finish_reason, chunk.finish_reason)
            written += self._event(index, self._no_content, reason, extra)
        return written

    def waypost_event(self, told: Mapping[str, Any]) -> bytes:
        """Write an event without choices: the decision, or a call that starts or ends."""
        return self._before + b'],"waypost":' + dumps(told) + self._after[1:]

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """Write the event with the usage."""
        return self._before + b'],"usage":' + dumps(usage) + b"}\n\n"

    def _event(
        self,
        index: int,
        content: bytes,
        reason: str | None,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> bytes:
        end = b'"%s"' % reason.encode() if reason else b"null"
        beside, after = b'"logprobs":null', self._after
        if extra is not None:
            choice = {"logprobs": None, **_without(extra.get("choice", {}), _OF_CHOICES)}
            beside = dumps(choice)[1:-1]
            if answer := _without(extra.get("answer", {}), _OF_ANSWERS):
                after = b"]," + dumps(answer)[1:-1] + self._after[1:]
        return b'%s{"index":%d,%s,%s,"finish_reason":%s}%s' % (
            self._before,
            index,
            content,
            beside,
            end,
            after,
        )

    _no_content = b'"delta":{}'

    def _first(self, index: int, chunk: Chunk) -> bytes:
        empty = None if chunk.refusal and not chunk.text else ""
        return self._event(
            index, b'"delta":' + dumps({"role": "assistant", "content": empty}), None
        )

    def _content(self, chunk: Chunk) -> bytes:
        delta = said(chunk)
        if chunk.tool_calls:
            delta["tool_calls"] = list(chunk.tool_calls)
        if not delta:
            return b'"delta":{"content":' + dumps(chunk.text) + b"}"
        if chunk.text:
            delta["content"] = chunk.text
        return b'"delta":' + dumps(delta)

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        silent = answer.tool_calls or answer.refusal
        content = answer.text or (None if silent else "")
        message = {"role": "assistant", "content": content, "refusal": None, **said(answer)}
        if answer.tool_calls:
            message["tool_calls"] = joined_tool_calls(answer.tool_calls)
        return _choice(index, answer, {"message": message})


class TextFormat(ChatFormat):
    """Answers of ``/v1/completions``."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    event_object = "text_completion"
    _no_content = b'"text":""'

    def _first(self, index: int, chunk: Chunk) -> bytes:
        return b""

    def _content(self, chunk: Chunk) -> bytes:
        more = _without(said(chunk), _OF_CHOICES)
        return b'"text":' + dumps(chunk.text) + (b"," + dumps(more)[1:-1] if more else b"")

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        return _choice(index, answer, {**said(answer), "text": answer.text})


_OF_CHOICES = frozenset({"index", "delta", "message", "text", "finish_reason"})
_OF_ANSWERS = frozenset({"id", "object", "created", "model", "choices", "usage", "waypost"})
"""Fields that Waypost writes itself."""


def _without(fields: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _choice(index: int, answer: Answer, content: dict[str, Any]) -> dict[str, Any]:
    reason = _FINISH.get(answer.finish_reason, answer.finish_reason)
    extra = {"logprobs": None, **answer.extra.get("choice", {})}
    return {**extra, "index": index, **content, "finish_reason": reason}
