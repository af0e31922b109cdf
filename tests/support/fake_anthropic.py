"""A server on a loopback port that speaks the Messages API as it is documented.

It takes the replies of `fake_upstream`, and `Said` for answers of several blocks. Requests that the
API refuses are refused with its words. The events are those of
https://platform.claude.com/docs/en/build-with-claude/streaming, the types of errors those of
https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.fake_upstream import FakeUpstream, Reply, _write
from waypost.engines.calls import StopFilter, pieces

KNOWN = {
    "cache_control", "container", "inference_geo", "max_tokens", "messages", "metadata", "model",
    "output_config", "service_tier", "stop_sequences", "stream", "system", "temperature",
    "thinking", "tool_choice", "tools", "top_k", "top_p",
}  # fmt: skip
"""Fields of a request; any other is refused."""

STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True)
class Said(Reply):
    """A scripted answer.

    Attributes:
        blocks: The content; none is the text of `Reply`.
        stop: The stop reason; None is the natural one.
        delta: Further fields of the ``message_delta``, or of the whole answer.
        counts: Further fields of the usage.
        pings: Number of pings before each delta.
    """

    blocks: tuple[dict[str, Any], ...] = ()
    stop: str | None = None
    delta: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    pings: int = 0


def refused(kind: str, message: str = "no", **headers: str) -> Reply:
    """Return a refusal in the API's form."""
    return Reply(status=STATUS[kind], body=problem(message, kind), headers=headers)


def problem(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return the body of a refusal."""
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": "req_fake"}


class FakeAnthropic(FakeUpstream):
    """The server; see `FakeUpstream`."""

    paths = ("/v1/messages",)

    def _problem(self, request: web.Request, body: dict[str, Any]) -> Mapping[str, Any] | None:
        found = _fault(request.headers, body)
        return None if found is None else problem(found)

    def _whole(self, reply: Reply, body: dict[str, Any]) -> Mapping[str, Any]:
        if reply.body is not None:
            return reply.body
        blocks, reason, usage = _plan(reply, body)
        more = reply.delta if isinstance(reply, Said) else {}
        whole = {**_message(body), "content": blocks, "stop_reason": reason, **more}
        return {**whole, "usage": usage} if reply.usage else whole

    async def _stream(
        self, request: web.Request, reply: Reply, body: dict[str, Any]
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", **reply.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if reply.raw is not None:
            await asyncio.sleep(reply.first_token_s)
            await _write(response, reply.raw, reply)
            return response
        blocks, reason, usage = _plan(reply, body)
        begin = {**_message(body), "content": [], "stop_reason": None, "stop_sequence": None}
        if reply.usage:
            begin["usage"] = {**usage, "output_tokens": 1}
        await _write(response, event("message_start", message=begin), reply)
        await _write(response, event("ping"), reply)
        await asyncio.sleep(reply.first_token_s)
        events, half = list(_events(blocks)), _deltas(blocks) // 2
        sent = 0
        for kind, data in events:
            if kind == "content_block_delta":
                if reply.stream_error is not None and sent == half:
                    await _write(response, event("error", error=reply.stream_error), reply)
                    return response
                if sent == reply.cut_after:
                    return self._drop(request)
                for _ in range(reply.pings if isinstance(reply, Said) else 0):
                    await _write(response, event("ping"), reply)
                    await asyncio.sleep(reply.token_s)
                await asyncio.sleep(reply.token_s)
                sent += 1
                self.sent_tokens += 1
            await _write(response, event(kind, **data), reply)
        if reply.finish:
            more = reply.delta if isinstance(reply, Said) else {}
            delta = {"stop_reason": reason, "stop_sequence": None, **more}
            told = {"usage": usage} if reply.usage else {}
            await _write(response, event("message_delta", delta=delta, **told), reply)
        if reply.done:
            await _write(response, event("message_stop"), reply)
        return response


def event(kind: str, **data: Any) -> bytes:
    """Return an event of a stream."""
    body = json.dumps({"type": kind, **data}, ensure_ascii=False)
    return f"event: {kind}\ndata: {body}\n\n".encode()


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "msg_fake", "type": "message", "role": "assistant", "model": body["model"]}


def _plan(reply: Reply, body: dict[str, Any]) -> tuple[list[dict[str, Any]], str, dict[str, Any]]:
    """Return the blocks, the stop reason and the usage of an answer."""
    read = max(1, len(pieces(_prompt(body))))
    if isinstance(reply, Said) and reply.blocks:
        calls = any(block["type"] == "tool_use" for block in reply.blocks)
        reason = reply.stop or ("tool_use" if calls else "end_turn")
        counts = {"input_tokens": read, "output_tokens": _deltas(list(reply.blocks))}
        return list(reply.blocks), reason, {**counts, **reply.counts}
    text = _asked(body) if reply.text is None else reply.text
    stops = StopFilter(body.get("stop_sequences") or ())
    text = stops.push(text) + stops.flush()
    reason, words = "stop_sequence" if stops.stopped else "end_turn", pieces(text)
    if len(words) > body["max_tokens"]:
        reason, words = "max_tokens", words[: body["max_tokens"]]
    usage = {"input_tokens": read, "output_tokens": max(1, len(words))}
    block = {"type": "text", "text": "".join(words)}
    if isinstance(reply, Said):
        reason, usage = reply.stop or reason, {**usage, **reply.counts}
    return [block], reason, usage


def _events(blocks: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the data of each event of the blocks."""
    for index, block in enumerate(blocks):
        empty = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
            "server_tool_use": {"input": {}},
        }.get(block["type"], {})
        start = {**block, **empty}
        start.pop("citations", None)
        yield "content_block_start", {"index": index, "content_block": start}
        for delta in _parts(block):
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}


def _parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    kind = block["type"]
    if kind == "text":
        notes = [{"type": "citations_delta", "citation": c} for c in block.get("citations", ())]
        return [*notes, *({"type": "text_delta", "text": t} for t in pieces(block["text"]))]
    if kind == "thinking":
        thoughts = [
            {"type": "thinking_delta", "thinking": text} for text in pieces(block["thinking"])
        ]
        return [*thoughts, {"type": "signature_delta", "signature": block["signature"]}]
    if kind in {"tool_use", "server_tool_use"}:
        # the first part is empty, as the real one's; so is that of a call without arguments
        text = json.dumps(block["input"]) if block["input"] else ""
        parts = ["", *(text[at : at + 5] for at in range(0, len(text), 5))]
        return [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return []


def _deltas(blocks: list[dict[str, Any]]) -> int:
    return sum(len(_parts(block)) for block in blocks)


def _asked(body: dict[str, Any]) -> str:
    users = [turn for turn in body["messages"] if turn["role"] == "user"]
    return "".join(block.get("text", "") for block in users[-1]["content"])


def _prompt(body: dict[str, Any]) -> str:
    turns = [block for turn in body["messages"] for block in turn["content"]]
    return "\n".join(block.get("text", "") for block in [*(body.get("system") or ()), *turns])


def _fault(headers: Mapping[str, str], body: dict[str, Any]) -> str | None:
    """Return why the API refuses the request, or None."""
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if extra := sorted(set(body) - KNOWN):
        return f"{extra[0]}: Extra inputs are not permitted"
    if missing := sorted({"max_tokens", "messages", "model"} - set(body)):
        return f"{missing[0]}: Field required"
    if body.get("temperature", 0) > 1:
        return "temperature: range: 0..1"
    if {"temperature", "top_p"} <= set(body):
        return (
            "`temperature` and `top_p` cannot both be specified for this model. "
            "Please use only one."
        )
    if "tool_choice" in body and not body.get("tools"):
        return "tool_choice: may only be specified while providing `tools`"
    if any(not text.strip() for text in body.get("stop_sequences") or ()):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    for place, turn in enumerate(body["messages"]):
        if turn["role"] not in {"user", "assistant"}:
            return f'messages.{place}.role: Unexpected role "{turn["role"]}"'
        for block in turn["content"]:
            if block["type"] == "text" and not block["text"]:
                return "messages: text content blocks must be non-empty"
    return _pairing(body["messages"])


def _pairing(turns: list[dict[str, Any]]) -> str | None:
    """Return the fault of a call without its result in the next turn."""
    for place, turn in enumerate(turns[:-1]):
        calls = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
        results = {
            block["tool_use_id"]
            for block in turns[place + 1]["content"]
            if block["type"] == "tool_result"
        }
        if calls != results:
            ids = ", ".join(sorted(calls ^ results))
            return f"messages.{place}: `tool_use` ids were found without `tool_result`: {ids}"
    return None
