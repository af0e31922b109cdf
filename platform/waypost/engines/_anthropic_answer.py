"""Answers of the Messages API, whole and as events, to chunks in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines._anthropic_request import THINKING
from waypost.engines._http_wire import estimated_tokens, is_count
from waypost.engines.calls import StopFilter, prompt_text

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""A stop reason -> ours; any other is ``stop``: the answer did end."""

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Counts that make up the prompt: the first does not contain the others."""

_SHOWN = {"input_tokens", "cache_read_input_tokens", "output_tokens", "output_tokens_details"}
"""Fields of a usage that `Usage` has fields for."""

_TOLD = {"end_turn", "max_tokens", "tool_use"}
"""Stop reasons that our finish reason tells in full."""

_PIECES = {
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
"""Kind of a delta -> the field that holds its text."""


class MessageReader:
    """Collects what the Messages API says into chunks; see `Reader`."""

    def __init__(self, request: GenerateRequest) -> None:
        self.finish_reason: FinishReason | None = None
        self.answered = False
        self.ended = False
        self._request = request
        self._stops = StopFilter(request.stop)
        self._usage: dict[str, Any] = {}
        self._counted = False  # whether the usage is that of the whole answer
        self._characters = 0  # of all that was generated
        self._length = 0  # of the text
        self._open: dict[int, dict[str, Any]] = {}  # blocks that have begun and not ended
        self._called = 0
        self._why: dict[str, Any] = {}
        # what was not yet taken
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusal = ""
        self._calls: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []
        self._fields: dict[str, list[dict[str, Any]]] = {}

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""
        return self._stops.stopped

    def read(self, data: dict[str, Any]) -> bool:
        """Take one event, or a whole answer; say whether it shows that the LLM works.

        A ``message_start`` does not, and a ``ping`` only while the LLM thinks, which it may do
        without a word.

        Raises:
            EngineServerError: where the event is not what the API says.
        """
        kind = data.get("type")
        try:
            if kind == "message":
                self._whole(data)
            elif kind == "message_start":
                self.answered = True
                self._count(data["message"].get("usage"))
                return False
            elif kind == "content_block_start":
                self._begin(data["index"], data["content_block"])
            elif kind == "content_block_delta":
                self._add(data["index"], data["delta"])
            elif kind == "content_block_stop":
                self._end(data["index"])
            elif kind == "message_delta":
                self._finish(data["delta"], data.get("usage"))
            elif kind == "message_stop":
                self.ended = True
            else:  # a ping, or an event of a later version
                return any(block["type"] in THINKING for block in self._open.values())
        except (KeyError, TypeError, AttributeError, ValueError):
            # raised below, so that the upstream's words are not chained to the error
            pass
        else:
            return True
        raise EngineServerError(f"an event of type {str(kind)[:40]!r} is malformed")

    def take(self) -> Chunk | None:
        """Return what was added since the last time, if anything."""
        chunk = Chunk(
            text="".join(self._texts),
            tool_calls=tuple(self._calls),
            reasoning="".join(self._thoughts),
            refusal=self._refusal,
            annotations=tuple(self._notes),
            extra={"message": {**self._fields}} if self._fields else {},
        )
        for taken in (self._texts, self._thoughts, self._calls, self._notes, self._fields):
            taken.clear()
        self._refusal = ""
        return chunk if chunk.says_something else None

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""
        held = self._stops.flush()
        return Chunk(text=held) if held else None

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk. What usage was not told is estimated from the characters."""
        counts = {name: self._tokens(self._usage, name) for name in (*_PROMPT, "output_tokens")}
        prompt, told = sum(counts[name] for name in _PROMPT), counts["output_tokens"]
        detail = self._usage.get("output_tokens_details")
        usage = Usage(
            prompt if self._usage else estimated_tokens(len(prompt_text(self._request))),
            told if self._counted else max(told, estimated_tokens(self._characters)),
            counts["cache_read_input_tokens"],
            self._tokens(detail, "thinking_tokens") if isinstance(detail, dict) else 0,
            {name: value for name, value in self._usage.items() if name not in _SHOWN and value},
            estimated=not self._usage or not self._counted,
        )
        return Chunk(
            finish_reason=reason or self.finish_reason or "stop",
            usage=usage,
            extra={"choice": self._why} if self._why else {},
        )

    @staticmethod
    def _tokens(usage: Mapping[str, Any], name: str) -> int:
        count = usage.get(name)
        return count if is_count(count) else 0

    def _whole(self, message: dict[str, Any]) -> None:
        content = message.get("content")
        self.answered = isinstance(content, list)
        for index, block in enumerate(content if isinstance(content, list) else ()):
            self._begin(index, block)
            self._end(index)
        self._finish(message, message.get("usage"))
        self.ended = True

    def _begin(self, index: int, block: dict[str, Any]) -> None:
        kind = _string(block["type"])
        said = {**block, "index": index}
        self._open[index] = {"type": kind, "said": said, "partial_json": "", "at": self._length}
        if kind == "text":
            self._say(block.get("text") or "")
        elif kind == "thinking":
            self._think(block.get("thinking") or "")
        elif kind == "tool_use":
            self._open[index]["call"] = self._called
            names = {"name": _string(block["name"]), "arguments": ""}
            call = {"index": self._called, "id": _string(block["id"]), "type": "function"}
            self._calls.append({**call, "function": names})
            self._called += 1

    def _add(self, index: int, delta: dict[str, Any]) -> None:
        kind, block = delta["type"], self._open[index]
        if kind == "text_delta":
            self._say(delta["text"])
        elif kind == "citations_delta":
            block["said"].setdefault("citations", [])
            block["said"]["citations"] = [*(block["said"]["citations"] or ()), delta["citation"]]
        elif name := _PIECES.get(kind):
            part = _string(delta[name])
            if kind == "input_json_delta":
                block[name] += part
                if part and "call" in block:
                    self._argue(block["call"], part)
            else:
                block["said"][name] = (block["said"].get(name) or "") + part
                self._think(part if kind == "thinking_delta" else "")

    def _end(self, index: int) -> None:
        block = self._open.pop(index)
        kind, said = block["type"], block["said"]
        if kind == "text":
            for citation in said.get("citations") or ():
                self._notes.append(_annotation(citation, block["at"], self._length))
        elif kind == "tool_use":
            # a call without arguments has no delta, or an empty one: "" is no JSON for a client
            if not block["partial_json"]:
                self._argue(block["call"], json.dumps(said.get("input") or {}, ensure_ascii=False))
        elif kind in THINKING:
            # as one: it is what the next turn has to send back, signature included
            self._fields.setdefault("thinking_blocks", []).append(said)
        else:  # of tools that run at the provider
            if block["partial_json"]:
                said["input"] = json.loads(block["partial_json"])
            self._fields.setdefault("content_blocks", []).append(said)

    def _finish(self, delta: dict[str, Any], usage: object) -> None:
        self._count(usage)
        self._counted = self._counted or isinstance(usage, dict)
        if word := delta.get("stop_reason"):
            self.finish_reason = _FINISH.get(_string(word), "stop")
            why = {"stop_reason": None if word in _TOLD else word}
            why |= {name: delta.get(name) for name in ("stop_sequence", "stop_details")}
            self._why = {name: value for name, value in why.items() if value}
        if isinstance(details := delta.get("stop_details"), dict):
            self._refusal += _string(details.get("explanation") or "")

    def _say(self, text: str) -> None:
        self._characters += len(text)
        self._length += len(text)
        self._texts.append(self._stops.push(text))

    def _think(self, text: str) -> None:
        self._characters += len(text)
        self._thoughts.append(text)

    def _argue(self, call: int, part: str) -> None:
        self._characters += len(part)
        self._calls.append({"index": call, "function": {"arguments": part}})

    def _count(self, usage: object) -> None:
        """Take counts that replace those of an earlier event: they are sums over the answer."""
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}


def _annotation(citation: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return OpenAI's annotation of a page of the web; of a document, the citation as it is."""
    if not (url := citation.get("url")):
        return citation
    place = {"start_index": start, "end_index": end}
    named = {"url": url, "title": citation.get("title") or "", **place}
    return {"type": "url_citation", "url_citation": named}


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
