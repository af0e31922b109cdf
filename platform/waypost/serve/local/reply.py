"""Requests to a gateway from its own process, over ASGI, and what they return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from waypost.contracts.errors import GatewayError
from waypost.serve.backends.passing import Message
from waypost.serve.config import AUTO
from waypost.serve.gateway.http import INSIDE, Receive, Send

CHAT, ROUTE, FEEDBACK = "/v1/chat/completions", "/v1/route", "/v1/feedback"

App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

_OURS = {
    "lam": "lambda",
    "max_cost_usd": "max_cost_usd",
    "allowed_models": "allowed_models",
    "user_id": "user_id",
    "session_id": "session_id",
    "session_token": "session_token",
}
"""Arguments that are settings of Waypost, and their names in the body."""


@dataclass(frozen=True)
class Reply:
    """An answer of the gateway.

    Attributes:
        text: What the LLM said; "" where it only called tools.
        model: The LLM that answered.
        router: The router that chose it; ``pinned`` where the question named it.
        reason: Why it was chosen.
        cost_usd: Dollars of the answer, at least 0; None where prices are unknown.
        request_id: Its id, for `Gateway.rate`.
        body: The whole answer in OpenAI's form.
        headers: The headers that a client over HTTP would get.
    """

    text: str
    model: str
    router: str
    reason: str
    cost_usd: float | None
    request_id: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        return self.text


def question(asked: str | Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a chat.

    Args:
        asked: The question, or the messages of a conversation.
        fields: Further fields; those of `_OURS` go under ``waypost``.

    Raises:
        GatewayError: a stream is asked for.
    """
    if fields.get("stream"):
        problem = "an answer in this process comes whole; for its parts ask the URL of listen()"
        raise GatewayError(problem, 400, param="stream")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    ours = {name: fields[key] for key, name in _OURS.items() if fields.get(key) is not None}
    others = {key: value for key, value in fields.items() if key not in _OURS}
    body = {"model": AUTO, "messages": messages, **others}
    said = others.get("waypost") or {}
    if ours and isinstance(said, Mapping):  # what is none is the gateway's to refuse
        body["waypost"] = {**said, **ours}
    return body


def reply_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
    """Return the answer to a chat."""
    cost = (body.get("usage") or {}).get("waypost", {}).get("cost_usd")
    return Reply(
        body["choices"][0]["message"].get("content") or "",
        headers.get("x-waypost-model", body["model"]),
        headers.get("x-waypost-router", ""),
        headers.get("x-waypost-reason", ""),
        cost,
        headers["x-waypost-request-id"],
        body,
        headers,
    )


async def exchange(
    app: App, path: str, body: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Send a POST to an ASGI application; return the answer's JSON and its headers.

    Cancelling the call is a client that leaves.

    Raises:
        GatewayError: the status is not 2xx, or the body cannot be JSON.
    """
    try:
        sent = json.dumps(body).encode()
    except (TypeError, ValueError) as error:
        raise GatewayError(f"the body cannot be JSON: {error}", 400) from None
    told: list[Message] = [{"type": "http.request", "body": sent, "more_body": False}]
    status = 0
    headers: dict[str, str] = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        if told:
            return told.pop()
        await asyncio.Event().wait()  # a client that leaves cancels the whole exchange
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update((k.decode(), v.decode()) for k, v in message["headers"])
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        INSIDE: True,
    }
    await app(scope, receive, send)
    found = json.loads(b"".join(parts))
    if not 200 <= status < 300:
        problem = found["error"]
        raise GatewayError(problem["message"], status, problem.get("code"), problem.get("param"))
    return found, headers
