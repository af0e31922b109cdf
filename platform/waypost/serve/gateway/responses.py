"""Answers in OpenAI's form: whole bodies and server-sent events, for chat and completion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from waypost.contracts.generation import Answer, Chunk, Usage

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
    prompts = {index // n: usage.input_tokens for index, usage in usages.items()}
    return Usage(sum(prompts.values()), sum(usage.output_tokens for usage in usages.values()))


def usage_body(usage: Usage, waypost: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's ``usage``: the tokens of all answers, and Waypost's own fields."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "waypost": dict(waypost),
    }


def joined_tool_calls(deltas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the tool-call deltas of one answer into whole calls, in the order of their index."""
    calls: dict[Any, dict[str, Any]] = {}
    for place, delta in enumerate(deltas):
        key = delta.get("index", f"whole {place}")
        call = calls.setdefault(
            key, {"type": "function", "function": {"name": "", "arguments": ""}}
        )
        call.update({k: v for k, v in delta.items() if k not in {"index", "function"} and v})
        for field, text in (delta.get("function") or {}).items():
            call["function"][field] = call["function"].get(field, "") + (text or "")
    return list(calls.values())


def chunked(answer: Answer) -> Iterator[Chunk]:
    """Cut a whole answer into the chunks of a stream, of `EVENT_CHARACTERS` each."""
    for begin in range(0, len(answer.text), EVENT_CHARACTERS):
        yield Chunk(answer.text[begin : begin + EVENT_CHARACTERS])
    yield Chunk(finish_reason=answer.finish_reason, usage=answer.usage)


class ChatFormat:
    """Answers of ``/v1/chat/completions``.

    Args:
        request_id: Id from which the answer's id is made.
        model: The LLM that answers.
        tell_usage: Whether events before the last have ``usage: null``, as OpenAI's do.
        created: Seconds since 1970, equal in all events of a stream; None is now.
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
    ) -> None:
        self._head = {
            "id": f"{self.prefix}{request_id}",
            "object": self.whole_object,
            "created": int(time.time()) if created is None else created,
            "model": model,
        }
        head = dumps({**self._head, "object": self.event_object})[:-1]
        self._before = b"data: " + head + b',"choices":['
        self._after = b'],"usage":null}\n\n' if tell_usage else b"]}\n\n"
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Answer], usage: dict[str, Any]) -> bytes:
        """Write the body of a whole answer."""
        choices = [self._choice(i, answer) for i, answer in enumerate(answers)]
        return dumps({**self._head, "choices": choices, "usage": usage})

    def events(self, index: int, chunk: Chunk) -> bytes:
        """Write the events of one chunk of the answer ``index``."""
        written = b""
        if index not in self._begun:
            self._begun.add(index)
            written = self._first(index)
        if chunk.text or chunk.tool_calls:
            written += self._event(index, self._content(chunk), None)
        if chunk.finish_reason is not None:
            reason = _FINISH.get(chunk.finish_reason, chunk.finish_reason)
            written += self._event(index, self._no_content, reason)
        return written

    def progress_event(self, step: Mapping[str, Any]) -> bytes:
        """Write the event of a call of an episode that starts or ends; it has no choices."""
        return self._before + b'],"waypost":' + dumps({"step": step}) + self._after[1:]

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """Write the event with the usage."""
        return self._before + b'],"usage":' + dumps(usage) + b"}\n\n"

    def _event(self, index: int, content: bytes, reason: str | None) -> bytes:
        end = b'"%s"' % reason.encode() if reason else b"null"
        return b'%s{"index":%d,%s,"logprobs":null,"finish_reason":%s}%s' % (
            self._before,
            index,
            content,
            end,
            self._after,
        )

    _no_content = b'"delta":{}'

    def _first(self, index: int) -> bytes:
        return self._event(index, b'"delta":{"role":"assistant","content":""}', None)

    def _content(self, chunk: Chunk) -> bytes:
        if not chunk.tool_calls:
            return b'"delta":{"content":' + dumps(chunk.text) + b"}"
        delta: dict[str, Any] = {"tool_calls": list(chunk.tool_calls)}
        if chunk.text:
            delta["content"] = chunk.text
        return b'"delta":' + dumps(delta)

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.tool_calls:
            message["content"] = answer.text or None
            message["tool_calls"] = joined_tool_calls(answer.tool_calls)
        return _choice(index, answer, {"message": message})


class TextFormat(ChatFormat):
    """Answers of ``/v1/completions``."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    event_object = "text_completion"
    _no_content = b'"text":""'

    def _first(self, index: int) -> bytes:
        return b""

    def _content(self, chunk: Chunk) -> bytes:
        return b'"text":' + dumps(chunk.text)

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        return _choice(index, answer, {"text": answer.text})


def _choice(index: int, answer: Answer, content: dict[str, Any]) -> dict[str, Any]:
    reason = _FINISH.get(answer.finish_reason, answer.finish_reason)
    return {"index": index, **content, "logprobs": None, "finish_reason": reason}
