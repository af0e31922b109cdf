"""The endpoint behind every target: answers at once with a set number of tokens.

``python -m waypost.bench.gateway.upstream --tokens 64`` listens on a free port of 127.0.0.1
and writes the port as its first line. Answers are rendered beforehand, so that it costs a small
part of what any gateway does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import sys
from typing import Any

TOKEN = "lorem "  # noqa: S105 - a token of text
"""The word that answers are made of; prompts never hold it."""

PROMPT_TOKENS = 16
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_HEAD = "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"


class Answers:
    """The rendered answers of `tokens` tokens each."""

    def __init__(self, tokens: int) -> None:
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": tokens,
            "total_tokens": PROMPT_TOKENS + tokens,
        }
        message = {"role": "assistant", "content": TOKEN * tokens}
        whole = _object(
            "chat.completion",
            [{"index": 0, "message": message, "finish_reason": "stop"}],
            usage=usage,
        )
        self.whole = _response("200 OK", whole)
        self.missing = _response("404 Not Found", b'{"error":{"message":"only chats are here"}}')
        deltas: list[dict[str, Any]] = [{"content": TOKEN} for _ in range(tokens)]
        deltas[0]["role"] = "assistant"
        events = [_choice(delta, None) for delta in deltas]
        head = _HEAD.format(
            status="200 OK", kind="text/event-stream", length="transfer-encoding: chunked"
        )
        parts = [head.encode(), *map(_event, events), _event(_choice({}, "stop"))]
        end = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        told = _event(_object("chat.completion.chunk", [], usage=usage))
        self.stream = (*parts, end)
        self.stream_with_usage = (*parts, told + end)
        """Parts of a stream, each sent by itself, as tokens come from an LLM."""


def _object(kind: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
    data = {"id": "bench", "object": kind, "created": 0, "model": "echo", "choices": choices}
    return json.dumps(data | more, separators=(",", ":")).encode()


def _choice(delta: dict[str, Any], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _object("chat.completion.chunk", [choice])


def _event(data: bytes) -> bytes:
    return _chunk(b"data: " + data + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _response(status: str, body: bytes) -> bytes:
    length = f"content-length: {len(body)}"
    return _HEAD.format(status=status, kind="application/json", length=length).encode() + body


class Upstream(asyncio.Protocol):
    """One connection: requests with a content-length, answered in their order."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._held) < end:
                return
            request, self._held = self._held[:end], self._held[end:]
            self._answer(request, head)

    def _answer(self, request: bytes, head: int) -> None:
        write, answers = self._transport.write, self._answers
        if b"/chat/completions " not in request[:200]:
            write(answers.missing)
        elif _STREAM.search(request, head):
            asked = b'"include_usage"' in request
            for part in answers.stream_with_usage if asked else answers.stream:
                write(part)
        else:
            write(answers.whole)


async def listen(tokens: int) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1."""
    answers = Answers(tokens)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Upstream(answers), "127.0.0.1", 0, backlog=512)


async def _serve(tokens: int) -> None:
    server = await listen(tokens)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=64)
    asyncio.run(_serve(parser.parse_args().tokens))
