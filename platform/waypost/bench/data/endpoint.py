"""The endpoint that every way of asking calls: answers each chat after a set time, keeps a record.

``python -m waypost.bench.data.endpoint --latency 0.1`` listens on a free port of 127.0.0.1
and writes the port as its first line. Answers are rendered beforehand, so that it costs little of
the CPUs that it shares with whoever calls. ``GET /traffic`` returns the record and begins another.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import sys
import time
from array import array

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_USAGE = {"prompt_tokens": 64, "completion_tokens": 6, "total_tokens": 70}
_ANSWER = {
    "id": "bench",
    "object": "chat.completion",
    "created": 0,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The answer is 7."},
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}


class Record:
    """When calls came and when their answers went: monotonic seconds, which all processes share."""

    def __init__(self) -> None:
        self.begins, self.ends = array("d"), array("d")

    def take(self) -> bytes:
        """Return the record as JSON and forget it."""
        taken = {"begins": self.begins.tolist(), "ends": self.ends.tolist()}
        self.begins, self.ends = array("d"), array("d")
        return json.dumps(taken).encode()


class Connection(asyncio.Protocol):
    """One connection: requests with a content-length, one at a time, as clients send them."""

    def __init__(self, record: Record, latency_s: float) -> None:
        self._record, self._latency_s = record, latency_s
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take every request that is complete."""
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._held) < end:
                return
            request, self._held = self._held[:end], self._held[end:]
            self._take(request)

    def _take(self, request: bytes) -> None:
        if request.startswith(b"GET /traffic "):
            self._transport.write(_response("200 OK", self._record.take()))
        elif b"/chat/completions " in request[:200]:
            self._record.begins.append(time.monotonic())
            asyncio.get_running_loop().call_later(self._latency_s, self._answer)
        else:
            problem = b'{"error":{"message":"only chats are here"}}'
            self._transport.write(_response("404 Not Found", problem))

    def _answer(self) -> None:
        if self._transport.is_closing():  # the caller was killed
            return
        self._record.ends.append(time.monotonic())
        self._transport.write(_CHAT)


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


_CHAT = _response("200 OK", json.dumps(_ANSWER, separators=(",", ":")).encode())


async def listen(latency_s: float) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1."""
    record = Record()
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: Connection(record, latency_s), "127.0.0.1", 0, backlog=4096
    )


async def _serve(latency_s: float) -> None:
    server = await listen(latency_s)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.1)
    asyncio.run(_serve(parser.parse_args().latency))
