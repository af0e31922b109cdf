"""An upstream that speaks OpenAI's chat API to the clients of docs/clients.md, as OpenAI does.

What it answers is told by the user's last text: ``Case whole``, ``tools``, ``reasoning``,
``refusal``, ``structured``. It checks what reaches it, and answers with what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from aiohttp import web

TEXT = "Hello from the upstream, in one piece or several."
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CALLS = [
    ("call_a", "get_weather", {"city": "Oslo"}),
    ("call_b", "get_time", {"tz": "UTC"}),
]
RESULTS = {"call_a": "rain", "call_b": "12:00"}
OBJECT = {"city": "Oslo", "people": 700000}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def _call(id_: str, name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": id_, "type": "function", "function": function}


def message_for(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message that answers a request."""
    messages = body["messages"]
    asked = [_text(m["content"]) for m in messages if m["role"] == "user"]
    case = re.findall(r"Case (\w+)", "\n".join(asked))[-1]
    say = {"role": "assistant", "content": None, "refusal": None}
    if case == "reasoning":
        return say | {"reasoning_content": "Let me think.", "content": "42"}
    if case == "refusal":
        return say | {"refusal": "I cannot help."}
    if case == "tools":
        return say | _tools(body, messages)
    if case == "structured":
        return say | _structured(body)
    return say | {"content": TEXT}


def _tools(body: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    results = {m["tool_call_id"]: _text(m["content"]) for m in messages if m["role"] == "tool"}
    if not results:
        names = {tool["function"]["name"] for tool in body.get("tools") or ()}
        if not {name for _, name, _ in CALLS} <= names:
            return {"content": f"missing tools: {sorted(names)}"}
        return {"tool_calls": [_call(*call) for call in CALLS]}
    made = [call["id"] for m in messages for call in m.get("tool_calls") or ()]
    right = all(RESULTS[id_] in results.get(id_, "") for id_ in RESULTS)
    if right and made == list(RESULTS):
        return {"content": "Rain at 12:00."}
    return {"content": f"wrong results: {results} of {made}"}


def _structured(body: dict[str, Any]) -> dict[str, Any]:
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        properties = asked["json_schema"]["schema"]["properties"]
        wrong = set(properties) != set(OBJECT)
        return {"content": f"wrong schema: {properties}" if wrong else json.dumps(OBJECT)}
    if asked.get("type") == "json_object":
        return {"content": json.dumps(OBJECT)}
    if tools := body.get("tools"):
        return {"tool_calls": [_call("call_s", tools[0]["function"]["name"], OBJECT)]}
    return {"content": "no format was asked for"}


def deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a message as the deltas of a stream, texts in pieces of six characters."""
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for field in ("reasoning_content", "refusal", "content"):
        text = message.get(field) or ""
        found += [{field: text[i : i + 6]} for i in range(0, len(text), 6)]
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        named = call | {"function": {"name": call["function"]["name"], "arguments": ""}}
        found.append({"tool_calls": [{"index": index, **named}]})
        found += [
            {"tool_calls": [{"index": index, "function": {"arguments": arguments[i : i + 6]}}]}
            for i in range(0, len(arguments), 6)
        ]
    return found


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer ``POST /v1/chat/completions``."""
    body = await request.json()
    message = message_for(body)
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    head = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "scripted-1"}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        whole = head | {"object": "chat.completion", "choices": [choice], "usage": USAGE}
        return web.json_response(whole)
    head |= {"object": "chat.completion.chunk"}
    events = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas(message)
    ]
    events.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(head | {"choices": [], "usage": USAGE})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for index, event in enumerate(events):
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if index == len(events) // 2:
            await asyncio.sleep(0.05)  # what arrives at once may go on as one event
    await response.write(b"data: [DONE]\n\n")
    return response


def application() -> web.Application:
    """Return the server's application."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app
