"""The mock LLM endpoint behind all measured targets, and the prompts sent to it.

``python -m waypost.bench._upstream --tokens 64`` listens on a free port of 127.0.0.1 and writes the
port as its first line. Answers are rendered in advance, so the endpoint takes little CPU time
compared with a gateway. ``--latency`` delays each answer by that many seconds. ``GET /traffic``
returns the times of calls and answers, in monotonic seconds, and clears the record.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import re
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

PATH = "/v1/chat/completions"
TOKEN = "lorem "  # noqa: S105 - a token of text
"""The word that answers consist of by default; prompts never contain it."""

PROMPT_TOKENS = 16
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_HEAD = "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"

_KINDS = (
    "What is {a} times {b}, minus the number of {things} in {place}?",
    "Write a Python function that counts the {things} of {place} and adds {a} to every {b}th.",
    "Explain to a newcomer why the {things} of {place} were counted {a} times in the year {b}.",
    "A train leaves {place} at {a} with {b} {things}. How many {things} arrive, and when?",
    "Which of the {things} that {place} is known for is the oldest: the {a}th or the {b}th?",
    "Summarise in two sentences what happened to the {b} {things} near {place} after day {a}.",
)
_PLACES = ("Lisbon", "Oslo", "Nairobi", "Kyoto", "Lima", "Riga", "Cork", "Perth", "Quito", "Turin")
_THINGS = ("bridges", "lamps", "orchards", "libraries", "ferries", "clocks", "wells", "markets")


def prompts(seed: int) -> Iterator[str]:
    """Yield prompts without end, all different; the same ones for the same seed.

    They differ so that a router's caches of texts or embeddings have no hits.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    count = 0
    while True:
        count += 1
        kind = rng.choice(_KINDS)
        yield f"({count}) " + kind.format(
            a=rng.randrange(2, 10_000),
            b=rng.randrange(2, 10_000),
            things=rng.choice(_THINGS),
            place=rng.choice(_PLACES),
        )


def chat(model: str, prompt: str, *, stream: bool) -> bytes:
    """Return the body of a one-turn chat request; ``model`` and ``prompt`` are not JSON-escaped."""
    return b'{"model":"%s","messages":[{"role":"user","content":"%s"}],"stream":%s}' % (
        model.encode(),
        prompt.encode(),
        b"true" if stream else b"false",
    )


class Answers:
    """The rendered responses: the tokens as one response and as streams."""

    def __init__(self, tokens: Sequence[str]) -> None:
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": len(tokens),
            "total_tokens": PROMPT_TOKENS + len(tokens),
        }
        message = {"role": "assistant", "content": "".join(tokens)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.whole = _response("200 OK", _object("chat.completion", [choice], usage=usage))
        self.missing = _response("404 Not Found", b'{"error":{"message":"only chats are here"}}')
        deltas: list[dict[str, Any]] = [{"content": token} for token in tokens]
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
        """Parts of a stream; each is one write, like the tokens of an LLM."""


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


class Record:
    """Times of calls and of their answers, in monotonic seconds, a clock all processes share."""

    def __init__(self) -> None:
        self.begins, self.ends = array("d"), array("d")

    def take(self) -> bytes:
        """Return the record as JSON and clear it."""
        taken = {"begins": self.begins.tolist(), "ends": self.ends.tolist()}
        self.begins, self.ends = array("d"), array("d")
        return json.dumps(taken).encode()


class Upstream(asyncio.Protocol):
    """One connection: answers requests with a content-length; in order without a latency."""

    def __init__(self, answers: Answers, record: Record, latency_s: float) -> None:
        self._answers, self._record, self._latency_s = answers, record, latency_s
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._held) < end:
                return
            request, self._held = self._held[:end], self._held[end:]
            self._take(request, head)

    def _take(self, request: bytes, head: int) -> None:
        answers = self._answers
        if request.startswith(b"GET /traffic "):
            self._transport.write(_response("200 OK", self._record.take()))
        elif b"/chat/completions " not in request[:200]:
            self._transport.write(answers.missing)
        else:
            parts: Sequence[bytes] = (answers.whole,)
            if _STREAM.search(request, head):
                asked = b'"include_usage"' in request
                parts = answers.stream_with_usage if asked else answers.stream
            if self._latency_s:
                self._record.begins.append(time.monotonic())
                asyncio.get_running_loop().call_later(self._latency_s, self._answer, parts)
            else:
                for part in parts:
                    self._transport.write(part)

    def _answer(self, parts: Sequence[bytes]) -> None:
        if self._transport.is_closing():  # the caller was killed
            return
        self._record.ends.append(time.monotonic())
        for part in parts:
            self._transport.write(part)


async def listen(tokens: Sequence[str], latency_s: float = 0.0) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1.

    Args:
        tokens: Tokens of every answer.
        latency_s: Seconds until an answer; the record is kept only if this is above 0.
    """
    answers, record = Answers(tokens), Record()
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: Upstream(answers, record, latency_s), "127.0.0.1", 0, backlog=4096
    )


async def _serve(tokens: Sequence[str], latency_s: float) -> None:
    server = await listen(tokens, latency_s)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--text", help="text of every answer, instead of --tokens")
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    words = re.findall(r"\S+\s*", given.text) if given.text else [TOKEN] * given.tokens
    asyncio.run(_serve(words, given.latency))
