"""The least that a gateway in Python can do: pass requests on to the upstream, and answers back.

    python -m waypost.bench._forwarder PORT UPSTREAM_PORT

uvicorn with uvloop and httptools, one worker; aiohttp as the client. The body is read as JSON and
written again, because every gateway has to look into it. Nothing is decided, checked or counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn

from waypost.bench._upstream import PATH

Message = MutableMapping[str, Any]
EVENTS = [(b"content-type", b"text/event-stream")]


class Forwarder:
    """The ASGI application.

    Args:
        upstream: Port of the endpoint.
    """

    def __init__(self, upstream: int) -> None:
        self._url = f"http://127.0.0.1:{upstream}{PATH}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Forward one request."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        asked = json.loads(b"".join(parts)) | {"model": "echo"}
        head = {"content-type": "application/json"}
        async with self._session.post(self._url, data=json.dumps(asked), headers=head) as reply:
            if asked.get("stream"):
                await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                async for chunk in reply.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return
            body = json.dumps(json.loads(await reply.read())).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve on the port of the command line until a signal."""
    port, upstream = map(int, sys.argv[1:])
    uvicorn.run(
        Forwarder(upstream),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
