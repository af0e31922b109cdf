"""Who may open the page: names in the Host header, and what the page may load."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from ipaddress import ip_address
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_NAMES = 10_000

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Nothing comes from elsewhere: an image in an answer must not send away what was said."""


class Door:
    """ASGI middleware: refuses foreign names of the host, and sets the security headers.

    A page of another site whose name leads to this machine (DNS rebinding) would otherwise be
    answered.

    Args:
        app: The application behind it.
        hosts: Accepted names, without a port; None accepts all. ``*.name`` accepts its subdomains,
            ``0.0.0.0`` and ``::`` every address: an address in figures is nobody's trick.
    """

    def __init__(self, app: App, hosts: Sequence[str] | None = None) -> None:
        self._app = app
        self._hosts = None if hosts is None else tuple(host.lower() for host in hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif not self.accepts(_header(scope, b"host")):
            await _refuse(scope, send)
        else:
            await self._app(scope, receive, _with_policy(send))

    def accepts(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        if self._hosts is None:
            return True
        name = host_name(host)
        if not _ANY_ADDRESS.isdisjoint(self._hosts) and _is_address(name):
            return True
        return any(
            name.endswith(known[1:]) if known.startswith("*.") else name == known
            for known in self._hosts
        )


_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """Return the name in a Host header: without port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _header(scope: Message, wanted: bytes) -> str:
    found = [value for name, value in scope.get("headers", ()) if name.lower() == wanted]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                *message.get("headers", ()),
                (b"content-security-policy", POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
            message = {**message, "headers": headers}
        await send(message)

    return sending


class Patience:
    """Slows down those who try passwords: Gradio's own login takes as many as are sent.

    Args:
        most: Failed tries of one name before it must wait.
        within_s: Seconds in which they count.
    """

    def __init__(self, most: int = 5, within_s: float = 60.0) -> None:
        self._most, self._within_s = most, within_s
        self._failures: dict[str, deque[float]] = {}

    def may_try(self, name: str) -> bool:
        """Return whether a name may be tried now."""
        failures = self._failures.get(name)
        if failures is None:
            return True
        while failures and failures[0] < time.monotonic() - self._within_s:
            failures.popleft()
        if not failures:
            del self._failures[name]
        return len(failures) < self._most

    def failed(self, name: str) -> None:
        """Note a failed try."""
        if len(self._failures) >= MOST_NAMES:  # tries of made-up names must not fill the memory
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(name, deque(maxlen=self._most)).append(time.monotonic())


async def _refuse(scope: Message, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"This name is not one of the server's: open the page by the address it printed.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body})
