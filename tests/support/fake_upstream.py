"""An OpenAI-style server on a loopback port that does what a test scripts.

    async with FakeUpstream() as upstream:
        upstream.script(Reply(status=429, headers={"Retry-After": "0"}), Reply(text="hello"))
        ... call upstream.url ...
        assert upstream.requests[0].body["model"] == "m"

Each request takes the next reply of the script, or `default` if the script is empty. It is a
real server: it cuts replies on the socket and counts clients that disconnect.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

from waypost.contracts.generation import GenerateRequest
from waypost.engines.calls import StopFilter, last_user_text, pieces, prompt_text
from waypost.serve.gateway.responses import joined_tool_calls


@dataclass(frozen=True, slots=True)
class Reply:
    """A scripted response.

    A whole answer takes as long as its stream would, and fails where that would.

    Attributes:
        text: The answer; None repeats the last message of the user, or the prompt.
        status: HTTP status; any other than 200 answers with `body` at once.
        headers: Headers added to the response.
        body: JSON of an error, or of a whole answer in place of the usual one.
        delay_s: Seconds to wait before the status line.
        first_token_s: Seconds to wait between the headers and the first token of a stream.
        token_s: Seconds to wait before each token of a stream.
        tool_calls: Deltas sent in place of text.
        drop: Close the connection without a status line.
        cut_after: Close the connection after this number of tokens of a stream.
        finish: Whether a stream ends with a finish_reason.
        done: Whether a stream ends with ``[DONE]``.
        usage: Whether to send usage (in a stream only if requested).
        stream_error: An error object sent in the stream after half of the tokens.
        raw: The bytes of the stream, in place of all fields above; also where a whole answer is
            asked for, as of endpoints that always stream.
        split: Write a stream, or `wire`, in parts of this number of bytes.
        part_s: Seconds to wait between those parts.
        wire: The bytes of the response from its status line on. They replace all fields above
            except `delay_s`, `split` and `part_s`; then the connection is cut.
    """

    text: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    delay_s: float = 0.0
    first_token_s: float = 0.0
    token_s: float = 0.0
    tool_calls: tuple[dict[str, Any], ...] = ()
    drop: bool = False
    cut_after: int | None = None
    finish: bool = True
    done: bool = True
    usage: bool = True
    stream_error: Mapping[str, Any] | None = None
    raw: bytes | None = None
    split: int | None = None
    part_s: float = 0.0
    wire: bytes | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One received request."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class FakeUpstream:
    """The server; an async context manager.

    Attributes:
        default: The reply if the script is empty.
        requests: The received requests, in order.
        active: Number of requests being answered now.
        disconnects: Number of requests whose client disconnected before the end.
        connections: Number of client sockets so far.
        sent_tokens: Number of tokens written so far.
    """

    paths = ("/v1/chat/completions", "/v1/completions")

    def __init__(self, default: Reply | None = None) -> None:
        self.default = default or Reply()
        self.requests: list[Received] = []
        self.disconnects = 0
        self.sent_tokens = 0
        self.active = 0
        self._script: deque[Reply] = deque()
        self._sockets: set[object] = set()

    @property
    def connections(self) -> int:
        """Number of client sockets so far."""
        return len(self._sockets)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"http://127.0.0.1:{self._port}/v1"

    def script(self, *replies: Reply) -> None:
        """Add replies for the next requests."""
        self._script.extend(replies)

    def forget(self) -> None:
        """Clear the script."""
        self._script.clear()

    async def __aenter__(self) -> FakeUpstream:
        app = web.Application(client_max_size=64 * 2**20)
        for path in self.paths:
            app.router.add_post(path, self._answer)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(Received(request.path, dict(request.headers), body))
        self._sockets.add(request.transport)
        reply = self._script.popleft() if self._script else self.default
        self.active += 1
        try:
            await asyncio.sleep(reply.delay_s)
            if reply.wire is not None:
                await self._write_wire(request, reply)
            if reply.drop or reply.wire is not None:
                return self._drop(request)
            if reply.status != 200:
                return web.json_response(reply.body, status=reply.status, headers=reply.headers)
            if (problem := self._problem(request, body)) is not None:
                return web.json_response(problem, status=400)
            if body.get("stream") or reply.raw is not None:
                return await self._stream(request, reply, body)
            if reply.cut_after is not None:
                return self._drop(request)
            words = _plan(reply, body)[0] if reply.token_s else []
            await asyncio.sleep(reply.first_token_s + reply.token_s * len(words))
            if reply.stream_error is not None:
                return web.json_response({"error": reply.stream_error})
            return web.json_response(self._whole(reply, body), headers=reply.headers)
        except (asyncio.CancelledError, ConnectionError):
            self.disconnects += 1
            raise
        finally:
            self.active -= 1

    def _problem(self, request: web.Request, body: dict[str, Any]) -> Mapping[str, Any] | None:
        """Return the body of the refusal of a request that the API does not take."""
        return None

    def _whole(self, reply: Reply, body: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of a whole answer."""
        return _whole(reply, body)

    async def _write_wire(self, request: web.Request, reply: Reply) -> None:
        data = reply.wire or b""
        size = reply.split or max(1, len(data))
        for start in range(0, len(data), size):
            if request.transport is None or request.transport.is_closing():
                raise ConnectionError
            request.transport.write(data[start : start + size])
            await asyncio.sleep(reply.part_s)

    def _drop(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _stream(
        self, request: web.Request, reply: Reply, body: dict[str, Any]
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", **reply.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await asyncio.sleep(reply.first_token_s)
        if reply.raw is not None:
            await _write(response, reply.raw, reply)
            return response
        words, reason, usage = _plan(reply, body)
        for index, delta in enumerate(_deltas(reply, words)):
            if reply.stream_error is not None and index == len(words) // 2:
                await _write(response, _event({"error": reply.stream_error}), reply)
                return response
            if index == reply.cut_after:
                return self._drop(request)
            await asyncio.sleep(reply.token_s)
            await _write(response, _event(_chunk(body, delta)), reply)
            self.sent_tokens += 1
        tail = b""
        if reply.finish:
            tail += _event(_chunk(body, {}, reason))
        if reply.usage and (body.get("stream_options") or {}).get("include_usage"):
            tail += _event({"choices": [], "usage": usage})
        await _write(response, tail + (b"data: [DONE]\n\n" if reply.done else b""), reply)
        return response


def _plan(reply: Reply, body: dict[str, Any]) -> tuple[list[str], str, dict[str, int]]:
    """Return the words of the answer, its finish reason and usage, as a real server would."""
    asked = GenerateRequest("fake", messages=body.get("messages"), prompt=body.get("prompt"))
    text = last_user_text(asked) if reply.text is None else reply.text
    stops = StopFilter(body.get("stop") or ())
    text = stops.push(text) + stops.flush()
    words, limit = pieces(text), body.get("max_tokens")
    reason = "tool_calls" if reply.tool_calls else "stop"
    if limit is not None and len(words) > limit:
        words, reason = words[:limit], "length"
    counts = {
        "prompt_tokens": max(1, len(pieces(prompt_text(asked)))),
        "completion_tokens": max(1, len(words)),
    }
    return words, reason, counts


def _deltas(reply: Reply, words: list[str]) -> list[dict[str, Any]]:
    if reply.tool_calls:
        return [{"tool_calls": [call]} for call in reply.tool_calls]
    return [{"content": word} for word in words]


def _chunk(body: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> Any:
    if "prompt" in body:
        choice = {"index": 0, "text": delta.get("content", ""), "finish_reason": reason}
    else:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "fake", "model": body.get("model"), "choices": [choice]}


def _whole(reply: Reply, body: dict[str, Any]) -> Mapping[str, Any]:
    if reply.body is not None:
        return reply.body
    words, reason, usage = _plan(reply, body)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
    if reply.tool_calls:
        calls = joined_tool_calls(reply.tool_calls)
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    kind = {"text": "".join(words)} if "prompt" in body else {"message": message}
    answer = {"id": "fake", "choices": [{"index": 0, "finish_reason": reason, **kind}]}
    return answer | ({"usage": usage} if reply.usage else {})


def _event(data: Any) -> bytes:
    """Return an event without a name."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def _write(response: web.StreamResponse, data: bytes, reply: Reply) -> None:
    size = reply.split or max(1, len(data))
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        if reply.split:
            await asyncio.sleep(reply.part_s)  # its own packet, as far as TCP allows
